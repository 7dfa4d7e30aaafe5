//! Keeps the kernel's prefilter filled with the selectors of the current minutes, and a minute
//! ahead. A prefilter that nobody fills drops nearly everything.

use super::Daemon;
use crate::engine::Engine;
use crate::observers::{self, Level};
use oneknock_shared::selector::Selector;
use std::collections::BTreeSet;
use std::time::Duration;

/// So many at a time, where there is time: knocks wait meanwhile.
const PORTION: usize = 1024;
/// A selector is filled in up to two minutes before the packets of its minute, and these may
/// come up to two skews after that minute. One that stays for longer does no harm: the engine
/// judges what passes.
const MINUTES: Duration = Duration::from_secs(4 * 60);

/// What the kernel has not been given yet.
#[derive(Debug, Default)]
pub(super) struct Prefilter {
    queued: Vec<Selector>,
    /// Whether it could not be filled when that was last tried.
    is_failing: bool,
}

impl Prefilter {
    fn collect(&mut self, engine: &mut Engine) {
        let slots: BTreeSet<_> = engine.take_new_slots().into_iter().collect();
        if !slots.is_empty() {
            let new = engine.selectors().filter(|(_, slot)| slots.contains(slot));
            self.queued.extend(new.map(|(selector, _)| selector));
            self.queued.sort_unstable();
            self.queued.dedup();
        }
    }
}

impl Daemon {
    /// Gives the kernel a portion of what it lacks.
    pub(super) fn fill_prefilter(&mut self) {
        self.fill(PORTION);
    }

    /// Gives the kernel all of it: the rules were just loaded.
    pub(super) fn refill_prefilter(&mut self) {
        let all = self.server.engine.selectors().map(|(selector, _)| selector);
        self.prefilter.queued = all.collect();
        self.prefilter.queued.sort_unstable();
        self.prefilter.queued.dedup();
        self.server.engine.take_new_slots();
        self.fill(usize::MAX);
    }

    fn fill(&mut self, most: usize) {
        self.prefilter.collect(&mut self.server.engine);
        let queued = &mut self.prefilter.queued;
        if queued.is_empty() {
            return;
        }
        let rest = queued.len().saturating_sub(most);
        let lifetime = MINUTES + 2 * self.server.settings.config.skew;
        match self.server.kernel.fill_prefilter(&queued[rest..], lifetime) {
            Ok(()) => {
                queued.truncate(rest);
                self.prefilter.is_failing = false;
                if rest == 0 && std::mem::take(&mut self.server.prefilter_open) {
                    observers::write(Level::Info, "prefilter-filled");
                    // The prefilter drops again.
                    if let Err(error) = self.install() {
                        observers::say(Level::Error, "guard-not-installed", error);
                    }
                }
            }
            Err(error) => {
                let is_said = std::mem::replace(&mut self.prefilter.is_failing, true);
                if !is_said {
                    observers::say(Level::Error, "prefilter-not-filled", error);
                }
                if !std::mem::replace(&mut self.server.prefilter_open, true) {
                    // What another program has done is repaired first, as what it is.
                    self.check_guard();
                    if self.server.prefilter_open
                        && let Err(error) = self.install()
                    {
                        // It drops nearly every knock: it is tried again with the next portion.
                        self.server.prefilter_open = false;
                        if !is_said {
                            observers::say(Level::Error, "prefilter-not-opened", error);
                        }
                    }
                }
            }
        }
    }
}
