//! `oneknockctl enable`, `confirm` and `disable`.
//!
//! A marker says that the guard enforces ([`crate::config::enabled`]). A trial needs neither
//! marker nor process: the guarded ports are closed only while an element of a set in the kernel
//! has time left.

mod confirm;
mod disable;
mod self_knock;
mod session;
mod systemd;

pub use confirm::Confirm;
pub use disable::disable;
pub use session::Session;

use super::ask::{NoAnswer, ask};
use super::edit_lock::EditLock;
use super::offline::kernel_failure;
use super::output::say;
use super::{Failure, boot_guard, look, span_of_time};
use crate::clock::Clock;
use crate::config::{Config, Paths, Settings, enabled};
use crate::control::answers::{Enforced, Reloaded, Revoked, Status, TrialStarted};
use crate::control::protocol::{Command, Selection, TRIAL};
use crate::doctor::{self, Finding, NO_KEY};
use crate::kernel::has_net_admin;
use humantime::format_duration;
use std::time::Duration;

/// How long a trial lasts that no option asked for.
const DEFAULT_TRIAL: Duration = Duration::from_secs(600);

#[derive(Debug, clap::Args)]
pub struct Enable {
    /// On trial: the ports open again after this time, from 10s to 1h, unless it is confirmed
    #[arg(long, value_name = "TIME", value_parser = trial_time, conflicts_with = "no_confirm")]
    confirm: Option<Duration>,
    /// For good at once, from a remote session too
    #[arg(long)]
    no_confirm: bool,
}

/// The length of a trial on the command line.
pub fn trial_time(text: &str) -> Result<Duration, String> {
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
        needs_root("only root can enable the guard")?;
        if paths.main_file().symlink_metadata().is_err() {
            // There is nothing to lock.
            Settings::load(paths).map_err(Failure::Config)?;
        }
        // Another call waits until this one has ended.
        let lock = EditLock::wait(paths)?;
        self_knock::clean_up(paths)?;
        let settings = Settings::load(paths).map_err(Failure::Config)?;
        if enforces(&settings.config)? {
            return self.again(paths);
        }
        if !settings.has_key_at(Clock::start().now().wall) {
            let hint = format!("{} key add laptop", paths.ctl());
            return Err(Failure::Refused(NO_KEY.into(), Some(hint)));
        }
        let runs = match ask::<Status>(paths, &Command::Status) {
            Err(NoAnswer::NoDaemon(_)) => false,
            other => other.map(|_| true)?,
        };
        let trial = self.trial(&settings.config);
        // Such a daemon enforces as it starts.
        let is_enabled = enabled::is_set(paths) && !runs;
        if is_enabled && trial.is_some() {
            let what =
                "the guard is enabled, and not installed: a daemon that starts enforces for good";
            let ctl = paths.ctl();
            let hint =
                format!("{ctl} disable, then again; or without a trial: {ctl} enable --no-confirm");
            return Err(Failure::Refused(what.into(), Some(hint)));
        }
        start(paths)?;
        if is_enabled {
            return self_test_enabled(paths, &lock);
        }
        self_test(paths, &lock)?;
        if let Some(time) = trial {
            return begin_trial(paths, time);
        }
        // As a trial first: what cannot be made to enforce for good opens again.
        start_trial(paths, Duration::from_secs(*TRIAL.start()))?;
        enforce(paths)?;
        say("enforcing: established connections go on");
        systemd::enable(paths)
    }

    /// For how long it is to be on trial: an administrator who is connected from elsewhere, and gave
    /// no option, is not to be locked out.
    fn trial(&self, config: &Config) -> Option<Duration> {
        if self.confirm.is_some() || self.no_confirm {
            return self.confirm;
        }
        let from = session::remote(config)?;
        say(format_args!(
            "note: this session comes from {from}: the guard is on trial first (--no-confirm: not so)"
        ));
        Some(DEFAULT_TRIAL)
    }

    /// It enforces already, whether a daemon runs or not.
    fn again(&self, paths: &Paths) -> Result<(), Failure> {
        if self.confirm.is_some() {
            let hint = format!("{} disable", paths.ctl());
            let what = "the guard enforces already: there is nothing to try";
            return Err(Failure::Refused(what.into(), Some(hint)));
        }
        // A daemon that starts without the marker would open the ports.
        set(paths)?;
        say("note: the guard enforces already");
        if systemd::is_in_charge(paths) {
            systemd::start("the guard enforces, and no daemon runs")?;
        } else {
            let _: Status = ask(paths, &Command::Status)?;
        }
        systemd::enable(paths)
    }
}

/// Begins a trial that is to be confirmed, and says so.
pub fn begin_trial(paths: &Paths, time: Duration) -> Result<(), Failure> {
    start_trial(paths, time)?;
    say(format_args!(
        "enforcing on trial for {}: established connections go on",
        format_duration(time)
    ));
    say(format_args!(
        "hint: before that time is over, in a new session from the client: sudo {} confirm",
        paths.ctl()
    ));
    Ok(())
}

