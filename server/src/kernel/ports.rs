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
mod tests {
    use super::*;

    const NO_PORT: BTreeSet<u16> = BTreeSet::new();

    fn guarded(services: &[(&str, &[&str])]) -> GuardedPorts {
        let ports = |ports: &[&str]| ports.iter().map(|p| p.parse().unwrap()).collect();
        let services = services.iter();
        GuardedPorts::new(
            services
                .map(|(name, of)| (name.parse().unwrap(), ports(of)))
                .collect(),
        )
    }

    #[test]
    fn port_belongs_to_the_service_of_its_transport() {
        let guarded = guarded(&[("ssh", &["tcp/22"]), ("mosh", &["udp/60000-61000"])]);
        let service = |transport, port| guarded.service(transport, port).map(|s| s.to_string());
        assert_eq!(service(Transport::Tcp, 22).as_deref(), Some("ssh"));
        assert_eq!(service(Transport::Udp, 60_500).as_deref(), Some("mosh"));
        assert_eq!(service(Transport::Udp, 22), None);
    }

    #[test]
    fn few_single_ports_are_asked_for_one_by_one() {
        let guarded = guarded(&[("ssh", &["tcp/22", "tcp/2222"]), ("dns", &["udp/53"])]);
        let tcp = guarded.queries(Transport::Tcp, &[22, 80].into());
        assert_eq!(tcp, [Some(22), Some(80), Some(2222)]);
        assert_eq!(guarded.queries(Transport::Udp, &NO_PORT), [Some(53)]);
    }

    #[test]
    fn range_or_many_ports_are_asked_for_as_all() {
        let range = guarded(&[("ssh", &["tcp/22", "tcp/40-50"])]);
        assert_eq!(range.queries(Transport::Tcp, &NO_PORT), [None]);
        assert_eq!(range.queries(Transport::Udp, &NO_PORT), []);
        let besides: BTreeSet<u16> = (100..105).collect();
        assert_eq!(range.queries(Transport::Udp, &besides), [None]);
    }
}
