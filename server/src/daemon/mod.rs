//! The daemon: datagrams from the listener through the gate to ledger and firewall.

mod commands;
mod guard;
mod manager;
mod reload;
mod rolling;
mod sift;
mod start;
mod trial;
mod walked;

use crate::clock::{Clock, Synchronised};
use crate::config::{Mistake, Settings};
use crate::control::{Control, NoSocket};
use crate::firewall::{Firewall, FirewallError};
use crate::gate::{Accepted, Change, Gate, Now, Verdict};
use crate::gateways;
use crate::ledger::{Ledger, Unrecorded, Unusable};
use crate::listener::{CannotListen, Listener, Received};
use crate::log::{self, Log};
use commands::Next;
use manager::Manager;
use sift::Sifting;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

/// So many changes are made in the firewall at once: one transaction of the kernel's.
const CHANGES: usize = crate::firewall::AT_ONCE;
/// How often the guard is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often the state is tidied.
const TIDY_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Parser)]
#[command(name = "oneknockd", version, max_term_width = 100, after_long_help = crate::reasons::table())]
/// Opens guarded ports to whoever knocks with a key.
///
/// Runs in the foreground and logs to standard error; tells systemd when it is ready and,
/// each second, that it is not stuck. SIGHUP or "oneknockctl reload" rereads
/// configuration and keys; SIGTERM ends it and leaves the guard up, so that nothing is left
/// open.
///
/// With a mistake in oneknockd.toml what was last in force stays in force, also at a start;
/// the log says every mistake.
///
/// Of packets without a known key nothing is logged: anybody can send those without end.
///
/// Exit status: 0 after SIGTERM or "oneknockctl teardown", 1 it could not start, 2 the
/// command line or a key is wrong, or the configuration, and nothing was in force before.
pub struct Cli {
    /// Where oneknockd.toml and keys/ are.
    #[arg(long, value_name = "DIR", default_value = "/etc/oneknock")]
    config: PathBuf,
}

