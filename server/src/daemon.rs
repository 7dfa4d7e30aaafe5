//! The daemon: datagrams from the listener through the gate to ledger and firewall.

mod commands;

use crate::clock::{Clock, Synchronised};
use crate::config::{Guard, Mistake, Settings};
use crate::control::{Control, NoSocket};
use crate::firewall::{Firewall, FirewallError};
use crate::gate::{Accepted, Change, Gate, Lost, Memory, Now, Place, Verdict};
use crate::gateways;
use crate::ledger::{Found, Ledger, Unrecorded, Unusable};
use crate::listener::{BUFFER, CannotListen, Listener};
use crate::log::{self, Log};
use commands::Next;
use oneknock_shared::knock::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

/// How often the guard is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often the state is tidied.
const TIDY_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Parser)]
#[command(name = "oneknockd", version, after_long_help = crate::reasons::table())]
/// Opens guarded ports to whoever knocks with a key.
///
/// Runs in the foreground and logs to standard error. SIGHUP or "oneknockctl reload" rereads
/// configuration and keys; SIGTERM ends it and leaves the guard up, so that nothing is left
/// open.
///
/// Of packets without a known key nothing is logged: anybody can send those without end.
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
    #[error(transparent)]
    Listen(#[from] CannotListen),
    #[error(transparent)]
    State(#[from] Unusable),
    #[error("reloaded, but grants of removed keys stay until their time is over: {0}")]
    Grants(FirewallError),
    #[error("cannot write the state: {0}")]
    Record(#[from] Unrecorded),
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    #[error(
        "cannot ask whether the clock is synchronised: timedatectl: {0}; if this machine's clock is right, say so with \"oneknockctl new-state\""
    )]
    NoClock(io::Error),
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
    let cli = <Cli as clap::Parser>::parse();
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
    let mut daemon = Daemon::start(cli, clock)?;
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = [0; BUFFER];
    loop {
        tokio::select! {
            received = daemon.listener.receive(&mut buffer) => match received {
                Ok((length, source)) => daemon.datagram(source, &buffer[..length]),
                Err(error) => log::line(format_args!("a socket failed: {error}")),
            },
            _ = tick.tick() => daemon.tick(),
            _ = look.tick() => daemon.look(),
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
    daemon.control.socket.finish().await;
    Ok(daemon.ledger.close()?)
}

struct Daemon {
    clock: Clock,
    settings: Settings,
    listener: Listener,
    gate: Gate,
    ledger: Ledger,
    firewall: Firewall,
    log: Log,
    /// Where the state was missing: until the clock is synchronised nothing is accepted.
    waiting: Option<Synchronised>,
    tidied: Duration,
    control: Control,
}

impl Daemon {
    fn start(cli: &Cli, clock: Clock) -> Result<Self, Stopped> {
        let settings = Settings::load(&cli.config).map_err(Stopped::Mistakes)?;
        let control = Control::bind(&settings.config, clock.now())?;
        // Whoever changed a key since then found no daemon to tell.
        let settings = Settings::load(&cli.config).map_err(Stopped::Mistakes)?;
        let mut firewall = Firewall::open()?;
        firewall.check_free(&settings.config)?;
        let listener = Listener::bind(&settings.config.listen)?;
        let now = clock.now();
        let (ledger, found) = Ledger::open(&settings.config.state, now)?;
        let mut daemon = Self {
            gate: Gate::new(&settings, now),
            clock,
            settings,
            listener,
            ledger,
            firewall,
            log: Log::default(),
            waiting: None,
            tidied: now.mono,
            control,
        };
        daemon.gate.set_gateways(gateways::read());
        let memory = daemon.take_up(found, now)?;
        daemon.resume(memory, now)?;
        daemon.remember(true);
        daemon.announce("ready");
        Ok(daemon)
    }

    /// Puts the state of the last run in force; where there is none, waits for the clock.
    fn take_up(&mut self, found: Found, now: Now) -> Result<Option<Memory>, Stopped> {
        match found {
            Found::State { memory, floor } => {
                self.gate.restore(&memory);
                self.begin(floor, now)?;
                Ok(Some(memory))
            }
            Found::Nothing(why) => {
                let folder = self.settings.config.state.display();
                log::line(format_args!(
                    "the state in {folder}: {why}: nothing is accepted until the clock is synchronised, so that no packet is accepted twice"
                ));
                self.waiting = Some(Synchronised::wait().map_err(Stopped::NoClock)?);
                Ok(None)
            }
        }
    }

    /// Begins the run: nothing that is not later than `floor` is accepted in it.
    fn begin(&mut self, floor: Option<Timestamp>, now: Now) -> Result<(), Stopped> {
        let Some(floor) = floor else {
            return Ok(self.ledger.begin(&self.gate.forgotten(now), Timestamp(0))?);
        };
        self.gate.raise_floors(floor);
        self.ledger.begin(&self.gate.forgotten(now), floor)?;
        let wait = floor.0.saturating_sub(now.wall.0).div_ceil(1000);
        if wait > 0 {
            log::line(format_args!(
                "nothing is accepted for {wait} s, so that no packet is accepted twice"
            ));
        }
        Ok(())
    }

    /// Puts the guard up, with the grants of the last run that still have time.
    fn resume(&mut self, memory: Option<Memory>, now: Now) -> Result<(), Stopped> {
        let before = self.firewall.put_up(&self.settings.config, true)?;
        if let Some(memory) = memory {
            let left = before.grants.iter().map(|grant| (grant.place, grant.left));
            let left: BTreeMap<Place, Duration> = left.collect();
            // Where the guard was up, it says what was closed since.
            let lost = self.gate.resume(now, &memory.claims, |place| {
                if !before.was_up {
                    return Some(Duration::MAX);
                }
                left.get(place).copied()
            });
            self.end(&lost)?;
        } else {
            for grant in before.grants {
                self.gate
                    .adopt(grant.key, grant.place, now.mono + grant.left);
            }
        }
        // Keys may have been removed or changed while no daemon ran.
        let lost = self.gate.reconfigure(&self.settings, now);
        self.end(&lost)?;
        if !before.was_up {
            let grants = self.gate.grants(now);
            self.firewall.apply(&grants)?;
        }
        Ok(())
    }

    /// Makes it so that claims have ended.
    fn end(&mut self, lost: &Lost) -> Result<(), Stopped> {
        self.firewall.apply(&lost.changes)?;
        Ok(self.ledger.lose(lost, self.clock.now())?)
    }

    fn announce(&self, word: &str) {
        let config = &self.settings.config;
        let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
        let services: Vec<&str> = config.services.iter().map(|s| s.name.as_str()).collect();
        let guard = if self.firewall.is_owned() {
            Guard::Owned
        } else {
            Guard::Watched
        };
        log::line(format_args!(
            "{word} listen={} services={} keys={} guard={guard}",
            listen.join(","),
            services.join(","),
            self.settings.keys.len()
        ));
    }

    fn datagram(&mut self, source: std::net::IpAddr, bytes: &[u8]) {
        if self.waiting.is_some() {
            return;
        }
        let now = self.clock.now();
        let verdict = self.gate.handle(now, source, bytes);
        match &verdict {
            Verdict::Accepted(accepted) => self.accept(accepted, now),
            other => {
                self.control.note_refused(now, source, bytes, other);
                if let Some(text) = self.log.refusal(now.mono, other) {
                    log::line(text);
                }
            }
        }
    }

    /// Recorded, then granted.
    fn accept(&mut self, accepted: &Accepted, now: Now) {
        let lines = if let Err(error) = self.record(accepted, now) {
            self.gate.undo(accepted);
            self.control.note_failed(now, accepted, "not-recorded");
            log::failed(accepted, "not-recorded", &error)
        } else if let Err(error) = self.change(&accepted.changes) {
            self.gate.undo(accepted);
            if let Err(error) = self.ledger.undo(accepted, now) {
                log::line(format_args!(
                    "the history shows a grant that was not made: {error}"
                ));
            }
            self.control.note_failed(now, accepted, "firewall");
            log::failed(accepted, "firewall", &error)
        } else {
            self.control.note_accepted(now, accepted);
            log::accepted(accepted)
        };
        lines.iter().for_each(log::line);
    }

    /// Records a packet; where the database turns out to be damaged, in a new one.
    fn record(&mut self, accepted: &Accepted, now: Now) -> Result<(), Unrecorded> {
        match self.ledger.record(accepted, now) {
            Err(error) if error.is_damage() => {
                self.renew(&error, now);
                self.ledger.record(accepted, now)
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

    /// Makes changes in the firewall; where the guard is gone, puts it up again first.
    fn change(&mut self, changes: &[Change]) -> Result<(), FirewallError> {
        match self.firewall.apply(changes) {
            Err(error) if error.is_gone() => {
                self.restore()?;
                log::line(format_args!(
                    "another program has changed the guard ({error}): it is up again"
                ));
                self.cut();
                self.firewall.apply(changes)
            }
            other => other,
        }
    }

    /// Sees whether another program has changed the guard; if so, puts it right.
    fn look(&mut self) {
        let what = match self.firewall.changed() {
            Ok(None) => return,
            Ok(Some(what)) => what,
            Err(error) => error.to_string(),
        };
        let since = self.clock.now().mono;
        match self.restore() {
            Ok(()) => {
                let took = self.clock.now().mono.saturating_sub(since).as_millis();
                log::line(format_args!(
                    "another program has changed the guard ({what}): it is up again after {took} ms"
                ));
                self.cut();
            }
            Err(error) => log::line(format_args!(
                "another program has changed the guard ({what}), and it cannot be put right: {error}"
            )),
        }
    }

    /// Ends the connections that were made while the guard was not whole.
    fn cut(&mut self) {
        self.gate.tick(self.clock.now());
        self.remember(false);
        let (gate, now) = (&self.gate, self.clock.now());
        let admitted = |service, address| gate.admits(now, Place { service, address });
        match self.firewall.cut(&self.settings.config, admitted) {
            Ok(0) => {}
            Ok(count) => log::line(format_args!(
                "connections that were made meanwhile, and are ended: {count}"
            )),
            Err(error) => log::line(format_args!(
                "connections that were made meanwhile may live on: {error}"
            )),
        }
    }

    /// Takes note of connections that outlive their grants: `cut` must not end them.
    fn remember(&mut self, all: bool) {
        let left = self.gate.take_left();
        if left.is_empty() && !all {
            return;
        }
        let of = (!all).then_some(&left);
        if let Err(error) = self.firewall.remember(&self.settings.config, of) {
            log::line(format_args!(
                "cannot see which connections there are: {error}"
            ));
        }
    }

    /// Puts the guard up as the settings want it; where it was gone, with all grants.
    fn restore(&mut self) -> Result<(), FirewallError> {
        let before = self.firewall.put_up(&self.settings.config, false)?;
        let grants = self.gate.grants(self.clock.now());
        let services = &self.settings.config;
        let kept: BTreeSet<Place> = before.grants.iter().map(|grant| grant.place).collect();
        let is_lost = |grant: &Change| {
            let (Change::Admit { place, .. } | Change::Shut { place }) = grant;
            !kept.contains(place) && services.service(place.service).is_some()
        };
        let lost: Vec<Change> = grants.into_iter().filter(is_lost).collect();
        self.firewall.apply(&lost)
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        self.gate.tick(now);
        self.remember(false);
        // An interface or a route may have come since.
        self.gate.set_gateways(gateways::read());
        if let Some(uid) = self.control.socket.tick() {
            log::line(format_args!(
                "turned away from the control socket: uid={uid}"
            ));
        }
        if self.waiting.as_ref().is_some_and(Synchronised::is_done) {
            self.start_anew(now);
        }
        if now.mono.saturating_sub(self.tidied) >= TIDY_EVERY && self.waiting.is_none() {
            self.tidied = now.mono;
            self.tidy(now);
        }
    }

    /// The clock is right: what was made before now is refused, since it may have been
    /// accepted before the state was lost.
    fn start_anew(&mut self, now: Now) {
        let skew = u64::try_from(self.settings.config.skew.as_millis()).unwrap_or(u64::MAX);
        let floor = Timestamp(now.wall.0.saturating_add(skew));
        match self.begin(Some(floor), now) {
            Ok(()) => self.waiting = None,
            Err(error) => log::line(format_args!("still nothing is accepted: {error}")),
        }
    }

    fn tidy(&mut self, now: Now) {
        let (forgotten, keep) = (self.gate.forgotten(now), self.settings.config.history);
        if let Err(error) = self.ledger.tidy(&forgotten, keep, now) {
            // Floors that were not written are not lost: those who raised them are.
            self.gate.remind(&forgotten);
            if error.is_damage() {
                self.renew(&error, now);
            } else {
                log::line(format_args!("the state cannot be tidied: {error}"));
            }
        }
    }

    /// Puts what is on disk in force; where anything is wrong with it, the old stays.
    /// Says how it went in the log too.
    fn reload(&mut self, cli: &Cli) -> Result<(), Stopped> {
        let result = self.try_reload(cli);
        match &result {
            Ok(()) => self.announce("reloaded"),
            Err(Stopped::Mistakes(mistakes)) => {
                for mistake in mistakes {
                    log::line(format_args!("not reloaded: {mistake}"));
                }
            }
            Err(why @ Stopped::Grants(_)) => {
                self.announce("reloaded");
                log::line(why);
            }
            Err(why) => log::line(format_args!("not reloaded: {why}")),
        }
        result
    }

    fn try_reload(&mut self, cli: &Cli) -> Result<(), Stopped> {
        let settings = Settings::load(&cli.config).map_err(Stopped::Mistakes)?;
        let (old, new) = (&self.settings.config, &settings.config);
        let fixed = [
            ("state", old.state == new.state),
            ("control", old.control == new.control),
            ("control_group", old.control_group == new.control_group),
        ];
        if let Some((what, _)) = fixed.iter().find(|(_, is_same)| !is_same) {
            let what = format!("{what}: cannot change while the daemon runs; restart it");
            let file = crate::files::config_file(&cli.config);
            return Err(Stopped::Mistakes(vec![Mistake {
                file,
                line: None,
                what,
            }]));
        }
        let listener = if old.listen == new.listen {
            None
        } else {
            Some(Listener::rebind(&self.listener, &old.listen, &new.listen)?)
        };
        let before = std::mem::replace(&mut self.settings, settings);
        // The guard first: where it cannot be changed, all stays as it was. Grants of
        // services that are gone went with their sets.
        if let Err(error) = self.restore() {
            self.settings = before;
            return Err(error.into());
        }
        if let Some(listener) = listener {
            self.listener = listener;
        }
        let lost = self.gate.reconfigure(&self.settings, self.clock.now());
        if let Err(error) = self.ledger.lose(&lost, self.clock.now()) {
            log::line(format_args!(
                "the history misses how grants of removed keys ended: {error}"
            ));
        }
        let is_there = |change: &Change| {
            let (Change::Admit { place, .. } | Change::Shut { place }) = change;
            self.settings.config.service(place.service).is_some()
        };
        let lost: Vec<Change> = lost.changes.into_iter().filter(is_there).collect();
        let changed = self.change(&lost).map_err(Stopped::Grants);
        self.remember(false);
        changed
    }
}
