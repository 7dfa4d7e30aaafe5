//! Connections to guarded ports, and their end: of those that an administrator wants ended,
//! and of those that were made while another program had the guard down.
//!
//! All of it asks the kernel for lists that may be long: it is for a worker thread. Only the
//! guard's own socket may be able to write the set of blocked connections; so the caller
//! writes it, in `block`.

use super::connection::ConnectionId;
use super::ports::GuardedPorts;
use super::present::{ConnectionError, PresentConnection, Snapshot};
use super::sockets::{self, LocalSocket};
use crate::engine::Source;
use oneknock_shared::name::ServiceName;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

/// What was ended.
#[derive(Debug, Default)]
#[must_use]
pub struct Disconnected {
    /// How many connections were ended.
    pub ended: usize,
    /// How many others to guarded ports there are, not from trusted networks.
    pub remaining: usize,
    /// What could not be listed or ended. Such connections may live on, and are in neither
    /// count.
    pub failures: Vec<ConnectionError>,
}

/// What is guarded, which networks are trusted, and which connections are blocked.
#[derive(Clone, Copy)]
pub struct GuardContext<'g> {
    /// The guarded ports.
    pub ports: &'g GuardedPorts,
    /// Whether an address is in a trusted network.
    pub is_trusted: &'g dyn Fn(IpAddr) -> bool,
    /// The connections that are blocked already: they are tracked for days.
    pub blocked: &'g BTreeSet<ConnectionId>,
}

/// Which sources, besides trusted networks, may have connections when the guard was put
/// back. A connection says nothing of its age: it is judged by its source.
#[derive(Clone, Copy)]
pub struct GapRule<'r> {
    /// Whether a source had a grant since boot.
    pub was_granted: &'r dyn Fn(Source) -> bool,
    /// Whether the port sequence has admitted a source to a service.
    pub is_in_by_sequence: &'r dyn Fn(ServiceName, Source) -> bool,
}

/// Ends the connections that are meant: from a source, to a service. The sources are to be
/// shut out before: one that is admitted still connects again.
///
/// `block` drops from now on the packets of what no socket of this machine's holds.
pub fn disconnect(
    guard: &GuardContext<'_>,
    is_meant: impl Fn(ServiceName, Source) -> bool,
    block: impl FnOnce(&[ConnectionId]) -> io::Result<()>,
) -> Disconnected {
    let is_meant = |one: &PresentConnection| {
        let source = Source::of(one.id.remote);
        one.services
            .iter()
            .any(|service| is_meant(*service, source))
    };
    let present = Snapshot::read(guard.ports);
    end(guard, present, is_meant, sockets::destroy, block)
}

/// Ends every connection to a guarded port, but those from trusted networks.
pub fn disconnect_all(
    guard: &GuardContext<'_>,
    block: impl FnOnce(&[ConnectionId]) -> io::Result<()>,
) -> Disconnected {
    let is_meant = |one: &PresentConnection| !(guard.is_trusted)(one.id.remote);
    let present = Snapshot::read(guard.ports);
    end(guard, present, is_meant, sockets::destroy, block)
}

/// The connections that were there when the guard was put up: they may go on although no
/// grant has let them in.
#[derive(Debug, Default)]
pub struct Connections {
    preexisting: BTreeSet<ConnectionId>,
}

impl Connections {
    /// Adds the connections of a snapshot, and forgets those that have ended. For when a
    /// monitored guard is put up where none was, or with other ports, and was whole when the
    /// snapshot had been taken; never after a repair, before
    /// [`Connections::end_gap_connections`].
    pub fn add(&mut self, present: &Snapshot) {
        self.forget_ended(present);
        self.preexisting
            .extend(present.all.iter().map(|one| one.id));
    }

    /// Ends the connections that were made while a monitored guard was down. For once after
    /// each repair.
    pub fn end_gap_connections(
        &mut self,
        guard: &GuardContext<'_>,
        rule: &GapRule<'_>,
        block: impl FnOnce(&[ConnectionId]) -> io::Result<()>,
    ) -> Disconnected {
        let present = Snapshot::read(guard.ports);
        self.forget_ended(&present);
        let is_meant = |one: &PresentConnection| {
            !(guard.is_trusted)(one.id.remote) && self.is_of_gap(rule, one)
        };
        end(guard, present, is_meant, sockets::destroy, block)
    }

    /// How many connections are known from when the guard was put up.
    #[must_use]
    pub fn count(&self) -> usize {
        self.preexisting.len()
    }

    fn is_of_gap(&self, rule: &GapRule<'_>, one: &PresentConnection) -> bool {
        let source = Source::of(one.id.remote);
        let mut services = one.services.iter();
        !(self.preexisting.contains(&one.id)
            || (rule.was_granted)(source)
            || services.any(|service| (rule.is_in_by_sequence)(*service, source)))
    }

    /// Whatever is not in a whole list has ended.
    fn forget_ended(&mut self, present: &Snapshot) {
        if present.failures.is_empty() {
            let now: BTreeSet<_> = present.all.iter().map(|one| one.id).collect();
            self.preexisting.retain(|id| now.contains(id));
        }
    }
}

/// Ends those that are meant: sockets are destroyed, and what no socket holds, or none that
/// can be destroyed, is blocked. Whatever fails, the rest is done.
fn end(
    guard: &GuardContext<'_>,
    present: Snapshot,
    is_meant: impl Fn(&PresentConnection) -> bool,
    destroy: impl Fn(&LocalSocket) -> io::Result<()>,
    block: impl FnOnce(&[ConnectionId]) -> io::Result<()>,
) -> Disconnected {
    let (mut ended, mut remaining, mut live_blocked) = (0, 0, 0);
    let (mut to_block, mut undestroyed) = (Vec::new(), Vec::new());
    let mut failures = present.failures;
    let is_over =
        |one: &&PresentConnection| one.sockets.is_empty() && guard.blocked.contains(&one.id);
    for one in present.all.iter().filter(|one| !is_over(one)) {
        if !is_meant(one) {
            remaining += usize::from(one.is_live && !(guard.is_trusted)(one.id.remote));
            continue;
        }
        let errors = one
            .sockets
            .iter()
            .filter_map(|socket| destroy(socket).err());
        let error = errors.reduce(|first, _| first);
        match (one.sockets.is_empty(), error) {
            (false, None) => ended += 1,
            _ if one.is_tracked => {
                to_block.push(one.id);
                live_blocked += usize::from(one.is_live);
            }
            (_, error) => undestroyed.extend(error),
        }
    }
    let count = undestroyed.len();
    if let Some(first) = undestroyed.into_iter().next() {
        failures.push(ConnectionError::Destroy(count, first));
    }
    if !to_block.is_empty() {
        match block(&to_block) {
            Ok(()) => ended += live_blocked,
            Err(error) => failures.push(ConnectionError::Block(to_block.len(), error)),
        }
    }
    Disconnected {
        ended,
        remaining,
        failures,
    }
}

#[cfg(test)]
#[path = "tests/connections.rs"]
mod tests;