/// Why the daemon did not start, or stopped.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("configuration")]
    Mistakes(Vec<Mistake>),
    /// The keys are in force as they are on disk.
    #[error("the keys are reloaded, and oneknockd.toml is not")]
    MainFile(Vec<Mistake>),
    #[error(transparent)]
    Listen(#[from] CannotListen),
    #[error(transparent)]
    State(#[from] Unusable),
    #[error("reloaded, but grants of keys that were changed stay until their time is over: {0}")]
    Grants(FirewallError),
    #[error("cannot write the state: {0}")]
    Record(#[from] Unrecorded),
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    #[error(transparent)]
    Control(#[from] NoSocket),
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Runs the daemon. Exit status 0 after SIGTERM, 1 where it could not start, 2 where
/// configuration or keys have mistakes.
#[must_use]
pub fn main() -> ExitCode {
    main_with(Clock::start())
}

/// As [`main`], by this clock.
#[must_use]
pub fn main_with(clock: Clock) -> ExitCode {
    let cli: Cli = match crate::usage::parse("oneknockd") {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = runtime
        .map_err(Stopped::System)
        .and_then(|runtime| runtime.block_on(run(&cli, clock)));
    let status = match result {
        Ok(()) => {
            log::line("stopped");
            ExitCode::SUCCESS
        }
        Err(Stopped::Mistakes(mistakes)) => {
            mistakes.iter().for_each(log::line);
            ExitCode::from(2)
        }
        Err(why) => {
            log::line(why);
            ExitCode::FAILURE
        }
    };
    log::flush();
    status
}

async fn run(cli: &Cli, clock: Clock) -> Result<(), Stopped> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let manager = Manager::from_environment()?;
    let mut daemon = Daemon::start(cli, clock)?;
    manager.ready()?;
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut received = Received::new();
    loop {
        tokio::select! {
            result = daemon.listener.receive(&mut received) => match result {
                Ok(()) => daemon.datagrams(&received),
                Err(error) => log::line(format_args!("a socket failed: {error}")),
            },
            _ = tick.tick() => {
                daemon.tick();
                daemon.roll();
                manager.turns();
            }
            _ = look.tick() => {
                daemon.look();
                daemon.sift();
                daemon.tidy_in_time();
            }
            // What was wrong is in the log.
            _ = hangup.recv() => drop(daemon.reload(cli)),
            request = daemon.control.socket.next() => {
                if daemon.command(cli, &request) == Next::End {
                    break;
                }
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    manager.stopping();
    daemon.control.socket.finish().await;
    if daemon.waiting.is_none() {
        daemon.tidy(daemon.clock.now());
    }
    Ok(daemon.ledger.close()?)
}

struct Daemon {
    clock: Clock,
    settings: Settings,
    listener: Listener,
    gate: Gate,
    ledger: Ledger,
    firewall: Firewall,
    sifting: Sifting,
    gateways: gateways::Watch,
    log: Log,
    /// Packets that are accepted, and neither recorded nor granted yet.
    batch: Vec<Accepted>,
    /// Where the state was missing: until the clock is synchronised nothing is accepted.
    waiting: Option<Synchronised>,
    /// The state is tidied then.
    tidy_at: Duration,
    /// The guard is not looked after before then.
    look_again: Duration,
    /// Where the guard is watched: whom the port sequence had admitted when last seen.
    walked_in: BTreeSet<IpAddr>,
    /// Whom the port sequence had admitted when that was ended last.
    turned_away: Vec<IpAddr>,
    rolling: rolling::Rolling,
    control: Control,
    /// Where a trial of the guard goes on: until when.
    trial_until: Option<Duration>,
    /// Whether the main file is one that was in force before, since it had mistakes.
    as_before: bool,
    /// Keys that the start left out, since their files had mistakes; by these files' names.
    left_out: Vec<String>,
    /// When the settings in force were read, by the clock that files are dated with.
    read_ms: u64,
    /// Tells oneknockctl that a daemon runs, where its socket is not found.
    held: Option<File>,
}

impl Daemon {
    /// What has arrived together is recorded and granted together; what comes alone does
    /// not wait for more.
    fn datagrams(&mut self, received: &Received) {
        for (source, bytes) in received.iter() {
            self.datagram(source, bytes);
        }
        self.settle();
    }

    fn datagram(&mut self, source: IpAddr, bytes: &[u8]) {
        if self.waiting.is_some() {
            return self.control.note_waiting();
        }
        // Before the next is judged: what it changes must not be taken back with these.
        let changes: usize = self.batch.iter().map(|one| one.changes.len()).sum();
        if changes + self.settings.config.services.len() > CHANGES {
            self.settle();
        }
        let now = self.clock.now();
        match self.gate.handle(now, source, bytes) {
            Verdict::Accepted(accepted) => self.batch.push(accepted),
            other => {
                self.control.note_refused(now, source, bytes, &other);
                if let Some(text) = self.log.refusal(now.mono, &other) {
                    log::line(text);
                }
            }
        }
    }

    /// Recorded, then granted: all of the batch, or nothing of it.
    fn settle(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return;
        }
        let now = self.clock.now();
        self.tell_over(now);
        if let Err(error) = self.record(&batch, now) {
            return self.fail(&batch, now, "not-recorded", &error);
        }
        let changes: Vec<Change> = batch.iter().flat_map(|one| one.changes.clone()).collect();
        if let Err(error) = self.change(&changes) {
            if let Err(error) = self.ledger.undo(&batch, now) {
                log::line(format_args!(
                    "the history shows a grant that was not made: {error}"
                ));
            }
            return self.fail(&batch, now, "firewall", &error);
        }
        if let Err(error) = self.ledger.note_uses(&batch, now) {
            log::line(format_args!(
                "when keys were last used cannot be noted: {error}"
            ));
        }
        for accepted in &batch {
            self.control.note_accepted(now, accepted);
            log::accepted(accepted).iter().for_each(log::line);
        }
    }

    /// Takes the batch back, the last first: each knows the claims as they were before it.
    fn fail(&mut self, batch: &[Accepted], now: Now, reason: &'static str, why: &dyn Display) {
        for accepted in batch.iter().rev() {
            self.gate.undo(accepted);
        }
        for accepted in batch {
            self.control.note_failed(now, accepted, reason);
            let lines = log::failed(accepted, reason, why);
            lines.iter().for_each(log::line);
        }
    }

    /// Records packets; where the database turns out to be damaged, in a new one.
    fn record(&mut self, batch: &[Accepted], now: Now) -> Result<(), Unrecorded> {
        match self.ledger.record(batch, now) {
            Err(error) if error.is_damage() => {
                self.renew(&error, now);
                self.ledger.record(batch, now)
            }
            other => other,
        }
    }

    /// The gate knows all that a damaged database knew of what was accepted.
    fn renew(&mut self, why: &Unrecorded, now: Now) {
        match self.ledger.renew(&self.gate.memory(), now) {
            Ok(aside) => log::line(format_args!(
                "the state was damaged ({why}): it was moved to {aside}, and what was accepted is in a new one; the history begins anew"
            )),
            Err(error) => log::line(format_args!(
                "the state is damaged ({why}), and there can be no new one: {error}"
            )),
        }
    }

    fn tell_over(&mut self, now: Now) {
        self.control.note_over(now, &self.gate.take_over());
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        self.gate.tick(now);
        self.tell_over(now);
        self.remember(false);
        self.see_trial(now);
        self.see_gateways();
        if let Some(uid) = self.control.socket.tick() {
            log::line(format_args!(
                "turned away from the control socket: uid={uid}"
            ));
        }
        if let Some(waiting) = &mut self.waiting {
            if let Some(error) = waiting.trouble() {
                log::line(format_args!(
                    "cannot ask whether the clock is synchronised: timedatectl: {error}; if this machine's clock is right, stop the daemon and say so with \"oneknockctl new-state\""
                ));
            }
            if waiting.is_done() {
                self.start_anew(now);
            }
        }
    }

    fn tidy_in_time(&mut self) {
        let now = self.clock.now();
        if now.mono >= self.tidy_at && self.waiting.is_none() {
            let more = self.tidy(now);
            let then = if more { Duration::ZERO } else { TIDY_EVERY };
            self.tidy_at = now.mono.saturating_add(then);
        }
    }

    /// Tidies the state. Returns whether there is more to be done.
    fn tidy(&mut self, now: Now) -> bool {
        let (forgotten, keep) = (self.gate.forgotten(now), self.settings.config.history);
        self.ledger
            .tidy(&forgotten, keep, now)
            .unwrap_or_else(|error| {
                // Floors that were not written are not lost: those who raised them are.
                self.gate.remind(&forgotten);
                if error.is_damage() {
                    self.renew(&error, now);
                } else {
                    log::line(format_args!("the state cannot be tidied: {error}"));
                }
                false
            })
    }
}
