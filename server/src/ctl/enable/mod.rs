//! `oneknockctl enable`, `confirm` and `disable`: the guard up, first on trial, and down.
//!
//! A marker says that the guard enforces ([`crate::config::enabled`]). A trial needs neither
//! marker nor process: its doors are shut only while an element of a set in the kernel has time
//! left.

mod self_knock;
mod session;
mod systemd;

use super::ask::{NoAnswer, ask};
use super::edit_lock::EditLock;
use super::offline::kernel_failure;
use super::{Failure, control, look, say, span_of_time, words};
use crate::clock::Clock;
use crate::config::{Config, Loaded, Paths, Settings, enabled, last_good};
use crate::control::answers::{Enforced, Reloaded, Revoked, Status, TrialStarted};
use crate::control::protocol::{Command, Selection, TRIAL};
use crate::kernel::{Kernel, has_net_admin};
use crate::store;
use humantime::format_duration;
use oneknock_shared::knock::Timestamp;
use std::time::{Duration, Instant};

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
    pub fn run(&self, paths: &Paths) -> Result<(), Failure> {
        needs_root("the guard can be put up by root alone")?;
        if paths.main_file().symlink_metadata().is_err() {
            // There is nothing to lock.
            Settings::load(paths).map_err(Failure::Mistakes)?;
        }
        // Another call waits until this one has ended.
        let lock = EditLock::wait(paths)?;
        self_knock::clean_up(paths)?;
        let settings = Settings::load(paths).map_err(Failure::Mistakes)?;
        if stays_up(&settings.config)? {
            return self.again(paths);
        }
        if !settings.has_key_at(Clock::start().now().wall) {
            let hint = format!("make one first: {} key add laptop", paths.ctl());
            let what = "there is no key: nobody could come in";
            return Err(Failure::Failed(what.into(), Some(hint)));
        }
        let runs = match ask::<Status>(paths, &Command::Status) {
            Err(NoAnswer::NoDaemon(_)) => false,
            other => other.map(|_| true)?,
        };
        // Such a daemon shuts the doors as it starts.
        let is_enabled = enabled::is_set(paths) && !runs;
        if is_enabled && self.confirm.is_some() {
            let what = "the guard is enabled, and down: a daemon that starts puts it up for good";
            let hint = format!("for a trial first: {} disable", paths.ctl());
            return Err(Failure::Failed(what.into(), Some(hint)));
        }
        start(paths)?;
        if is_enabled {
            return check(paths, &lock);
        }
        self.shut(paths, &lock)
    }

    /// The guard is up for good, whether a daemon runs or not.
    fn again(&self, paths: &Paths) -> Result<(), Failure> {
        if self.confirm.is_some() {
            let hint = format!("\"{} disable\" takes it down", paths.ctl());
            let what = "the guard is up already: nothing is left to try";
            return Err(Failure::Failed(what.into(), Some(hint)));
        }
        // A daemon that starts without the marker would open the doors.
        set(paths)?;
        say("the guard is up already");
        if systemd::is_in_charge(paths) {
            systemd::start("the guard is up, and nobody new gets in")?;
        } else {
            let _: Status = ask(paths, &Command::Status)?;
        }
        systemd::enable(paths)
    }

    /// Shuts the doors, of a guard that does not enforce.
    fn shut(&self, paths: &Paths, lock: &EditLock) -> Result<(), Failure> {
        knock(paths, lock)?;
        let revoke = Command::Revoke {
            of: Selection::All,
            generations: Vec::new(),
            disconnect: false,
        };
        let _: Revoked = ask(paths, &revoke)?;
        let time = self.confirm.unwrap_or(Duration::from_secs(*TRIAL.start()));
        let seconds = time.as_secs();
        let _: TrialStarted = ask(paths, &Command::StartTrial { seconds })?;
        if self.confirm.is_some() {
            say(format_args!(
                "the guard is up, on trial, for {}: sessions that are open live on",
                format_duration(time)
            ));
            say(format_args!(
                "hint: open a new session from the client, and there, before that time is over: sudo {} confirm",
                paths.ctl()
            ));
            return Ok(());
        }
        enforce(paths)?;
        say("the guard is up: sessions that are open live on");
        systemd::enable(paths)
    }
}

/// The guard was enabled, and down: it is up now. Where a knock at it is in vain it goes down
/// again.
fn check(paths: &Paths, lock: &EditLock) -> Result<(), Failure> {
    if let Err(in_vain) = knock(paths, lock) {
        control::teardown(paths)?;
        return Err(in_vain);
    }
    say("the guard is up: sessions that are open live on");
    systemd::enable(paths)
}

fn knock(paths: &Paths, lock: &EditLock) -> Result<(), Failure> {
    let took = self_knock::knock(paths, lock)?;
    say(format_args!(
        "this machine has knocked at itself: the grant was there after {} ms",
        took.as_millis()
    ));
    Ok(())
}

