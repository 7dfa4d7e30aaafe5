//! Ends grants and connections before their time: `oneknockctl revoke`, and what a change to
//! a key's file brings with it. The daemon does it; where none runs, this process does.

use super::ask::{NoAnswer, ask, guard};
use super::{Failure, offline, say};
use crate::config::{Paths, Steps};
use crate::control::answers::{ErrorCode, KeyReloaded, MOST_LISTED, Revoked};
use crate::control::protocol::{Command, Selection};
use crate::server::ServerSettings;
use oneknock_shared::name::KeyName;

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
    match ask(paths, &Command::ReloadKey { key: key.clone() }) {
        Ok(KeyReloaded { .. }) => {
            say(format_args!("{what}, and the daemon has reloaded it"));
            match ends {
                Some(ends) if ends.disconnect => {
                    let command = Command::Revoke {
                        of: Selection::Key(key.clone()),
                        generations: ends.generations.clone(),
                        disconnect: true,
                    };
                    print_revoked(&ask(paths, &command)?);
                    Ok(())
                }
                _ => Ok(()),
            }
        }
        Err(NoAnswer::NoDaemon(_)) => {
            say(format_args!(
                "{what}; oneknockd is not running: it reads the key when it starts"
            ));
            let Some(ends) = ends else { return Ok(()) };
            warn_of_rolling_sequence(paths, key);
            let of = Selection::Key(key.clone());
            let revoked = offline::revoke(paths, &of, &ends.generations, ends.disconnect);
            let revoked = revoked.map_err(|failure| {
                let hint = "grants that are live stay until they expire, or until oneknockd starts";
                failure.with_hint(hint.into())
            })?;
            print_revoked(&revoked);
            Ok(())
        }
        Err(NoAnswer::Refused(error)) => {
            for error in &error.errors {
                say(format_args!("oneknockctl: {error}"));
            }
            let hint = format!("fix that, then: {} reload", paths.ctl());
            let why = error.message;
            Err(Failure::Failed(
                format!("{what}, but the daemon did not reload it: {why}"),
                Some(hint),
            ))
        }
        Err(NoAnswer::Failed(failure)) => {
            say(format_args!("{what}, but the daemon could not be told"));
            if ends.is_some() {
                say(format_args!(
                    "hint: until it is told, key {key} may open as before: {} reload",
                    paths.ctl()
                ));
            }
            Err(failure)
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
            "the rolling port sequence of key {key} opens until the kernel forgets it: three minutes at the most"
        ));
    }
}

/// `oneknockctl revoke`.
pub fn revoke(paths: &Paths, of: &Selection, disconnect: bool) -> Result<(), Failure> {
    let command = Command::Revoke {
        of: of.clone(),
        generations: Vec::new(),
        disconnect,
    };
    let revoked: Revoked = match ask(paths, &command) {
        Ok(revoked) => revoked,
        Err(NoAnswer::NoDaemon(_)) => {
            say(format_args!("oneknockd is not running{}", guard()));
            let revoked = offline::revoke(paths, of, &[], disconnect)?;
            if let Selection::Key(key) = of
                && revoked.revoked == 0
                && revoked
                    .disconnected
                    .as_ref()
                    .is_none_or(|done| done.ended == 0)
                && paths.key_file(key.as_str()).symlink_metadata().is_err()
            {
                return Err(super::no_key(paths, key));
            }
            revoked
        }
        Err(NoAnswer::Refused(error)) if error.code == ErrorCode::NoKey => {
            return Err(match of {
                Selection::Key(key) => super::no_key(paths, key),
                _ => Failure::Failed(error.message, None),
            });
        }
        Err(no) => return Err(no.into()),
    };
    print_revoked(&revoked);
    if revoked.revoked > 0 && !disconnect {
        say(format_args!(
            "hint: connections that are established live on (--cut ends them), and who has the key can knock again (\"{} key remove\" ends that)",
            paths.ctl()
        ));
    }
    Ok(())
}

fn print_revoked(revoked: &Revoked) {
    say(format_args!("closed: {}", revoked.revoked));
    for grant in &revoked.still {
        let (address, service, key) = (grant.address, &grant.service, &grant.key);
        say(format_args!(
            "{address} is still admitted to {service} by key {key}"
        ));
    }
    if revoked.still.len() == MOST_LISTED {
        say("and perhaps more");
    }
    if let Some(done) = &revoked.disconnected {
        say(format_args!("connections ended: {}", done.ended));
        if done.remaining > 0 {
            say(format_args!(
                "other connections on guarded ports: {}",
                done.remaining
            ));
        }
    }
}
