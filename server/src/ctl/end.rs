//! Ends grants and connections before their time: `oneknockctl revoke`, and what a change to
//! a key's file brings with it. The daemon does it; where none runs, root does it here.

use super::alone::{Alone, Meant};
use super::ask::{NoAnswer, ask, guard};
use super::{Failure, say};
use crate::config::{self, Usable, ctl_command};
use crate::control::answers::{Cut, MOST_LISTED, Reloaded, Revoked};
use crate::control::protocol::{Command, Who};
use crate::files;
use oneknock_shared::name::KeyName;
use oneknock_shared::secret::GenerationId;
use std::collections::BTreeSet;
use std::path::Path;

/// What of a key a change to its file ends.
#[derive(Debug)]
pub struct Ends<'k> {
    /// The key.
    pub key: &'k KeyName,
    /// What these generations alone have opened; all of it without.
    pub generations: Option<Generations>,
    /// The connections too.
    pub cut: bool,
}

/// Some of a key's generations.
#[derive(Debug)]
pub struct Generations {
    /// Their numbers, also of those that are gone from the key's file: the history has them.
    pub numbers: Vec<u32>,
    /// What those that are there are called in the state.
    pub ids: BTreeSet<GenerationId>,
}

/// Tells a running daemon, if there is one, that `what` was done to the keys. What ends by
/// it has ended when this returns, or it has failed.
pub fn tell(dir: &Path, what: &str, ends: Option<&Ends<'_>>) -> Result<(), Failure> {
    match ask(dir, &Command::Reload) {
        Ok(Reloaded { .. }) => {
            say(format_args!("{what}, and the daemon has taken it"));
            ends.map_or(Ok(()), |ends| ends.cut(dir))
        }
        Err(NoAnswer::NoDaemon(_)) => {
            say(format_args!(
                "{what}; no daemon runs: oneknockd takes it when it starts"
            ));
            ends.map_or(Ok(()), |ends| ends.without_daemon(dir))
        }
        Err(NoAnswer::Refused {
            why,
            mistakes,
            keys_taken,
        }) => {
            for mistake in mistakes {
                say(format_args!("oneknockctl: {mistake}"));
            }
            if keys_taken {
                say(format_args!(
                    "{what}, and the daemon has taken it, but nothing of oneknockd.toml"
                ));
                return ends.map_or(Ok(()), |ends| ends.cut(dir));
            }
            let what = format!("{what}, but the daemon has not taken it: {why}");
            let mut hint = format!("mend that, then: {} reload", ctl_command(dir));
            if let Ok(usable) = Usable::load(dir)
                && !usable.left_out.is_empty()
            {
                let files = usable.left_out.join(", ");
                hint = format!(
                    "{hint}; or start oneknockd anew: it leaves out {files}, and takes the rest"
                );
            }
            Err(match ends {
                None => Failure::Failed(what, Some(hint)),
                Some(ends) => ends.although_refused(dir, what, &hint),
            })
        }
        Err(NoAnswer::Failed(failure)) => {
            say(format_args!("{what}, but the daemon could not be told"));
            if let Some(ends) = ends {
                say(format_args!(
                    "hint: until it has taken it, key {} may open as before: {} reload{}",
                    ends.key,
                    ctl_command(dir),
                    ends.again(dir)
                ));
            }
            Err(failure)
        }
    }
}

impl Ends<'_> {
    fn who(&self) -> Who {
        Who::Key(self.key.clone())
    }

    /// Has the connections ended, where that is asked for.
    fn cut(&self, dir: &Path) -> Result<(), Failure> {
        if !self.cut {
            return Ok(());
        }
        let who = self.who();
        let mut numbers = self.numbers().into_iter();
        numbers.try_for_each(|number| cut(dir, Some(&who), number))
    }

    /// What the history is to be asked for.
    fn numbers(&self) -> Vec<Option<u32>> {
        match &self.generations {
            None => vec![None],
            Some(of) => of.numbers.iter().copied().map(Some).collect(),
        }
    }

    /// What is to be done after a reload that is made later.
    fn again(&self, dir: &Path) -> String {
        if self.cut {
            format!(" && {} revoke {} --cut", ctl_command(dir), self.key)
        } else {
            String::new()
        }
    }

    /// A mistake elsewhere keeps the key in force: what it has opened ends all the same.
    fn although_refused(&self, dir: &Path, what: String, hint: &str) -> Failure {
        let key = self.key;
        let who = self.who();
        for done in [revoke_by_daemon(dir, &who), self.cut(dir)] {
            if let Err(failure) = done {
                failure.say();
            }
        }
        let again = self.again(dir);
        let hint = format!("until it has, key {key} opens as before: {hint}{again}");
        Failure::Failed(what, Some(hint))
    }

    fn without_daemon(&self, dir: &Path) -> Result<(), Failure> {
        let who = self.who();
        let ids = self.generations.as_ref().map(|of| of.ids.clone());
        // Whoever has changed the key has said what is wrong.
        let (config, _) = load(dir)?;
        if config
            .sequence
            .as_ref()
            .is_some_and(|s| s.fixed().is_empty())
        {
            say(format_args!(
                "the rolling port sequence that {} has works until the kernel forgets it: three minutes at the most",
                self.key
            ));
        }
        let mut alone = Alone::open(config).map_err(|failure| {
            let hint =
                "grants that are live stay until their time is over, or until oneknockd starts";
            failure.with_hint(hint.into())
        })?;
        told(&alone.close(&Meant::these(Some(&who), ids))?);
        if self.cut {
            for number in self.numbers() {
                cut_told(&alone.cut(Some(&who), number)?);
            }
        }
        alone.finish()
    }
}

