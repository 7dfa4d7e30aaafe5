//! The guard in the kernel: changes to it, and what other programs do to it.

use super::{Daemon, walked};
use crate::config::Guard;
use crate::doctor;
use crate::firewall::{Before, FirewallError};
use crate::gate::{Change, Place};
use crate::log;
use std::collections::BTreeMap;
use std::time::Duration;

/// Where the guard cannot be put right, it is tried again, and said again, after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A time in the kernel that differs from the gate's by less is the same.
const TOLERANCE: Duration = Duration::from_secs(2);

impl Daemon {
    /// How the guard is kept from other programs.
    pub(super) fn guard_is(&self) -> Guard {
        if self.firewall.is_owned() {
            Guard::Owned
        } else {
            Guard::Watched
        }
    }

    /// Whether it could be owned, and was made when it was not to be: a table becomes one
    /// that can be owned only when it is made, and making it anew would leave a moment open.
    pub(super) fn stays_watched(&self) -> bool {
        let is_wanted = self.settings.config.guard == Guard::Owned;
        is_wanted && self.guard_is() == Guard::Watched && doctor::can_own()
    }

    /// Makes changes in the firewall; where the guard is gone, puts it up again first.
    pub(super) fn change(&mut self, changes: &[Change]) -> Result<(), FirewallError> {
        match self.firewall.apply(changes) {
            Err(error) if error.is_gone() => {
                let was_owned = self.firewall.is_owned();
                self.restore()?;
                log::line(format_args!(
                    "another program has changed the guard ({error}): it is up again"
                ));
                if !was_owned {
                    self.cut();
                }
                self.firewall.apply(changes)
            }
            other => other,
        }
    }

    /// Sees which default gateways there are: an interface or a route may have come since.
    pub(super) fn see_gateways(&mut self) {
        if let Some(gateways) = self.gateways.changed() {
            self.gate.set_gateways(gateways);
        }
        let gateways = self.gate.gateways();
        if let Err(error) = self.firewall.bar(&self.settings.config, gateways) {
            log::line(format_args!(
                "the port sequence may admit the default gateway, behind which is everybody: {error}"
            ));
        }
    }

    /// Sees whether another program has changed the guard; if so, puts it right.
    pub(super) fn look(&mut self) {
        let since = self.clock.now().mono;
        if since < self.look_again {
            return;
        }
        let what = match self.firewall.changed() {
            Ok(None) => return self.see_walked(),
            Ok(Some(what)) => what,
            Err(error) => error.to_string(),
        };
        let was_owned = self.firewall.is_owned();
        match self.restore() {
            Ok(()) => {
                let took = self.clock.now().mono.saturating_sub(since).as_millis();
                log::line(format_args!(
                    "another program has changed the guard ({what}): it is up again after {took} ms"
                ));
                if !was_owned {
                    self.cut();
                }
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
        // On trial it is not whole by intent, now and then.
        if self.settings.config.on_trial {
            return;
        }
        self.gate.tick(self.clock.now());
        self.remember(false);
        let (gate, now) = (&self.gate, self.clock.now());
        let (config, walked_in) = (&self.settings.config, &self.walked_in);
        let admitted = |service, address| {
            config.never_knocks(address)
                || gate.admits(now, Place { service, address })
                || walked::has(config, walked_in, service, address)
        };
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
            self.gate.put_back_left(left);
        }
    }

    /// Puts the guard up as the settings want it, with the grants that the gate knows.
    pub(super) fn restore(&mut self) -> Result<(), FirewallError> {
        let before = self.firewall.put_up(&self.settings.config, false)?;
        self.go_on_with_trial()?;
        self.sift_anew();
        self.roll_anew();
        self.reconcile(&before)
    }

    /// Makes the allow sets what the gate knows: what is missing comes back, also with
    /// another time than it should have; what nobody claims, and has a comment of ours, is
    /// shut, since no close could ever end it.
    pub(super) fn reconcile(&mut self, before: &Before) -> Result<(), FirewallError> {
        let now = self.clock.now();
        let kept = before.grants.iter().map(|grant| (grant.place, grant.left));
        let kept: BTreeMap<Place, Duration> = kept.collect();
        let services = &self.settings.config;
        let differs = |grant: &Change| match grant {
            Change::Admit { place, time, .. } => {
                let fits = |left: &Duration| left.abs_diff(*time) < TOLERANCE;
                services.service(place.service).is_some() && !kept.get(place).is_some_and(fits)
            }
            Change::Shut { .. } => false,
        };
        let mut changes = self.gate.grants(now);
        changes.retain(differs);
        let unclaimed = kept.keys().filter(|place| !self.gate.admits(now, **place));
        changes.extend(unclaimed.map(|&place| Change::Shut { place }));
        let made = self.firewall.apply(&changes);
        if made.is_err() {
            // Some grants may be missing in a guard that is whole otherwise: look again.
            self.firewall.distrust();
        }
        made
    }
}