pub fn confirm(paths: &Paths) -> Result<(), Failure> {
    needs_root("a trial can be confirmed by root alone")?;
    let settings = Loaded::at_start(paths).map_err(Failure::Mistakes)?.settings;
    let config = &settings.config;
    let unseen = |error| kernel_failure("cannot see the trial", error);
    let Some(trial) = look::look().map_err(unseen)?.trial else {
        if stays_up(config)? && enabled::is_set(paths) {
            say("the guard is confirmed already: it stays up");
            return systemd::enable(paths);
        }
        let hint = format!("begin one: {} enable --confirm 5m", paths.ctl());
        let what = "there is no trial to confirm, or it has ended";
        return Err(Failure::Failed(what.into(), Some(hint)));
    };
    let since = trial.length.saturating_sub(trial.remaining);
    let session = session::of_this_call(config, since)?;
    let waited = Instant::now();
    while !has_knocked(paths, config, &session, since)? {
        if waited.elapsed() < JOURNAL_WITHIN {
            std::thread::sleep(LOOK_EVERY);
            continue;
        }
        let what = format!(
            "nobody has knocked for {} since the trial began, and yet it is connected",
            session.address
        );
        return Err(Failure::Failed(what, Some(session::HINT.into())));
    }
    enforce(paths)?;
    say(format_args!(
        "confirmed by a session from {}: the guard stays up",
        session.address
    ));
    systemd::enable(paths)
}

/// The journal follows the log: it has a knock this long after it at most.
const JOURNAL_WITHIN: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Whether a knock since the trial began, or a walk of the port sequence, has admitted the
/// session's other end. Whoever was admitted before was shut out at its beginning.
fn has_knocked(
    paths: &Paths,
    config: &Config,
    session: &session::Session,
    since: Duration,
) -> Result<bool, Failure> {
    let begun = u64::try_from((since + SLACK).as_millis()).unwrap_or(u64::MAX);
    let begun = Timestamp(Clock::start().now().wall.0.saturating_sub(begun));
    let rows = store::history(&paths.state(), None, begun, Clock::start().now())
        .map_err(|error| Failure::new("cannot see who has knocked", error))?;
    let mut rows = rows.iter();
    if rows.any(|row| row.source.contains(session.address) && row.opened >= begun) {
        return Ok(true);
    }
    let Some(sequence) = &config.sequence else {
        return Ok(false);
    };
    let listed = Kernel::open().and_then(|mut kernel| kernel.sequence_grants(sequence.service));
    let listed = listed.map_err(|error| kernel_failure("cannot see who has knocked", error))?;
    let mut listed = listed.iter();
    Ok(listed.any(|(address, _)| *address == session.address))
}

pub fn disable(paths: &Paths) -> Result<(), Failure> {
    needs_root("the guard can be taken down by root alone")?;
    // First: wherever this call ends, nothing is shut after the machine's next start.
    clear(paths)?;
    let down = control::teardown(paths);
    systemd::disable(paths)?;
    match down {
        // One that hangs, or could not take it down, has ended by now.
        Err(_) if systemd::is_in_charge(paths) => control::teardown(paths)?,
        down => down?,
    }
    self_knock::remove_file(paths)?;
    last_good::forget(paths)
        .map_err(|error| Failure::new("the last good configuration is still there", error))
}

fn needs_root(what: &str) -> Result<(), Failure> {
    if has_net_admin() {
        return Ok(());
    }
    Err(Failure::needs_root(what.into()))
}

/// Whether the guard of this configuration is up for good; refuses where another's is up.
fn stays_up(config: &Config) -> Result<bool, Failure> {
    let looked = look::look().and_then(|look| {
        look.check_not_foreign(&config.server_id.to_hex())?;
        Ok(look.is_enforcing())
    });
    looked.map_err(|error| kernel_failure("cannot see whether the guard is up", error))
}

fn set(paths: &Paths) -> Result<(), Failure> {
    let path = paths.enabled();
    enabled::set(paths).map_err(|error| Failure::io(&path, &error))
}

fn clear(paths: &Paths) -> Result<(), Failure> {
    let path = paths.enabled();
    enabled::clear(paths).map_err(|error| Failure::io(&path, &error))
}

/// Has the daemon go by what is on disk; starts it where it does not run.
fn start(paths: &Paths) -> Result<(), Failure> {
    match ask::<Reloaded>(paths, &Command::Reload) {
        Err(NoAnswer::NoDaemon(_)) if systemd::is_in_charge(paths) => {
            systemd::start("the guard is down")?;
        }
        Err(NoAnswer::NoDaemon(path)) => {
            let what = format!("no daemon answers at {}: the guard is down", path.display());
            let hint = "start oneknockd, and enable again";
            return Err(Failure::Failed(what, Some(hint.into())));
        }
        other => {
            other?;
        }
    }
    let status: Status = ask(paths, &Command::Status)?;
    if status.waits_for_clock {
        let what = format!("the guard is not put up: {}", words::WAITS);
        return Err(Failure::Failed(what, None));
    }
    Ok(())
}

/// Has the guard enforce from now on. Where that fails the marker is as it was: what could not
/// be put up for good goes down in time.
fn enforce(paths: &Paths) -> Result<(), Failure> {
    let was_set = enabled::is_set(paths);
    set(paths)?;
    let done = match ask::<Enforced>(paths, &Command::Enforce) {
        // The daemon has died meanwhile; the guard does not need it.
        Err(NoAnswer::NoDaemon(_)) => match super::guard::put_up(paths) {
            // It enforces, if not what is on disk now.
            Err(as_it_was @ Failure::AsItWas(..)) => {
                as_it_was.say();
                Ok(())
            }
            other => other,
        },
        // One that lives, and was not told, would go on with the trial.
        Err(NoAnswer::Failed(Failure::Failed(why, _))) => Err(super::guard::on_trial_still(why)),
        other => other.map(drop).map_err(Failure::from),
    };
    if done.is_err() && !was_set {
        clear(paths)?;
    }
    done
}
