//! The start: from what is on disk and in the kernel to a daemon that is ready.

use super::{Daemon, Stopped};
use crate::clock::{Clock, Synchronised};
use crate::config::{Paths, last_good};
use crate::control::Socket;
use crate::engine::Now;
use crate::kernel::{Kernel, RouteMonitor, default_gateways};
use crate::listener::Listener;
use crate::observers::{self, Level, Observers};
use crate::server::{Opened, Server, ServerSettings};
use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

/// How often it is said that nothing is accepted before the clock is synchronized.
const REMIND: Duration = Duration::from_secs(300);

/// When it is said next that nothing is accepted, and why: not each second, and never for the
/// last time.
#[derive(Debug)]
struct Reminder(Duration);

impl Reminder {
    /// Whether it is to be said now: at once where there is news, else each [`REMIND`].
    fn is_due(&mut self, now: Duration, is_news: bool) -> bool {
        let is_due = is_news || now >= self.0;
        if is_due {
            self.0 = now.saturating_add(REMIND);
        }
        is_due
    }
}

/// Where the state was lost: waits for the clock.
#[derive(Debug)]
pub(super) struct AwaitingClock {
    clock: Synchronised,
    reminder: Reminder,
    /// Why the run could not begin although the clock is synchronized.
    error: Option<String>,
}

impl Daemon {
    pub(super) fn start(paths: Paths, clock: Clock) -> Result<Self, Stopped> {
        let now = clock.now();
        let settings = ServerSettings::load_for_start(&paths).map_err(Stopped::Config)?;
        for error in settings.all_errors() {
            observers::say(Level::Error, "config-error", error);
        }
        for warning in &settings.warnings {
            observers::say(Level::Warning, "config-warning", warning);
        }
        if settings.main_text.is_none() {
            let file = paths.main_file();
            let file = file.display();
            let what = format_args!("{file} is invalid: its last good copy is used");
            observers::say(Level::Error, "using-last-good", what);
        }
        let mut kernel = Kernel::open()?;
        let control = Socket::bind(&paths.control(), settings.config.control_group.as_deref());
        // A guard that is installed may be that of a daemon that runs: not to be touched.
        let control = match control {
            Err(why)
                if kernel
                    .installed()?
                    .is_some_and(|table| table.form.is_some()) =>
            {
                return Err(why.into());
            }
            other => other,
        };
        let gateways = default_gateways();
        if let Err(error) = &gateways {
            observers::say(Level::Error, "gateways-unknown", error);
        }
        let gateways = gateways.unwrap_or_else(|unknown| unknown.known);
        // The guard before everything that may fail: where it does, nothing is open.
        kernel.install(&settings.guard(&gateways), None, now, true)?;
        let control = control?;
        let listener = Listener::bind(&settings.config.listen)?;
        let opened = Server::open(paths, settings, clock, kernel, Observers::default())?;
        let Opened {
            mut server,
            lost,
            floor,
            ended: _,
        } = opened;
        server.engine.set_gateways(gateways);
        let mut daemon = Self {
            server,
            listener,
            control,
            worker: super::work::Worker::start(),
            routes: RouteMonitor::start()?,
            monitor: None,
            connections: super::disconnect::SharedConnections::default(),
            by_sequence: BTreeSet::new(),
            prefilter: super::prefilter::Prefilter::default(),
            rolling: super::rolling::Rolling::default(),
            awaiting_clock: None,
            trial: super::trial::Trial::default(),
            started: now.mono,
            repair_error: None,
        };
        if let Some(why) = lost {
            daemon.await_clock(&why, now);
        }
        if let Some(floor) = floor {
            Self::say_until(floor.0.saturating_sub(now.wall.0).div_ceil(1000));
        }
        daemon.load_trial();
        // With the grants that the state knows, and no others.
        daemon.install()?;
        daemon.snapshot_connections();
        if let Some(text) = &daemon.server.settings.main_text {
            say_not_saved(last_good::save(&daemon.server.paths, text));
        }
        daemon.announce("ready");
        daemon.warn_of_no_key();
        Ok(daemon)
    }