/// Begins a trial. Grants are revoked first, so that a session that confirms it has knocked since.
fn start_trial(paths: &Paths, time: Duration) -> Result<(), Failure> {
    let revoke = Command::Revoke {
        of: Selection::All,
        generations: Vec::new(),
        disconnect: false,
    };
    let _: Revoked = ask(paths, &revoke)?;
    let seconds = time.as_secs();
    let _: TrialStarted = ask(paths, &Command::StartTrial { seconds })?;
    Ok(())
}

/// The guard was enabled, and not installed: it enforces now. If the self-test fails it is
/// removed again.
fn self_test_enabled(paths: &Paths, lock: &EditLock) -> Result<(), Failure> {
    if let Err(failure) = self_test(paths, lock) {
        disable::remove(paths)?;
        return Err(failure);
    }
    say("enforcing: established connections go on");
    systemd::enable(paths)
}

fn self_test(paths: &Paths, lock: &EditLock) -> Result<(), Failure> {
    let took = self_knock::knock(paths, lock)?;
    say(format_args!(
        "self-test passed: this machine's own knock was granted within {} ms",
        took.as_millis()
    ));
    Ok(())
}

fn needs_root(what: &str) -> Result<(), Failure> {
    if has_net_admin() {
        return Ok(());
    }
    Err(Failure::needs_root(what.into()))
}

/// Whether the guard of this configuration enforces for good; fails where it is another's.
fn enforces(config: &Config) -> Result<bool, Failure> {
    let looked = look::look().and_then(|look| {
        look.check_not_foreign(&config.server_id.to_hex())?;
        Ok(look.is_enforcing())
    });
    looked.map_err(|error| kernel_failure("cannot see whether the guard enforces", error))
}

/// Sets the marker.
fn set(paths: &Paths) -> Result<(), Failure> {
    let path = paths.enabled();
    enabled::set(paths).map_err(|error| Failure::io(&path, &error))
}

/// Clears the marker.
fn clear(paths: &Paths) -> Result<(), Failure> {
    let path = paths.enabled();
    enabled::clear(paths).map_err(|error| Failure::io(&path, &error))
}

/// Has the daemon load what is on disk; starts it where it does not run.
fn start(paths: &Paths) -> Result<(), Failure> {
    match ask::<Reloaded>(paths, &Command::Reload) {
        Err(NoAnswer::NoDaemon(_)) if systemd::is_in_charge(paths) => {
            systemd::start("not enabled")?;
        }
        Err(NoAnswer::NoDaemon(_)) => {
            let path = paths.control();
            let what = format!(
                "not enabled: oneknockd is not running (no answer on {})",
                path.display()
            );
            let ctl = paths.ctl();
            let hint = format!(
                "start oneknockd{}, then again: {ctl} enable",
                paths.option()
            );
            return Err(Failure::NotRunning(what, Some(hint)));
        }
        other => {
            other?;
        }
    }
    let status: Status = ask(paths, &Command::Status)?;
    if status.waits_for_clock {
        let Finding { message, hint, .. } = doctor::waits_for_clock(paths);
        return Err(Failure::Failed(format!("not enabled: {message}"), hint));
    }
    Ok(())
}

/// Has the guard enforce from now on. If that fails the marker is restored: what does not
/// enforce for good opens again in time.
fn enforce(paths: &Paths) -> Result<(), Failure> {
    let was_set = enabled::is_set(paths);
    set(paths)?;
    let done = match ask::<Enforced>(paths, &Command::Enforce) {
        // The daemon has died meanwhile; the guard does not need it.
        Err(NoAnswer::NoDaemon(_)) => boot_guard::install(paths),
        // One that lives, and was not told, would go on with the trial.
        Err(NoAnswer::Failed(Failure::Failed(why, _))) => Err(boot_guard::on_trial_still(why)),
        other => other.map(drop).map_err(Failure::from),
    };
    if done.is_err() && !was_set {
        clear(paths)?;
    }
    done
}

/// Puts an enforcing guard on trial while `reload` changes what clients must know. If nothing was
/// reloaded the guard enforces again.
pub fn reload_on_trial(
    paths: &Paths,
    time: Duration,
    reload: impl FnOnce() -> Result<Reloaded, NoAnswer>,
) -> Result<Reloaded, Failure> {
    needs_root("only root can put the guard on trial")?;
    let status: Status = ask(paths, &Command::Status)?;
    if !status.enforcing {
        let what = "the guard does not enforce: there is nothing to try";
        let hint = format!("{} reload --yes", paths.ctl());
        return Err(Failure::Refused(what.into(), Some(hint)));
    }
    // Without the marker a reboot opens the ports, as the end of the trial does.
    clear(paths)?;
    if let Err(failure) = begin_trial(paths, time) {
        enforce(paths)?;
        return Err(failure);
    }
    reload().map_err(|no| {
        // Where it is not known whether it was reloaded, the trial goes on.
        let enforced = match &no {
            NoAnswer::Refused(_) => enforce(paths),
            _ => Ok(()),
        };
        enforced.err().unwrap_or_else(|| no.into())
    })
}
