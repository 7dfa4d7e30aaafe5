//! The connections to guarded ports that there are now, from sockets and connection
//! tracking together.

use super::connection::ConnectionId;
use super::connections::ConnectionError;
use super::flows::{self, Flow};
use super::ports::GuardedPorts;
use super::sockets::{self, LocalSocket};
use oneknock_shared::name::ServiceName;
use oneknock_shared::port::Transport;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

/// A connection to a guarded port.
#[derive(Debug, PartialEq, Eq)]
pub struct PresentConnection {
    /// Its ends, as its first packet was addressed; as its socket has them, where it is not
    /// tracked.
    pub id: ConnectionId,
    /// The service of the addressed port, and the service of the port that answers here,
    /// where a rule redirects to a guarded one.
    pub services: Vec<ServiceName>,
    /// The sockets of this machine's that hold it; none of one that is forwarded.
    pub sockets: Vec<LocalSocket>,
    /// Whether connection tracking knows it.
    pub is_tracked: bool,
    /// Whether it has not ended: one that has is still tracked for a while.
    pub is_live: bool,
}

/// The connections of other machines to guarded ports, and what could not be seen.
#[derive(Debug, Default)]
pub struct PresentConnections {
    /// Those that were seen.
    pub all: Vec<PresentConnection>,
    /// What may be missing.
    pub failures: Vec<ConnectionError>,
}

impl PresentConnections {
    /// Asks the kernel.
    pub fn read(guarded: &GuardedPorts) -> Self {
        let own = match OwnAddresses::read() {
            Ok(own) => own,
            // Without them, connections over loopback would be taken for others.
            Err(error) => {
                return Self {
                    all: Vec::new(),
                    failures: vec![ConnectionError::Addresses(error)],
                };
            }
        };
        let mut failures = Vec::new();
        let both = [Transport::Tcp, Transport::Udp];
        let flows = flows::list(guarded, &both).unwrap_or_else(|error| {
            failures.push(ConnectionError::Tracked(error));
            Vec::new()
        });
        let answering = answering_here(&flows, &own);
        let ports: BTreeSet<u16> = answering.keys().map(|(_, port)| *port).collect();
        let queries = guarded.queries(Transport::Tcp, &ports);
        let is_wanted =
            |port| guarded.service(Transport::Tcp, port).is_some() || ports.contains(&port);
        let sockets = sockets::list(&queries, is_wanted).unwrap_or_else(|error| {
            failures.push(ConnectionError::Sockets(error));
            Vec::new()
        });
        let all = merge(guarded, &own, &flows, sockets);
        Self { all, failures }
    }
}

/// This machine's addresses. Connections from one of them come over loopback, which is not
/// guarded.
#[derive(Debug, Default)]
pub struct OwnAddresses(BTreeSet<IpAddr>);

impl OwnAddresses {
    /// Asks the kernel.
    pub fn read() -> io::Result<Self> {
        let interfaces = nix::ifaddrs::getifaddrs()?;
        let addresses = interfaces.filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        });
        Ok(Self(addresses.collect()))
    }

    /// Whether an address is this machine's.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.0.contains(&address)
    }
}

/// The tracked TCP connections that a socket of this machine's answers: for the socket's
/// remote end and port, the connection as it was addressed.
pub fn answering_here(
    flows: &[Flow],
    own: &OwnAddresses,
) -> BTreeMap<(SocketAddr, u16), ConnectionId> {
    let here = flows
        .iter()
        .filter(|flow| flow.connection.transport == Transport::Tcp)
        .filter(|flow| own.contains(flow.answering.ip()));
    here.map(|flow| {
        let id = flow.connection;
        let remote = SocketAddr::new(id.remote, id.remote_port);
        ((remote, flow.answering.port()), id)
    })
    .collect()
}

/// Puts together the flow and the sockets of each connection.
fn merge(
    guarded: &GuardedPorts,
    own: &OwnAddresses,
    flows: &[Flow],
    sockets: Vec<LocalSocket>,
) -> Vec<PresentConnection> {
    let answering = answering_here(flows, own);
    let mut all = Merger {
        guarded,
        own,
        all: BTreeMap::new(),
    };
    for flow in flows.iter().filter(|flow| own.contains(flow.to)) {
        let is_here = own.contains(flow.answering.ip());
        if is_here && flow.is_over {
            // If it has not ended here, a socket holds it.
            continue;
        }
        let port = is_here.then_some(flow.answering.port());
        if let Some(entry) = all.entry(flow.connection, port) {
            entry.is_tracked = true;
            entry.is_live |= !flow.is_over;
        }
    }
    for socket in sockets {
        let (remote, port) = (socket.remote, socket.port);
        let addressed = answering.get(&(remote, port)).copied();
        let id = addressed.unwrap_or(ConnectionId {
            transport: Transport::Tcp,
            remote: remote.ip(),
            remote_port: remote.port(),
            port,
        });
        if let Some(entry) = all.entry(id, Some(port)) {
            entry.is_live = true;
            entry.sockets.push(socket);
        }
    }
    all.all.into_values().collect()
}

struct Merger<'m> {
    guarded: &'m GuardedPorts,
    own: &'m OwnAddresses,
    all: BTreeMap<ConnectionId, PresentConnection>,
}

impl Merger<'_> {
    /// The entry of a connection from another machine to a guarded port; `answering` is the
    /// port of this machine's that answers.
    fn entry(
        &mut self,
        id: ConnectionId,
        answering: Option<u16>,
    ) -> Option<&mut PresentConnection> {
        let ports = [Some(id.port), answering.filter(|port| *port != id.port)];
        let services = ports.into_iter().flatten();
        let services = services.filter_map(|port| self.guarded.service(id.transport, port));
        let services: Vec<ServiceName> = services.collect();
        if services.is_empty() || self.own.contains(id.remote) {
            return None;
        }
        Some(self.all.entry(id).or_insert(PresentConnection {
            id,
            services,
            sockets: Vec::new(),
            is_tracked: false,
            is_live: false,
        }))
    }
}

#[cfg(test)]
#[path = "tests/present.rs"]
mod tests;
