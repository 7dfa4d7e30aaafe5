//! The daemon: sockets, clocks and workers around a [`Server`]. Wiring only; nothing on the
//! loop waits for a program, a name service, a long dump or a configuration file.

mod commands;
mod disconnect;
mod guard;
mod notify;
mod prefilter;
mod reload;
mod rolling;
mod start;
mod trial;
mod work;

use crate::clock::Clock;
use crate::config::{ConfigError, Paths};
use crate::control::{NoSocket, Socket};
use crate::engine::Target;
use crate::kernel::{KernelError, Monitor, RouteMonitor};
use crate::listener::{CannotListen, Listener, Received};
use crate::observers::{self, Level};
use crate::server::{OpenError, Server};
use crate::store::StoreError;
use commands::Next;
use disconnect::SharedConnections;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};
use work::Worker;

#[derive(Debug, clap::Parser)]
#[command(name = "oneknockd", version, max_term_width = 100, after_long_help = crate::reasons::table())]
/// Opens guarded ports to whoever knocks with a key.
///
/// Runs in the foreground and logs to standard error; tells systemd when it is ready and,
/// each second, that it is not stuck. SIGHUP or "oneknockctl reload" rereads
/// configuration and keys; SIGTERM ends it and leaves the guard up, so that nothing is left
/// open.
///
/// With an error in oneknockd.toml the last good configuration stays, also at a start; the
/// log names every error.
///
/// Of packets without a known key nothing is logged: anybody can send those without end.
///
/// Exit status: 0 after SIGTERM or "oneknockctl disable", 1 it could not start, 2 the
/// command line is wrong, or the configuration is invalid and there is no last good one.
pub struct Cli {
    /// Where oneknockd.toml and keys/ are.
    #[arg(long, value_name = "DIR", default_value = "/etc/oneknock")]
    config: PathBuf,
}

/// Why the daemon did not start, or stopped.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("invalid configuration")]
    Config(Vec<ConfigError>),
    #[error(transparent)]
    Listen(#[from] CannotListen),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("cannot write the state: {0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Control(#[from] NoSocket),
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    #[error("the worker thread has ended")]
    Worker,
}

/// Runs the daemon. Exit status 0 after SIGTERM, 1 where it could not start, 2 where the
/// configuration is invalid.
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
        .and_then(|runtime| runtime.block_on(run(Paths::of(&cli.config), clock)));
    let status = match result {
        Ok(()) => {
            observers::write(Level::Info, "stopped");
            ExitCode::SUCCESS
        }
        Err(Stopped::Config(errors)) => {
            for error in errors {
                observers::say(Level::Error, "config-error", error);
            }
            ExitCode::from(2)
        }
        Err(why) => {
            observers::say(Level::Error, "failed", why);
            ExitCode::FAILURE
        }
    };
    observers::flush();
    status
}

async fn run(paths: Paths, clock: Clock) -> Result<(), Stopped> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut daemon = Daemon::start(paths, clock)?;
    let manager = notify::Manager::ready()?;
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut chores = interval(Duration::from_millis(250));
    chores.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut received = Received::new();
    loop {
        tokio::select! {
            result = daemon.listener.receive(&mut received) => match result {
                Ok(()) => daemon.datagrams(&received),
                Err(error) => observers::say(Level::Error, "socket-failed", error),
            },
            () = foreign_change(daemon.monitor.as_ref()) => daemon.check_guard(),
            _ = tick.tick() => {
                daemon.tick();
                manager.ping_watchdog();
            }
            _ = chores.tick() => daemon.chores(),
            then = daemon.worker.next() => match then {
                Some(then) => then(&mut daemon),
                None => return Err(Stopped::Worker),
            },
            _ = hangup.recv() => daemon.reload(None),
            request = daemon.control.next() => {
                if daemon.command(request) == Next::End {
                    break;
                }
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
        daemon.tell();
    }
    notify::Manager::stopping();
    daemon.control.finish().await;
    Ok(daemon.server.close()?)
}

/// Waits until another program has changed the guard, or may have.
async fn foreign_change(monitor: Option<&Monitor>) {
    match monitor {
        Some(monitor) => drop(monitor.wait().await),
        // Nobody else can.
        None => std::future::pending().await,
    }
}

struct Daemon {
    server: Server,
    listener: Listener,
    control: Socket,
    worker: Worker,
    routes: RouteMonitor,
    /// In monitored mode: who wakes the loop when another program changes the guard.
    monitor: Option<Monitor>,
    connections: SharedConnections,
    /// In monitored mode: what the port sequence was seen to open since the daemon started.
    by_sequence: BTreeSet<Target>,
    prefilter: prefilter::Prefilter,
    rolling: rolling::Rolling,
    /// Where the state was missing: until the clock is synchronized nothing is accepted.
    awaiting_clock: Option<start::AwaitingClock>,
    trial: trial::Trial,
    /// When it was started, since boot.
    started: Duration,
    /// Why the guard could not be repaired, where it could not.
    repair_error: Option<String>,
}

impl Daemon {
    /// What has arrived together is recorded and granted together; what comes alone does
    /// not wait for more.
    fn datagrams(&mut self, received: &Received) {
        if self.awaiting_clock.is_some() {
            let count = received.iter().count() as u64;
            let waiting = &mut self.server.observers.counters.waiting;
            *waiting = waiting.saturating_add(count);
            return;
        }
        let now = self.server.clock.now();
        for (source, bytes) in received.iter() {
            self.server.datagram(now, source, bytes);
        }
        self.server.settle();
    }

    /// Has the worker do what takes time, and then, on the loop, what it returns.
    fn work<T>(&self, job: impl FnOnce() -> T + Send + 'static)
    where
        T: FnOnce(&mut Self) + Send + 'static,
    {
        self.worker.run(job);
    }

    /// Tells those who watch what has happened.
    fn tell(&mut self) {
        for event in self.server.take_told() {
            self.control.publish(&event);
        }
    }

    /// Once a second.
    fn tick(&mut self) {
        let now = self.server.clock.now();
        self.server.tick(now);
        self.report_trial_end(now);
        self.see_routes();
        self.roll();
        self.note_sequence_targets();
        self.check_guard();
        self.check_clock(now);
        if let Some(uid) = self.control.take_rejected() {
            observers::write(Level::Notice, format_args!("control-rejected uid={uid}"));
        }
    }

    /// What is done bit by bit, so that no knock waits for long.
    fn chores(&mut self) {
        let now = self.server.clock.now();
        self.server.sync(now);
        self.fill_prefilter();
        self.server.rotate_if_full(now);
    }
}
