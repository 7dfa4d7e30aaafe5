//! `oneknockctl enable`, `confirm` and `disable`: the guard up, first on trial, and down.
//!
//! A trial needs no process. A file says that the guard is not confirmed
//! ([`crate::config::trial`]): then its doors are shut only while an element of a set in the
//! kernel has time left.

mod self_knock;
mod session;
mod systemd;

use super::ask::{NoAnswer, ask};
use super::{Failure, control, say, span_of_time, words};
use crate::clock::Clock;
use crate::config::trial::{self, Until};
use crate::config::{self, Config, Settings, Usable, ctl_command};
use crate::control::answers::{Reloaded, Revoked, Status, TriedOut};
use crate::control::protocol::{Command, TRIAL};
use crate::firewall::{self, Firewall};
use crate::ledger;
use humantime::format_duration;
use oneknock_shared::knock::Timestamp;
use std::path::Path;
use std::time::Duration;

/// Between the grants that are closed for a trial, and its beginning.
const SLACK: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub struct Enable {
    /// Only on trial: it goes down again by itself after so long, 10s to 1h, unless
    /// "oneknockctl confirm" comes from a session that was let in by a knock meanwhile.
    #[arg(long, value_name = "TIME", value_parser = trial_time)]
    confirm: Option<Duration>,
}

fn trial_time(text: &str) -> Result<Duration, String> {
    if text.parse::<u64>().is_ok() {
        return Err(format!("it needs a unit: {text}m or {text}s"));
    }
    let time = span_of_time(text)?;
    if time.subsec_nanos() != 0 || !TRIAL.contains(&time.as_secs()) {
        return Err("must be whole seconds, from 10s to 1h".into());
    }
    Ok(time)
}

impl Enable {
    pub fn run(&self, dir: &Path) -> Result<(), Failure> {
        needs_root("the guard can be put up by root alone")?;
        self_knock::clean_up(dir)?;
        let settings = Settings::load(dir).map_err(Failure::Mistakes)?;
        let config = &settings.config;
        if !config.on_trial && stays_up(config)? {
            if self.confirm.is_some() {
                let hint = format!("\"{} disable\" takes it down", ctl_command(dir));
                let what = "the guard is up already: nothing is left to try";
                return Err(Failure::Failed(what.into(), Some(hint)));
            }
            say("the guard is up already");
            if systemd::is_in_charge(dir) {
                systemd::start("the guard is up, and nobody new gets in")?;
            } else {
                let _: Status = ask(dir, &Command::Status)?;
            }
            return systemd::enable(dir);
        }
        if !settings.has_key_at(Clock::start().now().wall) {
            let hint = format!("make one first: {} key add laptop", ctl_command(dir));
            let what = "there is no key: nobody could come in";
            return Err(Failure::Failed(what.into(), Some(hint)));
        }
        // What is on trial until it is confirmed was so before this call.
        let comes_up = trial::read(dir) != Some(Until::Confirmed) && systemd::is_enabled(dir);
        let until = if comes_up {
            Until::NextStart
        } else {
            Until::Confirmed
        };
        // From here on nothing is shut but by a trial.
        begin(dir, until)?;
        let shut = self.shut(dir);
        if shut.is_err() && comes_up {
            // As it was: what would be shut after the machine's next start still is then.
            end(dir)?;
            say(format_args!(
                "after a reload, or the machine's next start, the guard is up all the same, as it was enabled before; \"{} disable\" keeps it down",
                ctl_command(dir)
            ));
        }
        shut
    }

    /// Shuts the doors, of a guard on trial.
    fn shut(&self, dir: &Path) -> Result<(), Failure> {
        start(dir)?;
        let took = self_knock::knock(dir)?;
        say(format_args!(
            "this machine has knocked at itself: the grant was there after {} ms",
            took.as_millis()
        ));
        let _: Revoked = ask(dir, &Command::Revoke(None))?;
        let time = self.confirm.unwrap_or(Duration::from_secs(*TRIAL.start()));
        let _: TriedOut = ask(dir, &Command::TryOut(time))?;
        if self.confirm.is_some() {
            begin(dir, Until::Confirmed)?;
            say(format_args!(
                "the guard is up, on trial, for {}: sessions that are open live on",
                format_duration(time)
            ));
            say(format_args!(
                "hint: open a new session from the client, and there, before that time is over: sudo {} confirm",
                ctl_command(dir)
            ));
            return Ok(());
        }
        keep_up(dir)?;
        say("the guard is up: sessions that are open live on");
        systemd::enable(dir)
    }
}

