//! The start: from what is on disk and in the kernel to a daemon that is ready.

use super::sift::Sifting;
use super::{Cli, Daemon, Stopped, TIDY_EVERY};
use crate::clock::{Clock, Synchronised};
use crate::config::{self, Usable};
use crate::control::Control;
use crate::control::answers::STAYS_WATCHED;
use crate::files;
use crate::firewall::{Before, Firewall};
use crate::gate::{Change, Gate, Held, Memory, Now, Place};
use crate::gateways;
use crate::ledger::{Found, Ledger};
use crate::listener::Listener;
use crate::log::{self, Log};
use crate::running;
use oneknock_shared::knock::Timestamp;

/// Instead of a configuration with mistakes.
const KEPT: &str = "in force stays what was before these mistakes were made: mend them, then \"oneknockctl reload\"";

impl Daemon {
    pub(super) fn start(cli: &Cli, clock: Clock) -> Result<Self, Stopped> {
        let load = || Usable::load(&cli.config).map_err(Stopped::Mistakes);
        let control = Control::bind(&load()?.settings.config, clock.now());
        // Whoever changed a key since then found no daemon to tell.
        let read_ms = files::clock_ms();
        let usable = load()?;
        usable.mistakes.iter().for_each(log::line);
        if usable.as_before {
            log::line(KEPT);
        }
        let settings = usable.settings;
        let mut firewall = Firewall::open()?;
        // A guard that is up may be that of a daemon that runs: not to be touched.
        let control = match control {
            Err(why) if firewall.is_up()? => return Err(why.into()),
            other => other,
        };
        firewall.check_free(&settings.config)?;
        // The guard before everything that may fail: where it does, the door stays shut.
        let before = firewall.put_up(&settings.config, true)?;
        let control = control?;
        let listener = Listener::bind(&settings.config.listen)?;
        let now = clock.now();
        let (ledger, found) = Ledger::open(&settings.config.state, now)?;
        for loose in ledger.was_loose() {
            let (path, what, wanted) = (loose.path.display(), loose.what(), loose.wanted);
            log::line(format_args!(
                "{path}: {what}: mended, it is {wanted:04o} now"
            ));
        }
        let mut daemon = Self {
            gate: Gate::new(&settings, now),
            clock,
            settings,
            listener,
            ledger,
            firewall,
            sifting: Sifting::default(),
            gateways: gateways::Watch::start(),
            log: Log::default(),
            batch: Vec::new(),
            waiting: None,
            tidy_at: now.mono.saturating_add(TIDY_EVERY),
            look_again: now.mono,
            walked_in: std::collections::BTreeSet::new(),
            turned_away: Vec::new(),
            rolling: super::rolling::Rolling::default(),
            control,
            trial_until: None,
            as_before: usable.as_before,
            left_out: usable.left_out,
            read_ms,
            held: None,
        };
        daemon.gate.set_gateways(gateways::read());
        daemon.see_gateways();
        let memory = daemon.take_up(found, now)?;
        daemon.resume(&memory, &before, now)?;
        daemon.take_up_trial()?;
        daemon.remember(true);
        daemon.sift();
        daemon.roll();
        daemon.hold(cli);
        if !before.was_up && !daemon.settings.config.on_trial {
            daemon.warn_of_no_key(cli, now);
        }
        daemon.announce("ready");
        daemon.say_left_out();
        daemon.keep(cli);
        Ok(daemon)
    }

    /// Says that it runs, to whom its socket does not.
    pub(super) fn hold(&mut self, cli: &Cli) {
        match running::hold(&cli.config) {
            Ok(held) => self.held = Some(held),
            Err(error) => log::line(format_args!(
                "where oneknockctl does not find the control socket it will not see that this runs: {error}"
            )),
        }
    }

    /// The guard is up that was not before, and shuts everybody out.
    fn warn_of_no_key(&self, cli: &Cli, now: Now) {
        if !self.settings.has_key_at(now.wall) {
            let ctl = config::ctl_command(&cli.config);
            log::line(format_args!(
                "warning: the guard is up now, and there is no key: nobody new can get in; \"{ctl} key add NAME\" makes one, \"{ctl} disable\" takes the guard down"
            ));
        }
    }

