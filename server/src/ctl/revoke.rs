//! `oneknockctl revoke`, and what a change to a key's file revokes. The daemon does it; where
//! none runs, this process does.

use super::ask::{NoAnswer, ask, guard};
use super::enable::Session;
use super::output::{say, warn};
use super::{Failure, offline};
use crate::config::{self, Paths, Steps};
use crate::control::answers::{ErrorCode, KeyReloaded, MOST_LISTED, Revoked};
use crate::control::protocol::{Command, Selection};
use crate::server::ServerSettings;
use oneknock_shared::name::KeyName;
use std::net::IpAddr;

/// What of a key a change to its file ends.
#[derive(Debug, Clone)]
pub struct KeyEnd {
    /// What these generations alone have opened, by their numbers; all of it where there are
    /// none.
    pub generations: Vec<u32>,
    /// The connections too.
    pub disconnect: bool,
}

/// Tells a running daemon, if there is one, that `what` was done to this key. What ends by it
/// has ended when this returns, or it has failed.
pub fn tell(
    paths: &Paths,
    key: &KeyName,
    what: &str,
    ends: Option<&KeyEnd>,
) -> Result<(), Failure> {
    let of = Selection::Key(key.clone());
    // What the caller prints next is to be seen.
    let wants = ends.is_some_and(|ends| ends.disconnect);
    let is_spared = wants && own_session(paths, &of).is_some();
    let disconnect = wants && !is_spared;
    let revoked = match ask(paths, &Command::ReloadKey { key: key.clone() }) {
        Ok(KeyReloaded { .. }) => {
            say(format_args!("{what}; the daemon has reloaded it"));
            let Some(ends) = ends.filter(|_| disconnect) else {
                warn_of_spared(paths, key, is_spared);
                return Ok(());
            };
            let command = Command::Revoke {
                of,
                generations: ends.generations.clone(),
                disconnect,
            };
            ask(paths, &command)?
        }
        Err(NoAnswer::NoDaemon(_)) => {
            say(format_args!(
                "{what} (oneknockd is not running; it reads the key when it starts)"
            ));
            let Some(ends) = ends else { return Ok(()) };
            warn_of_rolling_sequence(paths, key);
            let revoked = offline::revoke(paths, &of, &ends.generations, disconnect);
            revoked.map_err(|failure| {
                let hint = "active grants stay until they expire, or until oneknockd starts";
                failure.with_hint(hint.into())
            })?
        }
        Err(no) => return Err(not_reloaded(paths, key, what, ends.is_some(), no)),
    };
    print_revoked(&revoked);
    warn_of_spared(paths, key, is_spared);
    Ok(())
}

/// No connection was ended, since the command is called in a session of them.
fn warn_of_spared(paths: &Paths, key: &KeyName, is_spared: bool) {
    if is_spared {
        let what =
            "no connection was ended: that may end the session that this command is called in";
        let ctl = paths.ctl();
        let hint = format!("{ctl} revoke {key} --disconnect --own-session");
        warn(what, Some(&hint));
    }
}

/// The file says what the daemon does not do.
fn not_reloaded(paths: &Paths, key: &KeyName, what: &str, ends: bool, no: NoAnswer) -> Failure {
    match no {
        NoAnswer::Refused(error) => {
            for error in &error.errors {
                say(format_args!("error: {error}"));
            }
            let hint = format!("fix that, then: {} reload", paths.ctl());
            let why = error.message;
            let what = format!("{what}, but the daemon did not reload it: {why}");
            Failure::Failed(what, Some(hint))
        }
        no => {
            let hint = format!("{} reload", paths.ctl());
            let what = format_args!("{what}, but the daemon did not reload it");
            warn(what, Some(&hint));
            if ends {
                warn(format_args!("key {key} may still be active"), None);
            }
            no.into()
        }
    }
}

/// Without a daemon the kernel forgets a key's rolling port sequence by itself.
fn warn_of_rolling_sequence(paths: &Paths, key: &KeyName) {
    let settings = ServerSettings::load_for_start(paths);
    let is_rolling = |settings: &ServerSettings| {
        let sequence = settings.config.sequence.as_ref();
        sequence.is_some_and(|sequence| sequence.steps == Steps::Rolling)
    };
    if settings.as_ref().is_ok_and(is_rolling) {
        say(format_args!(
            "note: the rolling port sequence of key {key} opens until the kernel drops it, in three minutes at most"
        ));
    }
}

