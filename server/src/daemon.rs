//! The daemon: datagrams from the listener through the gate to ledger and firewall.

use crate::clock::Clock;
use crate::config::{Mistake, Settings};
use crate::firewall::{Firewall, FirewallError};
use crate::gate::{Accepted, Change, Gate, Verdict};
use crate::gateways;
use crate::ledger::{Found, Ledger, Unusable};
use crate::listener::{BUFFER, CannotListen, Listener};
use crate::log::{self, Log};
use oneknock_shared::knock::Timestamp;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

#[derive(Debug, clap::Parser)]
#[command(name = "oneknockd", version, after_long_help = crate::reasons::table())]
/// Opens guarded ports to whoever knocks with a key.
///
/// Runs in the foreground and logs to standard error. SIGHUP rereads configuration and
/// keys; SIGTERM ends it and leaves the guard up, so that nothing is left open.
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
    #[error("cannot write the state: {0}")]
    Record(io::Error),
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Runs the daemon. Exit status 0 after SIGTERM, 1 where it could not start, 2 where
/// configuration or keys have mistakes.
#[must_use]
pub fn main() -> ExitCode {
    let cli = <Cli as clap::Parser>::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = runtime
        .map_err(Stopped::System)
        .and_then(|runtime| runtime.block_on(run(&cli)));
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

async fn run(cli: &Cli) -> Result<(), Stopped> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut daemon = Daemon::start(cli)?;
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = [0; BUFFER];
    loop {
        tokio::select! {
            received = daemon.listener.receive(&mut buffer) => match received {
                Ok((length, source)) => daemon.datagram(source, &buffer[..length]),
                Err(error) => log::line(format_args!("a socket failed: {error}")),
            },
            _ = tick.tick() => daemon.tick(),
            _ = hangup.recv() => daemon.reload(cli),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    daemon.ledger.close().map_err(Stopped::Record)
}

struct Daemon {
    clock: Clock,
    settings: Settings,
    listener: Listener,
    gate: Gate,
    ledger: Ledger,
    firewall: Firewall,
    log: Log,
}

impl Daemon {
    fn start(cli: &Cli) -> Result<Self, Stopped> {
        let clock = Clock::start();
        let settings = Settings::load(&cli.config).map_err(Stopped::Mistakes)?;
        let mut firewall = Firewall::open()?;
        firewall.check_free(&settings.config)?;
        let listener = Listener::bind(&settings.config.listen)?;
        let (mut ledger, found) = Ledger::open(&settings.config.state)?;
        let now = clock.now();
        let floor = match found {
            Found::Lease(floor) => floor,
            Found::Nothing(why) => {
                let skew = u64::try_from(settings.config.skew.as_millis()).unwrap_or(u64::MAX);
                let floor = Timestamp(now.wall.0.saturating_add(skew));
                ledger.begin(floor).map_err(Stopped::Record)?;
                let (folder, seconds) = (settings.config.state.display(), skew / 1000);
                log::line(format_args!(
                    "the state in {folder} {why}: nothing is accepted for {seconds} s, so that no packet is accepted twice"
                ));
                floor
            }
        };
        let mut gate = Gate::new(&settings, Some(floor), now);
        gate.set_gateways(gateways::read());
        for grant in firewall.put_up(&settings.config, true)?.grants {
            gate.adopt(grant.key, grant.place, now.mono + grant.left);
        }
        // Keys may have been removed while no daemon ran.
        let lost = gate.reconfigure(&settings, now);
        firewall.apply(&lost)?;
        let log = Log::default();
        let daemon = Self {
            clock,
            settings,
            listener,
            gate,
            ledger,
            firewall,
            log,
        };
        daemon.announce("ready");
        Ok(daemon)
    }

    fn announce(&self, word: &str) {
        let config = &self.settings.config;
        let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
        let services: Vec<&str> = config.services.iter().map(|s| s.name.as_str()).collect();
        log::line(format_args!(
            "{word} listen={} services={} keys={}",
            listen.join(","),
            services.join(","),
            self.settings.keys.len()
        ));
    }

    fn datagram(&mut self, source: std::net::IpAddr, bytes: &[u8]) {
        let now = self.clock.now();
        let verdict = self.gate.handle(now, source, bytes);
        match &verdict {
            Verdict::Accepted(accepted) => self.accept(accepted),
            other => {
                if let Some(text) = self.log.refusal(now.mono, other) {
                    log::line(text);
                }
            }
        }
    }

    /// Recorded, then granted.
    fn accept(&mut self, accepted: &Accepted) {
        let lines = if let Err(error) = self.ledger.record(accepted.at) {
            self.gate.undo(accepted);
            log::failed(accepted, "not-recorded", &error)
        } else if let Err(error) = self.change(&accepted.changes) {
            self.gate.undo(accepted);
            log::failed(accepted, "firewall", &error)
        } else {
            log::accepted(accepted)
        };
        lines.iter().for_each(log::line);
    }

    /// Makes changes in the firewall; where the guard is gone, puts it up again first.
    fn change(&mut self, changes: &[Change]) -> Result<(), FirewallError> {
        match self.firewall.apply(changes) {
            Err(error) if error.is_gone() => {
                self.restore()?;
                self.firewall.apply(changes)
            }
            other => other,
        }
    }

    /// Puts the guard up as the settings want it; where it was gone, with all grants.
    fn restore(&mut self) -> Result<(), FirewallError> {
        let before = self.firewall.put_up(&self.settings.config, false)?;
        if !before.was_up {
            log::line("the guard was gone: another program removed it; it is up again");
        }
        let grants = self.gate.grants(self.clock.now());
        let services = &self.settings.config;
        let is_lost = |grant: &Change| {
            let (Change::Admit { place, .. } | Change::Shut { place }) = grant;
            let kept = before.grants.iter().any(|kept| kept.place == *place);
            !kept && services.service(place.service).is_some()
        };
        let lost: Vec<Change> = grants.into_iter().filter(is_lost).collect();
        self.firewall.apply(&lost)
    }

    fn tick(&mut self) {
        self.gate.tick(self.clock.now());
        // An interface or a route may have come since.
        self.gate.set_gateways(gateways::read());
    }

    /// Puts what is on disk in force; where anything is wrong with it, the old stays.
    fn reload(&mut self, cli: &Cli) {
        match self.try_reload(cli) {
            Ok(()) => self.announce("reloaded"),
            Err(Stopped::Mistakes(mistakes)) => {
                for mistake in mistakes {
                    log::line(format_args!("not reloaded: {mistake}"));
                }
            }
            Err(why) => log::line(format_args!("not reloaded: {why}")),
        }
    }

    fn try_reload(&mut self, cli: &Cli) -> Result<(), Stopped> {
        let settings = Settings::load(&cli.config).map_err(Stopped::Mistakes)?;
        let (old, new) = (&self.settings.config, &settings.config);
        if old.state != new.state {
            let what = "state: cannot change while the daemon runs; restart it".into();
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
        let is_there = |change: &Change| {
            let (Change::Admit { place, .. } | Change::Shut { place }) = change;
            self.settings.config.service(place.service).is_some()
        };
        let lost: Vec<Change> = lost.into_iter().filter(is_there).collect();
        if let Err(error) = self.change(&lost) {
            log::line(format_args!(
                "reloaded, but grants of removed keys stay until their time is over: {error}"
            ));
        }
        Ok(())
    }
}