/// `oneknockctl revoke`.
pub fn revoke(dir: &Path, who: Option<&Who>, with_cut: bool) -> Result<(), Failure> {
    let revoked: Revoked = match ask(dir, &Command::Revoke(who.cloned())) {
        Err(NoAnswer::NoDaemon(_)) => return revoke_without_daemon(dir, who, with_cut),
        Err(no) => return Err(refused(dir, who, no)),
        Ok(revoked) => revoked,
    };
    told(&revoked);
    if with_cut {
        return cut(dir, who, None);
    }
    hint_of_sessions(dir, &revoked);
    Ok(())
}

fn revoke_by_daemon(dir: &Path, who: &Who) -> Result<(), Failure> {
    told(&ask(dir, &Command::Revoke(Some(who.clone())))?);
    Ok(())
}

/// Why the daemon has revoked nothing; of a key that it does not know there is more to say.
fn refused(dir: &Path, who: Option<&Who>, no: NoAnswer) -> Failure {
    match (who, &no) {
        (Some(Who::Key(name)), NoAnswer::Refused { why, .. })
            if *why == format!("there is no key {name}") =>
        {
            super::no_key(dir, name)
        }
        _ => no.into(),
    }
}

/// The key that is meant, where it has no file.
fn without_file<'w>(dir: &Path, who: Option<&'w Who>) -> Option<&'w KeyName> {
    let Some(Who::Key(name)) = who else {
        return None;
    };
    let file = files::key_file(dir, name.as_str());
    file.symlink_metadata().is_err().then_some(name)
}

fn revoke_without_daemon(dir: &Path, who: Option<&Who>, with_cut: bool) -> Result<(), Failure> {
    say(format_args!("no daemon runs{}", guard()));
    let (config, mistakes) = load(dir)?;
    for mistake in mistakes {
        say(format_args!("oneknockctl: {mistake}"));
    }
    let mut alone = Alone::open(config)?;
    let revoked = alone.close(&Meant::these(who, None))?;
    if let Some(name) = without_file(dir, who)
        && revoked.closed == 0
        && !alone.knows(name)
    {
        return Err(super::no_key(dir, name));
    }
    told(&revoked);
    if with_cut {
        cut_told(&alone.cut(who, None)?);
    } else {
        hint_of_sessions(dir, &revoked);
    }
    alone.finish()
}

fn load(dir: &Path) -> Result<(config::Config, Vec<config::Mistake>), Failure> {
    super::check_readable(dir)?;
    config::load_config_or_kept(dir).map_err(Failure::Mistakes)
}

/// Has the connections ended that grants have let in.
fn cut(dir: &Path, who: Option<&Who>, generation: Option<u32>) -> Result<(), Failure> {
    let who = who.cloned();
    cut_told(&ask(dir, &Command::Cut { who, generation })?);
    Ok(())
}

fn told(revoked: &Revoked) {
    say(format_args!("closed: {}", revoked.closed));
    for grant in &revoked.still {
        let (address, service, key) = (grant.address, &grant.service, &grant.key);
        say(format_args!(
            "{address} is still admitted to {service} by key {key}"
        ));
    }
    if revoked.still.len() == MOST_LISTED {
        say("and perhaps more");
    }
}

fn cut_told(cut: &Cut) {
    say(format_args!("connections ended: {}", cut.ended));
}

fn hint_of_sessions(dir: &Path, revoked: &Revoked) {
    if revoked.closed > 0 {
        say(format_args!(
            "hint: sessions that are in live on (--cut ends them), and who has the key can knock again: \"{} key remove\" ends that",
            ctl_command(dir)
        ));
    }
}
