//! Which ports are guarded, as far as connections are concerned.

use oneknock_shared::name::ServiceName;
use oneknock_shared::port::{Ports, Transport};
use std::collections::BTreeSet;

/// Up to this many ports are asked for one by one. The kernel goes through all of its
/// connections for each question, which takes a fifth of the time of handing out all.
const MAX_PORT_QUERIES: usize = 4;

/// The guarded ports of each service.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct GuardedPorts(Vec<(ServiceName, Vec<Ports>)>);

impl GuardedPorts {
    /// These services' ports; no two services share a port.
    #[must_use]
    pub fn new(services: Vec<(ServiceName, Vec<Ports>)>) -> Self {
        Self(services)
    }

    /// Which service a port is guarded for.
    #[must_use]
    pub fn service(&self, transport: Transport, port: u16) -> Option<ServiceName> {
        let has = |ports: &Ports| ports.contains(transport, port);
        let mut services = self.0.iter();
        services.find_map(|(name, ports)| ports.iter().any(has).then_some(*name))
    }

    /// What to ask the kernel for, to see the connections to every guarded port of a
    /// transport, and to these besides: single ports where they are few, or `None`, which is
    /// every port.
    pub(super) fn queries(
        &self,
        transport: Transport,
        besides: &BTreeSet<u16>,
    ) -> Vec<Option<u16>> {
        let all = self.0.iter().flat_map(|(_, ports)| ports);
        let of_transport = all.filter(|ports| ports.transport() == transport);
        let mut single = besides.clone();
        for ports in of_transport {
            if ports.first() != ports.last() {
                return vec![None];
            }
            single.insert(ports.first());
        }
        if single.len() > MAX_PORT_QUERIES {
            return vec![None];
        }
        single.into_iter().map(Some).collect()
    }
}

#[cfg(test)]
#[path = "tests/ports.rs"]
mod tests;
