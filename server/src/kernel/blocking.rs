//! Connections whose packets are dropped: forwarded ones, and exchanges of datagrams, which
//! no socket of this machine could end.
//!
//! The guard's table holds them, each for [`BLOCK_TIME`]; here is what it is to hold, so
//! that a table that was flushed gets them back, and a source that is admitted again gets
//! back what it may use again.

use super::address::AddressFamily;
use super::connection::ConnectionId;
use super::elements::{self, Element};
use super::error::KernelError;
use super::names::{self, BLOCKED, TABLE};
use super::netlink::CREATE;
use super::nftables::Kernel;
use crate::engine::Source;
use oneknock_shared::port::Transport;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a connection is blocked: connection tracking keeps one that is not used for five
/// days, and each packet that is dropped makes it five more.
pub const BLOCK_TIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// Where the blocked connections are written.
pub trait BlockedSet {
    /// Drops the packets of these connections from now on, each for this long; lets them pass
    /// again where there is no time. What is so already is no error.
    fn change(&mut self, connections: &[BlockChange]) -> Result<(), KernelError>;
}

/// A connection, and for how long it is blocked from now on, if it is.
pub type BlockChange = (ConnectionId, Option<Duration>);

/// Why a connection is blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockReason {
    /// An administrator has ended it. A TCP connection does not come back; an exchange of
    /// datagrams does when its source is admitted again, since some use one port for ever.
    Disconnected,
    /// It was made while the guard was down. It goes on when its source is admitted.
    MadeInGap,
}

/// The connections that are blocked, and until when.
#[derive(Debug, Default)]
pub struct BlockedConnections(BTreeMap<Source, BTreeMap<ConnectionId, BlockedState>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BlockedState {
    /// Since boot.
    until: Duration,
    /// Whether it passes again when its source is admitted.
    returns: bool,
}

impl BlockedConnections {
    /// Takes over what the table holds of an earlier run, each with the time that it has
    /// left. Why it was blocked is not known: TCP stays blocked.
    pub fn load(&mut self, now: Duration, entries: &[(ConnectionId, Duration)]) {
        for (connection, remaining) in entries {
            let until = now.saturating_add(*remaining);
            self.insert(*connection, until, connection.transport == Transport::Udp);
        }
    }

    /// Blocks these from now on. They are blocked here even where the set cannot be written:
    /// [`BlockedConnections::write_all`] writes them again.
    pub fn block(
        &mut self,
        now: Duration,
        connections: &[ConnectionId],
        reason: BlockReason,
        set: &mut impl BlockedSet,
    ) -> Result<(), KernelError> {
        let until = now.saturating_add(BLOCK_TIME);
        for connection in connections {
            let is_udp = connection.transport == Transport::Udp;
            let returns = is_udp || reason == BlockReason::MadeInGap;
            self.insert(*connection, until, returns);
        }
        let timed = connections.iter().map(|id| (*id, Some(BLOCK_TIME)));
        set.change(&timed.collect::<Vec<_>>())
    }

    /// Lets a source that is admitted use again what it may use again. It costs nothing
    /// where nothing of it is blocked. Where the set cannot be written, all stays as it is.
    pub fn admit(&mut self, source: Source, set: &mut impl BlockedSet) -> Result<(), KernelError> {
        let Some(entries) = self.0.get_mut(&source) else {
            return Ok(());
        };
        let returning = entries.iter().filter(|(_, state)| state.returns);
        let returning: Vec<_> = returning.map(|(id, _)| (*id, None)).collect();
        if returning.is_empty() {
            return Ok(());
        }
        set.change(&returning)?;
        entries.retain(|_, state| !state.returns);
        if entries.is_empty() {
            self.0.remove(&source);
        }
        Ok(())
    }

    /// Writes all of them, each with the time that it has left: the table was made again.
    pub fn write_all(
        &mut self,
        now: Duration,
        set: &mut impl BlockedSet,
    ) -> Result<(), KernelError> {
        self.forget_expired(now);
        let entries = self.0.values().flatten();
        let timed: Vec<_> = entries
            .map(|(id, state)| (*id, Some(state.until.saturating_sub(now))))
            .collect();
        if timed.is_empty() {
            return Ok(());
        }
        set.change(&timed)
    }

    /// Forgets those whose time is over: the kernel has ended them by itself.
    pub fn forget_expired(&mut self, now: Duration) {
        self.0.retain(|_, entries| {
            entries.retain(|_, state| state.until > now);
            !entries.is_empty()
        });
    }

    /// The connections.
    #[must_use]
    pub fn ids(&self) -> BTreeSet<ConnectionId> {
        self.0.values().flat_map(BTreeMap::keys).copied().collect()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// What an administrator has ended stays so whatever else blocks it.
    fn insert(&mut self, id: ConnectionId, until: Duration, returns: bool) {
        let entries = self.0.entry(Source::of(id.remote)).or_default();
        let state = entries.entry(id).or_insert(BlockedState { until, returns });
        state.until = state.until.max(until);
        state.returns &= returns;
    }
}

impl Kernel {
    /// The connections whose packets are dropped, each with the time that it has left.
    pub fn blocked(&mut self) -> Result<Vec<(ConnectionId, Duration)>, KernelError> {
        let mut blocked = Vec::new();
        for family in AddressFamily::BOTH {
            let listed = self.elements(&names::set_of(BLOCKED, family))?;
            blocked.extend(listed.iter().filter_map(|one| {
                let id = ConnectionId::from_set_key(&one.key)?;
                Some((id, one.remaining.unwrap_or_default()))
            }));
        }
        Ok(blocked)
    }
}

impl BlockedSet for Kernel {
    /// One batch for both families.
    fn change(&mut self, connections: &[BlockChange]) -> Result<(), KernelError> {
        if connections.is_empty() {
            return Ok(());
        }
        self.commit_own(|batch| {
            for family in AddressFamily::BOTH {
                let set = names::set_of(BLOCKED, family);
                let of = connections.iter();
                let of = of.filter(|(id, _)| AddressFamily::of(id.remote) == family);
                let element = |id: &ConnectionId, time| Element::timed(id.set_key(), time);
                let all = of.clone().map(|(id, _)| element(id, Duration::ZERO));
                let blocked = of.filter_map(|(id, time)| Some(element(id, (*time)?)));
                elements::remove(batch, &set, &all.collect::<Vec<_>>());
                elements::add(batch, CREATE, TABLE, &set, &blocked.collect::<Vec<_>>());
            }
        })
    }
}

#[cfg(test)]
#[path = "tests/blocking.rs"]
mod tests;
