//! What the engine is asked, without changing anything.

use super::grant::{Grant, Target};
use super::keys::GenerationView;
use super::{Desired, Engine, Now};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::KeyName;
use oneknock_shared::selector::{Selector, Slot};
use std::net::IpAddr;

impl Engine {
    /// What the kernel is to hold.
    #[must_use]
    pub fn desired(&self) -> &Desired {
        &self.grants.desired
    }

    /// What this machine's default gateways are, as far as the engine was told.
    #[must_use]
    pub fn gateways(&self) -> &[IpAddr] {
        &self.gateways
    }

    /// The selectors of all generations for the minutes that are current and for the next,
    /// each with its minute.
    pub fn selectors(&self) -> impl Iterator<Item = (Selector, Slot)> {
        self.selectors.iter()
    }

    /// Nothing older than this passes the time window. Once it is pruned, what is older is
    /// covered by the floors of [`Engine::snapshot`].
    #[must_use]
    pub fn oldest(&self, now: Now) -> Timestamp {
        Timestamp(now.wall.0.saturating_sub(self.skew_ms))
    }

    /// The live grants in the order of target and key, from the first on that comes after
    /// this one.
    pub fn grants<'e>(
        &'e self,
        now: Now,
        after: Option<(Target, &'e KeyName)>,
    ) -> impl Iterator<Item = &'e Grant> {
        let grants = self.grants.after(after);
        grants.filter(move |grant| grant.until > now.mono)
    }

    /// The generations that have not ended, each with its key; one that is not valid yet is
    /// among them.
    pub fn generations(&self, now: Now) -> impl Iterator<Item = GenerationView<'_>> {
        let all = self.keys.iter().map(|(_, generation)| generation);
        all.filter(move |generation| !generation.has_ended(now))
    }

    /// Whether any key has a generation that is valid.
    #[must_use]
    pub fn has_key_at(&self, now: Now) -> bool {
        self.generations(now)
            .any(|generation| !generation.is_early(now))
    }
}
