//! Other settings while the daemon runs.

use super::{Cli, Daemon, Stopped};
use crate::config::{self, Config, Mistake, Settings};
use crate::files::Owner;
use crate::gate::{Change, Lost, Place};
use crate::listener::Listener;
use crate::log;
use oneknock_shared::name::KeyName;
use std::collections::BTreeSet;

impl Daemon {
    /// Puts what is on disk in force; where anything is wrong with it, the old stays.
    /// Says how it went in the log too.
    pub(super) fn reload(&mut self, cli: &Cli) -> Result<(), Stopped> {
        let result = self.try_reload(cli);
        match &result {
            Ok(()) => {
                self.announce("reloaded");
                self.say_left_out();
                self.keep(cli);
                self.hold(cli);
            }
            Err(Stopped::Mistakes(mistakes)) => {
                for mistake in mistakes {
                    log::line(format_args!("not reloaded: {mistake}"));
                }
            }
            Err(Stopped::MainFile(mistakes)) => {
                for mistake in mistakes {
                    log::line(format_args!("not reloaded: {mistake}"));
                }
                let keys = self.settings.keys.len();
                log::line(format_args!(
                    "the keys are reloaded all the same: keys={keys}; of oneknockd.toml what was in force stays in force"
                ));
                self.hold(cli);
            }
            Err(why @ Stopped::Grants(_)) => {
                self.announce("reloaded");
                log::line(why);
                self.keep(cli);
                self.hold(cli);
            }
            Err(why) => log::line(format_args!("not reloaded: {why}")),
        }
        result
    }

    fn try_reload(&mut self, cli: &Cli) -> Result<(), Stopped> {
        let read_ms = crate::files::clock_ms();
        let (settings, left_out, mistakes) = self.load(cli)?;
        let (old, new) = (&self.settings.config, &settings.config);
        let listener = if old.listen == new.listen {
            None
        } else {
            Some(Listener::rebind(&self.listener, &old.listen, &new.listen)?)
        };
        // The guard first: where it cannot be changed, all stays as it was. Grants of
        // services that are gone went with their sets.
        // What others did is put right, and what was connected meanwhile cut, as it was.
        self.look();
        let before = std::mem::replace(&mut self.settings, settings);
        if let Err(error) = self.restore() {
            self.settings = before;
            return Err(error.into());
        }
        self.read_ms = read_ms;
        self.as_before = !mistakes.is_empty();
        self.left_out = left_out;
        // All that there are were let in by the guard as it was, or are older than a service
        // that is guarded from now on.
        self.remember(true);
        if let Some(listener) = listener {
            self.listener = listener;
        }
        let lost = self.reconfigure();
        // Floors of keys that were not in force are on disk before a packet of theirs is taken.
        if self.waiting.is_none() {
            self.tidy(self.clock.now());
        }
        self.sift_anew();
        self.roll_anew();
        if let Err(error) = self.ledger.lose(&lost, self.clock.now()) {
            log::line(format_args!(
                "the history misses how grants of keys that were changed ended: {error}"
            ));
        }
        let is_there = |change: &Change| {
            let (Change::Admit { place, .. } | Change::Shut { place }) = change;
            self.settings.config.service(place.service).is_some()
        };
        log::revoked(&lost.claims).iter().for_each(log::line);
        self.control.note_lost(self.clock.now(), &lost.claims);
        let lost: Vec<Change> = lost.changes.into_iter().filter(is_there).collect();
        let changed = self.change(&lost).map_err(Stopped::Grants);
        self.remember(false);
        if mistakes.is_empty() {
            return changed;
        }
        if let Err(why) = changed {
            log::line(why);
        }
        Err(Stopped::MainFile(mistakes))
    }

    /// What is on disk, what of it is left out, and what is wrong with the main file. Keys that
    /// are not in force anyway, since they have had mistakes since the start, hinder nothing.
    /// With mistakes of the main file alone it is the keys, under the one that is in force: a
    /// key that has leaked is not to open until somebody has mended those.
    fn load(&self, cli: &Cli) -> Result<(Settings, Vec<String>, Vec<Mistake>), Stopped> {
        let under = |config| Settings::under(&cli.config, config, &self.left_out);
        let mut mistakes = match Settings::load(&cli.config) {
            Ok(settings) => match self.fixed(cli, &settings.config) {
                None => return Ok((settings, Vec::new(), Vec::new())),
                Some(mistake) => vec![mistake],
            },
            Err(mistakes) => mistakes,
        };
        if let Ok(config) = config::load_config(&cli.config, Owner::wanted())
            && let Some((settings, left_out)) = under(config)
        {
            match self.fixed(cli, &settings.config) {
                None => return Ok((settings, left_out, Vec::new())),
                Some(mistake) => mistakes = vec![mistake],
            }
        }
        match under(self.settings.config.clone()) {
            Some((settings, left_out)) => Ok((settings, left_out, mistakes)),
            None => Err(Stopped::Mistakes(mistakes)),
        }
    }

    /// What of the main file cannot change while the daemon runs, and has.
    fn fixed(&self, cli: &Cli, new: &Config) -> Option<Mistake> {
        let old = &self.settings.config;
        let fixed = [
            ("state", old.state == new.state),
            ("control", old.control == new.control),
            ("control_group", old.control_group == new.control_group),
        ];
        let (what, _) = fixed.iter().find(|(_, is_same)| !is_same)?;
        Some(Mistake {
            file: crate::files::config_file(&cli.config),
            line: None,
            what: format!("{what}: cannot change while the daemon runs; restart it"),
        })
    }

    /// Puts the settings in force in the gate. What a key has lost its right to is closed,
    /// and so is what a generation has opened that has ended by it.
    fn reconfigure(&mut self) -> Lost {
        let now = self.clock.now();
        let before = self.gate.in_force(now);
        let mut lost = self.gate.reconfigure(&self.settings, now);
        let mut ended = before;
        let after = self.gate.in_force(now);
        ended.retain(|id, _| !after.contains_key(id));
        if ended.is_empty() {
            return lost;
        }
        let more = match self.ledger.opened_by(&ended) {
            Ok(opened) => {
                let opened: BTreeSet<_> = opened.into_iter().collect();
                let is_one = |key: &KeyName, place: &Place| opened.contains(&(key.clone(), *place));
                self.gate.end(now, is_one)
            }
            Err(error) => {
                log::line(format_args!(
                    "cannot see which grants an ended generation has opened: all of its key are closed: {error}"
                ));
                let keys: BTreeSet<_> = ended.into_values().collect();
                self.gate.end(now, |key, _| keys.contains(key))
            }
        };
        lost.changes.extend(more.lost.changes);
        lost.claims.extend(more.lost.claims);
        lost
    }
}