pub fn confirm(dir: &Path) -> Result<(), Failure> {
    needs_root("a trial can be confirmed by root alone")?;
    let settings = Usable::load(dir).map_err(Failure::Mistakes)?.settings;
    let config = &settings.config;
    let unseen = |error| Failure::new("cannot see the trial", error);
    let mut firewall = Firewall::open().map_err(unseen)?;
    let trial = firewall.trial().map_err(unseen)?;
    // A call that was killed over it may have removed the file already.
    if trial.is_none() && !config.on_trial {
        if stays_up(config)? {
            say("the guard is confirmed already: it stays up");
            return systemd::enable(dir);
        }
        let what = "there is no trial to confirm";
        return Err(Failure::Failed(what.into(), None));
    }
    let Some(trial) = trial else {
        let hint = format!("begin again: {} enable --confirm 5m", ctl_command(dir));
        let what = "the trial has ended: the guard is down";
        return Err(Failure::Failed(what.into(), Some(hint)));
    };
    let since = trial.time.saturating_sub(trial.left);
    let session = session::of_this_call(config, &mut firewall, since)?;
    if !has_knocked(config, &session, since)? {
        let what = format!(
            "nobody has knocked for {} since the trial began, and yet it is connected",
            session.address
        );
        return Err(Failure::Failed(what, Some(session::HINT.into())));
    }
    keep_up(dir)?;
    say(format_args!(
        "confirmed by a session from {}: the guard stays up",
        session.address
    ));
    systemd::enable(dir)
}

/// Whether a knock since the trial began, or a walk of the port sequence, has admitted the
/// session's other end. Whoever was admitted before was shut out at its beginning.
fn has_knocked(
    config: &Config,
    session: &session::Session,
    since: Duration,
) -> Result<bool, Failure> {
    let begun = u64::try_from((since + SLACK).as_millis()).unwrap_or(u64::MAX);
    let begun = Timestamp(Clock::start().now().wall.0.saturating_sub(begun));
    let entries = ledger::history(&config.state, None, begun)
        .map_err(|error| Failure::new("cannot see who has knocked", error))?;
    let is_one = |e: &ledger::Entry| e.address == session.address && e.opened >= begun;
    if entries.iter().any(is_one) {
        return Ok(true);
    }
    let walked = Firewall::open().and_then(|mut firewall| firewall.walked(config));
    let walked = walked.map_err(|error| Failure::new("cannot see who has knocked", error))?;
    Ok(walked
        .iter()
        .any(|(address, _)| *address == session.address))
}

pub fn disable(dir: &Path) -> Result<(), Failure> {
    needs_root("the guard can be taken down by root alone")?;
    let down = control::teardown(dir);
    systemd::disable(dir)?;
    match down {
        // One that hangs, or could not take it down, has ended by now.
        Err(_) if systemd::is_in_charge(dir) => control::teardown(dir)?,
        down => down?,
    }
    self_knock::clean_up(dir)?;
    config::forget_kept(dir)
        .map_err(|error| Failure::new("what was last in force is still kept", error))?;
    end(dir)?;
    if !systemd::is_in_charge(dir) {
        say(format_args!(
            "hint: let neither \"oneknockctl guard\" nor oneknockd be run at the machine's start: each puts the guard up"
        ));
    }
    Ok(())
}

fn needs_root(what: &str) -> Result<(), Failure> {
    if firewall::has_net_admin() {
        return Ok(());
    }
    Err(Failure::needs_root(what.into()))
}

/// Whether the guard of this configuration is up for good; refuses where another's is up.
fn stays_up(config: &Config) -> Result<bool, Failure> {
    let look = || {
        let mut firewall = Firewall::open()?;
        firewall.check_free(config)?;
        firewall.stays_up()
    };
    look().map_err(|error| Failure::new("cannot see whether the guard is up", error))
}

fn begin(dir: &Path, until: Until) -> Result<(), Failure> {
    let begun = trial::begin(dir, until);
    begun.map_err(|error| Failure::new("cannot note that the guard is on trial", error))
}

fn end(dir: &Path) -> Result<(), Failure> {
    let ended = trial::end(dir);
    ended.map_err(|error| Failure::new("the guard is still noted to be on trial", error))
}

/// Has the daemon know that the guard is on trial; starts it where it does not run.
fn start(dir: &Path) -> Result<(), Failure> {
    match ask::<Reloaded>(dir, &Command::Reload) {
        Err(NoAnswer::NoDaemon(_)) if systemd::is_in_charge(dir) => {
            systemd::start("the guard is down")?;
        }
        Err(NoAnswer::NoDaemon(path)) => {
            let what = format!("no daemon answers at {}: the guard is down", path.display());
            let hint = "start oneknockd, which shuts nothing yet, and enable again";
            return Err(Failure::Failed(what, Some(hint.into())));
        }
        other => {
            other?;
        }
    }
    let status: Status = ask(dir, &Command::Status)?;
    if status.waits_for_clock {
        let what = format!("the guard is down: {}", words::WAITS);
        return Err(Failure::Failed(what, None));
    }
    Ok(())
}

/// Ends the trial: the guard is up for good.
fn keep_up(dir: &Path) -> Result<(), Failure> {
    let until = trial::read(dir).unwrap_or(Until::Confirmed);
    end(dir)?;
    let kept = match ask::<Reloaded>(dir, &Command::Reload) {
        // The daemon has died meanwhile; the guard does not need it.
        Err(NoAnswer::NoDaemon(_)) => super::guard::put_up(dir),
        // One that lives, and was not told, would go on with the trial.
        Err(NoAnswer::Failed(Failure::Failed(why, _))) => Err(super::guard::on_trial_still(why)),
        other => other.map(drop).map_err(Failure::from),
    };
    if kept.is_err() {
        // As it was: what could not be put up for good goes down in time.
        begin(dir, until)?;
    }
    kept
}
