//! The guard in the kernel: changes to it, and what other programs do to it.

use super::Daemon;
use crate::firewall::FirewallError;
use crate::gate::{Change, Place};
use crate::log;
use std::collections::BTreeSet;
use std::time::Duration;

/// Where the guard cannot be put right, it is tried again, and said again, after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Daemon {
    /// Makes changes in the firewall; where the guard is gone, puts it up again first.
    pub(super) fn change(&mut self, changes: &[Change]) -> Result<(), FirewallError> {
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
    pub(super) fn look(&mut self) {
        let since = self.clock.now().mono;
        if since < self.look_again {
            return;
        }
        let what = match self.firewall.changed() {
            Ok(None) => return,
            Ok(Some(what)) => what,
            Err(error) => error.to_string(),
        };
        match self.restore() {
            Ok(()) => {
                let took = self.clock.now().mono.saturating_sub(since).as_millis();
                log::line(format_args!(
                    "another program has changed the guard ({what}): it is up again after {took} ms"
                ));
                self.cut();
            }
            Err(error) => {
                self.look_again = since.saturating_add(AGAIN_AFTER);
                log::line(format_args!(
                    "another program has changed the guard ({what}), and it cannot be put right: {error}"
                ));
            }
        }
    }

    /// Ends the connections that were made while the guard was not whole.
    pub(super) fn cut(&mut self) {
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
    pub(super) fn remember(&mut self, all: bool) {
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
    pub(super) fn restore(&mut self) -> Result<(), FirewallError> {
        let before = self.firewall.put_up(&self.settings.config, false)?;
        let grants = self.gate.grants(self.clock.now());
        let services = &self.settings.config;
        let kept: BTreeSet<Place> = before.grants.iter().map(|grant| grant.place).collect();
        let is_lost = |grant: &Change| {
            let (Change::Admit { place, .. } | Change::Shut { place }) = grant;
            !kept.contains(place) && services.service(place.service).is_some()
        };
        let lost: Vec<Change> = grants.into_iter().filter(is_lost).collect();
        let restored = self.firewall.apply(&lost);
        if restored.is_err() {
            // Some grants are missing in a guard that is whole otherwise: look again.
            self.firewall.distrust();
        }
        restored
    }
}
