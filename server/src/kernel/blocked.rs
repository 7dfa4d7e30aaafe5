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
        if connections.is_empty() {
            return Ok(());
        }
        self.commit_own(|| {
            let mut batch = Batch::new();
            for family in AddressFamily::BOTH {
                let of = connections.iter();
                let of = of.filter(|(id, _)| AddressFamily::of(id.remote) == family);
                let elements = of.map(|(id, time)| Element::timed(id.set_key(), *time));
                let elements: Vec<_> = elements.collect();
                elements::renew(&mut batch, &blocked_set(family), &elements);
            }
            batch
        })
    }

    fn unblock(&mut self, connections: &[ConnectionId]) -> Result<(), KernelError> {
        if connections.is_empty() {
            return Ok(());
        }
        self.commit_own(|| {
            let mut batch = Batch::new();
            for family in AddressFamily::BOTH {
                let of = connections.iter();
                let of = of.filter(|id| AddressFamily::of(id.remote) == family);
                let elements = of.map(|id| Element::timed(id.set_key(), Duration::ZERO));
                let elements: Vec<_> = elements.collect();
                elements::remove(&mut batch, &blocked_set(family), &elements);
            }
            batch
        })
    }
}