    /// Without a state that can be read nothing is accepted until the clock is synchronized:
    /// no packet can be told from one that was accepted before.
    fn await_clock(&mut self, why: &str, now: Now) {
        let state = self.server.paths.state();
        observers::say(
            Level::Error,
            "state-lost",
            format_args!("{}: {why}", state.display()),
        );
        self.awaiting_clock = Some(AwaitingClock {
            clock: Synchronised::wait(),
            reminder: Reminder(now.mono),
            error: None,
        });
    }

    /// Accepts again once the clock is synchronized. To be called about once a second.
    pub(super) fn check_clock(&mut self, now: Now) {
        let Some(waiting) = &mut self.awaiting_clock else {
            return;
        };
        let trouble = waiting.clock.trouble();
        if waiting.clock.is_done() {
            match self.server.start_after_state_loss(now) {
                Ok(seconds) => {
                    self.awaiting_clock = None;
                    self.roll();
                    Self::say_until(seconds);
                }
                Err(error) => {
                    let error = Some(error.to_string());
                    let is_news = waiting.error != error;
                    waiting.error = error;
                    if waiting.reminder.is_due(now.mono, is_news) {
                        let error = waiting.error.as_deref().unwrap_or_default();
                        observers::say(Level::Error, "state-not-renewed", error);
                    }
                }
            }
        } else if waiting.reminder.is_due(now.mono, trouble.is_some()) {
            let ctl = self.server.paths.ctl();
            let why = trouble.map_or(String::new(), |error| format!(" (timedatectl: {error})"));
            observers::say(
                Level::Error,
                "awaiting-clock",
                format_args!(
                    "all knocks are rejected until the clock is synchronized{why}; hint: if the clock is right: stop oneknockd, then {ctl} debug reset-state"
                ),
            );
        }
    }

    fn say_until(seconds: u64) {
        if seconds > 0 {
            observers::write(
                Level::Warning,
                format_args!(
                    "replay-floor seconds={seconds} msg=\"nothing is accepted until then, so that no packet is accepted twice\""
                ),
            );
        }
    }

    /// The guard enforces, and no key opens it.
    fn warn_of_no_key(&self) {
        let settings = &self.server.settings;
        if settings.enforcing && !self.server.engine.has_key_at(self.server.clock.now()) {
            let ctl = self.server.paths.ctl();
            observers::say(
                Level::Warning,
                "no-key",
                format_args!(
                    "the guard enforces, and there is no valid key: nobody new gets in; hint: {ctl} key add NAME"
                ),
            );
        }
    }

    /// Says what is served from now on.
    pub(super) fn announce(&self, event: &str) {
        let settings = &self.server.settings;
        let config = &settings.config;
        let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
        let services: Vec<&str> = config.services.iter().map(|s| s.name.as_str()).collect();
        observers::write(
            Level::Info,
            format_args!(
                "{event} listen={} services={} keys={} guard={} enforcing={}",
                listen.join(","),
                services.join(","),
                settings.keys.len(),
                self.guard_mode(),
                settings.enforcing
            ),
        );
        if self.exclusive_pending() {
            observers::say(
                Level::Warning,
                "exclusive-pending",
                "the table was made in monitored mode; exclusive mode takes effect when it is made again",
            );
        }
        if !settings.skipped_keys.is_empty() {
            observers::say(
                Level::Error,
                "keys-skipped",
                format_args!(
                    "their files are invalid: {}",
                    settings.skipped_files().join(", ")
                ),
            );
        }
    }
}

/// Logs why no copy of the main file was saved, for a start with an invalid one.
pub(super) fn say_not_saved(saved: io::Result<()>) {
    if let Err(error) = saved {
        observers::say(Level::Warning, "last-good-not-saved", error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_knocks_are_explained_again_every_five_minutes() {
        let start = Duration::from_secs(1_000);
        let mut reminder = Reminder(start);
        let mut is_due = |after: u64, is_news| {
            let now = start.saturating_add(Duration::from_secs(after));
            reminder.is_due(now, is_news)
        };
        assert!(is_due(0, false));
        assert_eq!((1..300).filter(|after| is_due(*after, false)).count(), 0);
        // An hour in which nobody synchronizes the clock.
        assert_eq!(
            (300..3_900).filter(|after| is_due(*after, false)).count(),
            12
        );
        // What is new waits for nothing.
        assert!(is_due(3_901, true));
        assert!(!is_due(3_902, false));
    }
}
