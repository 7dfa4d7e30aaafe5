//! The connections to guarded ports that there are now, from sockets and connection
//! tracking together.

use super::connection::ConnectionId;
use super::flows::{self, Flow};
use super::ports::GuardedPorts;
use super::sockets::{self, LocalSocket};
use oneknock_shared::name::ServiceName;
use oneknock_shared::port::Transport;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

/// Why connections could not be listed or ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The list of this machine's addresses could not be read.
    #[error("cannot list this machine's addresses: {0}")]
    Addresses(io::Error),
    /// The list of sockets could not be read.
    #[error("cannot list the TCP sockets: {0}")]
    Sockets(io::Error),
    /// The list of connection tracking could not be read.
    #[error("cannot list the tracked connections: {0}")]
    Tracked(io::Error),
    /// The sockets of this many connections could not be destroyed, and they are not tracked,
    /// so they could not be blocked either.
    #[error("cannot destroy the sockets of {0} connections: {1}")]
    Destroy(usize, io::Error),
    /// Connections that no socket of this machine's holds could not be blocked.
    #[error("cannot block {0} connections: {1}")]
    Block(usize, io::Error),
}

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

/// The connections of other machines to guarded ports at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Those that were seen.
    pub(super) all: Vec<PresentConnection>,
    pub(super) failures: Vec<ConnectionError>,
}

impl Snapshot {
    /// Asks the kernel.
    #[must_use]
    pub fn read(guarded: &GuardedPorts) -> Self {
        let mut snapshot = Self::default();
        let own = match OwnAddresses::read() {
            Ok(own) => own,
            // Without them, connections over loopback would be taken for others.
            Err(error) => {
                snapshot.failures.push(ConnectionError::Addresses(error));
                return snapshot;
            }
        };
        let flows = flows::list(guarded, &[Transport::Tcp, Transport::Udp]);
        let flows = snapshot.or_failure(flows.map_err(ConnectionError::Tracked));
        let answering = answering_here(&flows, &own);
        let ports: BTreeSet<u16> = answering.keys().map(|(_, port)| *port).collect();
        let queries = guarded.queries(Transport::Tcp, &ports);
        let is_wanted =
            |port| guarded.service(Transport::Tcp, port).is_some() || ports.contains(&port);
        let sockets = sockets::list(&queries, is_wanted);
        let sockets = snapshot.or_failure(sockets.map_err(ConnectionError::Sockets));
        snapshot.all = merge(guarded, &own, &flows, sockets);
        snapshot
    }

    /// What may be missing.
    #[must_use]
    pub fn failures(&self) -> &[ConnectionError] {
        &self.failures
    }

    fn or_failure<T: Default>(&mut self, list: Result<T, ConnectionError>) -> T {
        list.unwrap_or_else(|error| {
            self.failures.push(error);
            T::default()
        })
    }
}

/// This machine's addresses. Connections from one of them come over loopback, which is not
/// guarded.
#[derive(Debug, Default)]
struct OwnAddresses(BTreeSet<IpAddr>);

impl OwnAddresses {
    /// Asks the kernel.
    fn read() -> io::Result<Self> {
        let interfaces = nix::ifaddrs::getifaddrs()?;
        let addresses = interfaces.filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        });
        Ok(Self(addresses.collect()))
    }

    /// Whether an address is this machine's.
    fn contains(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.0.contains(&address)
    }
}

/// The tracked TCP connections that a socket of this machine's answers: for the socket's
/// remote end and port, the connection as it was addressed.
fn answering_here(flows: &[Flow], own: &OwnAddresses) -> BTreeMap<(SocketAddr, u16), ConnectionId> {
    let here = flows.iter().filter(|flow| {
        flow.connection.transport == Transport::Tcp && own.contains(flow.answering.ip())
    });
    here.map(|flow| {
        let id = flow.connection;
        let remote = SocketAddr::new(id.remote, id.remote_port);
        ((remote, flow.answering.port()), id)
    })
    .collect()
}

/// The connections to a guarded TCP port that a socket of this machine's answers at a port
/// of its own, which another one is where a rule redirects: from where, and that port.
pub fn redirected(guarded: &GuardedPorts) -> io::Result<BTreeSet<(SocketAddr, u16)>> {
    let own = OwnAddresses::read()?;
    let flows = flows::list(guarded, &[Transport::Tcp])?;
    Ok(answering_here(&flows, &own).into_keys().collect())
}

/// Puts together the flow and the sockets of each connection.
fn merge(
    guarded: &GuardedPorts,
    own: &OwnAddresses,
    flows: &[Flow],
    sockets: Vec<LocalSocket>,
) -> Vec<PresentConnection> {
    let answering = answering_here(flows, own);
    let mut all = BTreeMap::new();
    for flow in flows.iter().filter(|flow| own.contains(flow.to)) {
        let is_here = own.contains(flow.answering.ip());
        if is_here && flow.is_over {
            // If it has not ended here, a socket holds it.
            continue;
        }
        let port = is_here.then_some(flow.answering.port());
        if let Some(one) = PresentConnection::new(flow.connection, port, guarded, own) {
            let one = all.entry(flow.connection).or_insert(one);
            one.is_tracked = true;
            one.is_live |= !flow.is_over;
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
        if let Some(one) = PresentConnection::new(id, Some(port), guarded, own) {
            let one = all.entry(id).or_insert(one);
            one.is_live = true;
            one.sockets.push(socket);
        }
    }
    all.into_values().collect()
}

impl PresentConnection {
    /// A connection from another machine to a guarded port; `answering` is the port of this
    /// machine's that answers.
    fn new(
        id: ConnectionId,
        answering: Option<u16>,
        guarded: &GuardedPorts,
        own: &OwnAddresses,
    ) -> Option<Self> {
        let ports = [Some(id.port), answering.filter(|port| *port != id.port)];
        let services = ports.into_iter().flatten();
        let services = services.filter_map(|port| guarded.service(id.transport, port));
        let services: Vec<ServiceName> = services.collect();
        (!services.is_empty() && !own.contains(id.remote)).then_some(Self {
            id,
            services,
            sockets: Vec::new(),
            is_tracked: false,
            is_live: false,
        })
    }
}

#[cfg(test)]
#[path = "tests/present.rs"]
mod tests;
