//! The set of connections whose packets are dropped, before what is established passes: they
//! are to end, and no socket of this machine holds them.

use super::blocking::BlockedSet;
use super::connection::ConnectionId;
use super::elements::{self, Element};
use super::names::{AddressFamily, blocked_set};
use super::netlink::Batch;
use super::{Kernel, KernelError};
use std::time::Duration;

impl Kernel {
    /// The connections whose packets are dropped, each with the time that it has left.
    pub fn blocked(&mut self) -> Result<Vec<(ConnectionId, Duration)>, KernelError> {
        let mut blocked = Vec::new();
        for family in AddressFamily::BOTH {
            let listed = self.elements(&blocked_set(family))?;
            let read = listed.iter().filter_map(|one| {
                let id = ConnectionId::from_set_key(&one.key)?;
                Some((id, one.remaining.unwrap_or_default()))
            });
            blocked.extend(read);
        }
        Ok(blocked)
    }
}

impl BlockedSet for Kernel {
    fn block(&mut self, connections: &[(ConnectionId, Duration)]) -> Result<(), KernelError> {
        self.change(connections.iter().copied(), elements::renew)
    }

    fn unblock(&mut self, connections: &[ConnectionId]) -> Result<(), KernelError> {
        let connections = connections.iter().map(|id| (*id, Duration::ZERO));
        self.change(connections, elements::remove)
    }
}

impl Kernel {
    /// Makes one batch of it, for both families.
    fn change(
        &mut self,
        connections: impl Iterator<Item = (ConnectionId, Duration)>,
        append: fn(&mut Batch, &str, &[Element<'_>]),
    ) -> Result<(), KernelError> {
        let [mut v4, mut v6] = [Vec::new(), Vec::new()];
        for (id, time) in connections {
            let elements = if id.remote.is_ipv4() {
                &mut v4
            } else {
                &mut v6
            };
            elements.push(Element::timed(id.set_key(), time));
        }
        if v4.is_empty() && v6.is_empty() {
            return Ok(());
        }
        self.commit_own(|| {
            let mut batch = Batch::new();
            append(&mut batch, &blocked_set(AddressFamily::V4), &v4);
            append(&mut batch, &blocked_set(AddressFamily::V6), &v6);
            batch
        })
    }
}