#[derive(Debug, clap::Args)]
pub struct Revoke {
    /// The name of a key, or an address
    #[arg(value_name = "KEY|ADDRESS", required_unless_present = "all")]
    of: Option<Selection>,
    /// Revoke all grants
    #[arg(long, conflicts_with = "of")]
    all: bool,
    /// Also end the connections that were admitted, whether or not the grant has ended since:
    /// all from an address to a service that the journal has for it, also those of others
    /// behind the same address
    ///
    /// The port sequence has no journal: of an address these are all connections to the service
    /// that the sequence opens.
    #[arg(long)]
    disconnect: bool,
    /// With --disconnect, also if that may end the session that this command is called in
    #[arg(long, requires = "disconnect")]
    own_session: bool,
}

/// The address that this call comes from, if ending the connections of a selection may end its
/// own session.
fn own_session(paths: &Paths, of: &Selection) -> Option<IpAddr> {
    let (config, _) = config::main_or_last_good(paths).ok()?;
    let session = Session::of_this_call(&config).ok().flatten()?;
    let address = session.remote.ip();
    let is_meant = match of {
        Selection::All => !config.never_knocks(address),
        Selection::Address(of) => *of == address,
        Selection::Key(_) => true,
    };
    is_meant.then_some(address)
}

impl Revoke {
    pub fn run(&self, paths: &Paths) -> Result<(), Failure> {
        let of = self.of.as_ref().unwrap_or(&Selection::All);
        if self.disconnect
            && !self.own_session
            && let Some(address) = own_session(paths, of)
        {
            let what = format!(
                "nothing was revoked: this may end the session from {address} that the command is called in"
            );
            let hint = "add --own-session";
            return Err(Failure::Refused(what, Some(hint.into())));
        }
        let revoked = self.revoke(paths, of)?;
        print_revoked(&revoked);
        if revoked.revoked > 0 && !self.disconnect {
            say("note: established connections go on, unless --disconnect ends them");
            if let Selection::Key(key) = of {
                let ctl = paths.ctl();
                say(format_args!(
                    "note: the holder of key {key} can knock again"
                ));
                say(format_args!("hint: {ctl} key remove {key}"));
            }
        }
        Ok(())
    }

    /// By the daemon; where none runs, by this process.
    fn revoke(&self, paths: &Paths, of: &Selection) -> Result<Revoked, Failure> {
        let command = Command::Revoke {
            of: of.clone(),
            generations: Vec::new(),
            disconnect: self.disconnect,
        };
        match ask(paths, &command) {
            Ok(revoked) => Ok(revoked),
            Err(NoAnswer::NoDaemon(_)) => {
                say(format_args!("note: oneknockd is not running{}", guard()));
                let revoked = offline::revoke(paths, of, &[], self.disconnect)?;
                let ended = revoked.disconnected.as_ref().map_or(0, |done| done.ended);
                match of {
                    Selection::Key(key)
                        if revoked.revoked + ended == 0
                            && paths.key_file(key.as_str()).symlink_metadata().is_err() =>
                    {
                        Err(super::no_key(paths, key))
                    }
                    _ => Ok(revoked),
                }
            }
            Err(NoAnswer::Refused(error)) if error.code == ErrorCode::NoKey => Err(match of {
                Selection::Key(key) => super::no_key(paths, key),
                _ => Failure::Failed(error.message, None),
            }),
            Err(no) => Err(no.into()),
        }
    }
}

fn print_revoked(revoked: &Revoked) {
    say(format_args!("revoked grants: {}", revoked.revoked));
    for grant in &revoked.still {
        let (address, service, key) = (grant.address, &grant.service, &grant.key);
        say(format_args!(
            "note: {address} still has access to {service} by key {key}"
        ));
    }
    if revoked.still.len() == MOST_LISTED {
        say("note: this list may be incomplete");
    }
    if let Some(done) = &revoked.disconnected {
        say(format_args!("ended connections: {}", done.ended));
        if done.remaining > 0 {
            let remaining = done.remaining;
            say(format_args!(
                "note: other connections on guarded ports go on: {remaining}"
            ));
        }
    }
}
