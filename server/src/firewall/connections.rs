//! Connections to guarded ports, and their end: of those that were made while another
//! program had the guard down, and of those that somebody at this machine wants ended.
//!
//! A connection says nothing of its age. So the daemon takes note of those that are there
//! when an address ceases to be admitted, and when it starts itself; what is neither
//! among these nor of an admitted address when the guard is put right was made in the
//! gap. That only where the guard is watched: an owned one has no gap.

use super::connection::Connection;
use super::netlink::Netlink;
use super::{elements, flows, sockets};
use crate::config::{Config, Service};
use oneknock_shared::name::ServiceName;
use oneknock_shared::port::Transport;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// The connections that may go on although their address is not admitted.
#[derive(Debug, Default)]
pub struct Connections {
    known: BTreeSet<Connection>,
    /// Those whose packets are dropped.
    cut: BTreeSet<Connection>,
}

/// What is there now.
struct Present {
    sockets: Vec<(Connection, sockets::Socket)>,
    flows: Vec<Connection>,
}

/// What was ended.
struct Ended {
    all: BTreeSet<Connection>,
    /// Whose packets are dropped from now on.
    cut: Vec<Connection>,
    result: io::Result<()>,
}

impl Present {
    fn look(netlink: &mut Netlink, config: &Config) -> io::Result<Self> {
        let guarded = |c: &Connection| service_of(&config.services, c).is_some();
        let own = own_addresses()?;
        let is_foreign = |c: &Connection| !c.remote.is_loopback() && !own.contains(&c.remote);
        let wanted = |c: &Connection| guarded(c) && is_foreign(c);
        let mut sockets = sockets::list()?;
        sockets.retain(|(connection, _)| wanted(connection));
        let flows = flows::list(netlink, |flow| {
            wanted(&flow.connection) && own.contains(&flow.to)
        })?;
        let flows = flows.into_iter().map(|flow| flow.connection).collect();
        Ok(Self { sockets, flows })
    }

    /// Ends those that are meant: sockets are destroyed, and the packets of what is
    /// forwarded are dropped from now on. Whatever fails, the rest is done.
    fn end(
        self,
        netlink: &mut Netlink,
        config: &Config,
        meant: impl Fn(Option<ServiceName>, &Connection) -> bool,
    ) -> Ended {
        let is_meant = |connection: &Connection| {
            let service = service_of(&config.services, connection);
            meant(service.map(|service| service.name), connection)
        };
        let mut ended = Ended {
            all: BTreeSet::new(),
            cut: self.flows.into_iter().filter(is_meant).collect(),
            result: Ok(()),
        };
        for (connection, socket) in &self.sockets {
            if is_meant(connection) {
                match sockets::destroy(socket) {
                    Ok(()) => drop(ended.all.insert(*connection)),
                    Err(error) => ended.result = Err(error),
                }
            }
        }
        match elements::cut(netlink, &ended.cut) {
            Ok(()) => ended.all.extend(ended.cut.iter().copied()),
            Err(error) => ended.result = Err(error),
        }
        ended
    }

    fn all(&self) -> impl Iterator<Item = Connection> {
        let sockets = self.sockets.iter().map(|(connection, _)| *connection);
        sockets.chain(self.flows.iter().copied())
    }
}

impl Connections {
    /// Takes note of the connections that are there; with `of`, of these addresses alone.
    /// Those that have ended are forgotten.
    pub fn remember(
        &mut self,
        netlink: &mut Netlink,
        config: &Config,
        of: Option<&BTreeSet<IpAddr>>,
    ) -> io::Result<()> {
        let present = Present::look(netlink, config)?;
        let now: BTreeSet<Connection> = present.all().collect();
        self.known.retain(|connection| now.contains(connection));
        let wanted = now
            .into_iter()
            .filter(|c| of.is_none_or(|of| of.contains(&c.remote)));
        self.known.extend(wanted);
        Ok(())
    }

    /// Ends what is neither known nor admitted. Returns how many there were.
    pub fn cut(
        &mut self,
        netlink: &mut Netlink,
        config: &Config,
        admitted: impl Fn(ServiceName, IpAddr) -> bool,
    ) -> io::Result<usize> {
        let strange = |service: Option<ServiceName>, connection: &Connection| {
            let admitted = service.is_some_and(|name| admitted(name, connection.remote));
            !admitted && !self.known.contains(connection)
        };
        let present = Present::look(netlink, config)?;
        let ended = present.end(netlink, config, strange);
        self.note(ended)
    }

    /// Ends the connections from these addresses to these services. Returns how many there
    /// were.
    pub fn end(
        &mut self,
        netlink: &mut Netlink,
        config: &Config,
        meant: impl Fn(ServiceName, IpAddr) -> bool,
    ) -> io::Result<usize> {
        let meant = |service: Option<ServiceName>, connection: &Connection| {
            service.is_some_and(|name| meant(name, connection.remote))
        };
        let present = Present::look(netlink, config)?;
        let mut ended = present.end(netlink, config, meant);
        // A session that somebody wanted ended does not come back when its address is
        // admitted again. Datagrams from one port for ever, as some send, are to pass then.
        ended.cut.retain(|c| c.transport == Transport::Udp);
        self.note(ended)
    }

    fn note(&mut self, ended: Ended) -> io::Result<usize> {
        self.cut.extend(ended.cut);
        ended.result.map(|()| ended.all.len())
    }

    /// Takes up which exchanges of datagrams an earlier run has cut: who is admitted again is
    /// to have them again.
    pub fn take_up(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        let cut = elements::cut_now(netlink)?;
        let udp = cut.into_iter().filter(|c| c.transport == Transport::Udp);
        self.cut.extend(udp);
        Ok(())
    }

    /// Whoever is admitted now may use again what was cut.
    pub fn forgive(
        &mut self,
        netlink: &mut Netlink,
        admitted: impl Iterator<Item = IpAddr>,
    ) -> io::Result<()> {
        if self.cut.is_empty() {
            return Ok(());
        }
        let admitted: BTreeSet<IpAddr> = admitted.collect();
        let of = self.cut.iter().filter(|c| admitted.contains(&c.remote));
        let of: Vec<Connection> = of.copied().collect();
        elements::forgive(netlink, &of)?;
        self.cut.retain(|connection| !of.contains(connection));
        Ok(())
    }
}

/// The connections to a guarded TCP port that another port of this machine's answers, since
/// a rule redirects them: who, and that port.
pub fn redirected(
    netlink: &mut Netlink,
    config: &Config,
) -> io::Result<BTreeSet<(SocketAddr, u16)>> {
    let flows = flows::list(netlink, |flow| {
        let is_tcp = flow.connection.transport == Transport::Tcp;
        is_tcp && service_of(&config.services, &flow.connection).is_some()
    })?;
    let who = |c: &Connection| SocketAddr::new(c.remote, c.remote_port);
    let flows = flows.iter();
    Ok(flows.map(|f| (who(&f.connection), f.answering)).collect())
}

fn service_of<'c>(services: &'c [Service], connection: &Connection) -> Option<&'c Service> {
    let leads_there = |service: &&Service| {
        let mut ports = service.ports.iter();
        ports.any(|p| p.contains(connection.transport, connection.port))
    };
    services.iter().find(leads_there)
}

/// What comes from these comes over loopback, which is not guarded.
fn own_addresses() -> io::Result<BTreeSet<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    });
    Ok(addresses.collect())
}