    /// Keys that are not in force since their files have mistakes.
    pub(super) fn say_left_out(&self) {
        if !self.left_out.is_empty() {
            log::line(format_args!(
                "left out, and nobody gets in by these keys: {}: mend them, then \"oneknockctl reload\"",
                self.left_out.join(", ")
            ));
        }
    }

    /// Keeps what is in force, for a start with a mistake in the configuration.
    pub(super) fn keep(&self, cli: &Cli) {
        if let Err(error) = config::keep(&cli.config, &self.settings.config) {
            log::line(format_args!(
                "with a mistake in oneknockd.toml the next start will find nothing that was in force before: {error}"
            ));
        }
    }

    /// Puts the state of the last run in force; where there is none, waits for the clock.
    fn take_up(&mut self, found: Found, now: Now) -> Result<Memory, Stopped> {
        match found {
            Found::State { memory, floor } => {
                self.gate.restore(&memory);
                self.begin(floor, now)?;
                Ok(memory)
            }
            Found::Nothing(why) => {
                let folder = self.settings.config.state.display();
                log::line(format_args!(
                    "the state in {folder}: {why}: nothing is accepted until the clock is synchronised, so that no packet is accepted twice"
                ));
                self.waiting = Some(Synchronised::wait());
                Ok(Memory::default())
            }
        }
    }

    /// Begins the run: nothing that is not later than `floor` is accepted in it.
    fn begin(&mut self, floor: Option<Timestamp>, now: Now) -> Result<(), Stopped> {
        self.gate.cover_new(now);
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

    /// Takes up the grants of the last run that still have time.
    fn resume(&mut self, memory: &Memory, before: &Before, now: Now) -> Result<(), Stopped> {
        let mut lost = self.gate.resume(now, &memory.claims);
        self.ledger.lose(&lost, now)?;
        // Keys may have been removed or changed while no daemon ran.
        let changed = self.gate.reconfigure(&self.settings, now);
        self.ledger.lose(&changed, now)?;
        lost.claims.extend(changed.claims);
        log::revoked(&lost.claims).iter().for_each(log::line);
        self.reconcile(before)?;
        // What the kernel lists of a set that grows just then may lack some.
        let config = &self.settings.config;
        let mut shut: Vec<Place> = lost.claims.iter().map(|(_, place)| *place).collect();
        shut.retain(|place| config.service(place.service).is_some());
        shut.retain(|place| !self.gate.admits(now, *place));
        let shut: Vec<Change> = shut.iter().map(|&place| Change::Shut { place }).collect();
        self.change(&shut)?;
        let held: Vec<Held> = self.gate.held(now, None).collect();
        log::restored(&held).iter().for_each(log::line);
        Ok(())
    }

    pub(super) fn announce(&self, word: &str) {
        if let Some(why) = self.firewall.no_sieve() {
            log::line(format_args!(
                "junk to the knock port is not refused in the kernel, but here, at a higher price: {why}"
            ));
        }
        let config = &self.settings.config;
        let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
        let services: Vec<&str> = config.services.iter().map(|s| s.name.as_str()).collect();
        log::line(format_args!(
            "{word} listen={} services={} keys={} guard={}",
            listen.join(","),
            services.join(","),
            self.settings.keys.len(),
            self.guard_is()
        ));
        if self.stays_watched() {
            log::line(STAYS_WATCHED);
        }
    }

    /// The clock is right: what was made before now is refused, since it may have been
    /// accepted before the state was lost.
    pub(super) fn start_anew(&mut self, now: Now) {
        let skew = u64::try_from(self.settings.config.skew.as_millis()).unwrap_or(u64::MAX);
        let floor = Timestamp(now.wall.0.saturating_add(skew));
        match self.begin(Some(floor), now) {
            Ok(()) => self.waiting = None,
            Err(Stopped::Record(error)) if error.is_damage() => self.renew(&error, now),
            Err(error) => log::line(format_args!("still nothing is accepted: {error}")),
        }
    }
}
