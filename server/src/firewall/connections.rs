//! Connections that were made while another program had the guard down, and their end.
//!
//! A connection says nothing of its age. So the daemon takes note of those that are there
//! when an address ceases to be admitted, and when it starts itself; what is neither
//! among these nor of an admitted address when the guard is put right was made in the
//! gap. Only where the guard is watched: an owned one has no gap.

use super::connection::Connection;
use super::netlink::Netlink;
use super::{elements, flows, sockets};
use crate::config::{Config, Service};
use oneknock_shared::name::ServiceName;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

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

impl Present {
    fn look(netlink: &mut Netlink, config: &Config) -> io::Result<Self> {
        let guarded = |c: &Connection| service_of(&config.services, c).is_some();
        let own = own_addresses()?;
        let is_foreign = |c: &Connection| !c.remote.is_loopback() && !own.contains(&c.remote);
        let wanted = |c: &Connection| guarded(c) && is_foreign(c);
        let mut sockets = sockets::list()?;
        sockets.retain(|(connection, _)| wanted(connection));
        let flows = flows::list(netlink, |c, to| wanted(c) && own.contains(&to))?;
        Ok(Self { sockets, flows })
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

    /// Ends what is neither known nor admitted: sockets are destroyed, and the packets of
    /// what is forwarded are dropped from now on. Returns how many there were.
    pub fn cut(
        &mut self,
        netlink: &mut Netlink,
        config: &Config,
        admitted: impl Fn(ServiceName, IpAddr) -> bool,
    ) -> io::Result<usize> {
        let present = Present::look(netlink, config)?;
        let strange = |connection: &Connection| {
            let service = service_of(&config.services, connection);
            let admitted = service.is_some_and(|s| admitted(s.name, connection.remote));
            !admitted && !self.known.contains(connection)
        };
        // Whatever fails, the rest is done; then it is said.
        let mut failed = Ok(());
        let mut ended = BTreeSet::new();
        for (connection, socket) in &present.sockets {
            if strange(connection) {
                match sockets::destroy(socket) {
                    Ok(()) => drop(ended.insert(*connection)),
                    Err(error) => failed = Err(error),
                }
            }
        }
        let flows: Vec<Connection> = present.flows.into_iter().filter(strange).collect();
        elements::cut(netlink, &flows)?;
        self.cut.extend(flows.iter().copied());
        ended.extend(flows);
        failed?;
        Ok(ended.len())
    }
}

impl Connections {
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
