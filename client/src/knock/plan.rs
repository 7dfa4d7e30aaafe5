//! What is asked, of which addresses, and what may go to each of them.

use crate::knock::address::{AddressBinding, is_global};
use crate::knock::engine::{Binding, Bindings, Candidate};
use crate::knock::memory::Memory;
use crate::knock::packet::KnockRequest;
use oneknock_shared::knock::{Timestamp, is_admissible};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// What is asked, and of which addresses.
#[derive(Debug, Clone)]
pub struct KnockPlan {
    /// What is asked, with which keys.
    pub request: KnockRequest,
    /// The server's addresses.
    pub addresses: Vec<IpAddr>,
    /// The UDP port to knock on.
    pub port: u16,
    /// Which address is signed.
    pub signing: AddressBinding,
}

/// A server's address, and this computer's own on the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The server's.
    pub to: IpAddr,
    /// This computer's; or why there is no way.
    pub from: Result<IpAddr, String>,
}

impl KnockPlan {
    /// The ways there, the one that worked last on this network first. Nothing is sent.
    #[must_use]
    pub fn routes(&self, memory: &Memory, now: Timestamp) -> Vec<Route> {
        let route = |&to| Route {
            to,
            from: route(self.request.from, SocketAddr::new(to, self.port)),
        };
        let mut routes: Vec<Route> = self.addresses.iter().map(route).collect();
        let worked = |route: &Route| {
            let remembered = memory.of(*route.from.as_ref().ok()?, now)?;
            (remembered.address == route.to).then_some(remembered.at)
        };
        // Stable: the resolver's order is kept where nothing is known.
        routes.sort_by_key(|route| std::cmp::Reverse(worked(route)));
        routes
    }

    /// What the engine is to know of each way.
    #[must_use]
    pub fn candidate(&self, route: &Route, memory: &Memory, now: Timestamp) -> Candidate {
        let from = route.from.clone();
        let remembered = from.as_ref().ok().and_then(|from| memory.of(*from, now));
        let first = match remembered {
            Some(remembered) if remembered.by_source => Binding::Source,
            _ => Binding::Signed,
        };
        Candidate {
            address: route.to,
            bindings: from.and_then(|from| bindings(self.signing, from, route.to, first)),
            round_trip: remembered
                .filter(|r| r.address == route.to)
                .map(|r| Duration::from_millis(r.round_trip_ms)),
        }
    }
}

/// Which packets may go from one address to another.
fn bindings(
    signing: AddressBinding,
    from: IpAddr,
    to: IpAddr,
    first: Binding,
) -> Result<Bindings, String> {
    match signing {
        AddressBinding::IfGlobal if is_global(from) && !is_translated(to) => {
            Ok(Bindings::Both(first))
        }
        AddressBinding::IfGlobal | AddressBinding::Never => Ok(Bindings::Only(Binding::Source)),
        AddressBinding::Always if !is_admissible(from) => Err(format!(
            "the server demands a signed address, and {from} cannot be one"
        )),
        AddressBinding::Always | AddressBinding::Given(_) => Ok(Bindings::Only(Binding::Signed)),
    }
}

/// Whether a NAT64 stands before this address (RFC 6052, the well-known prefix): the server
/// sees the translator's address.
fn is_translated(to: IpAddr) -> bool {
    match to {
        IpAddr::V6(to) => to.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0],
        IpAddr::V4(_) => false,
    }
}

/// The unspecified address of the same family.
#[must_use]
pub fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// This computer's own address on the way to another; why there is none. Sends nothing.
pub fn route(from: Option<IpAddr>, to: SocketAddr) -> Result<IpAddr, String> {
    let from = from.unwrap_or_else(|| unspecified(to.ip()));
    let look = || -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((from, 0))?;
        socket.connect(to)?;
        Ok(socket.local_addr()?.ip())
    };
    let own = look().map_err(|why| format!("no route: {why}"))?;
    // What the system falls back to where the interface has no address that leads on.
    let is_local = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
    };
    if own.is_unspecified() || (is_local(own) && !is_local(to.ip())) {
        return Err("no route: this computer has no address to send from".into());
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(signing: AddressBinding, from: &str, to: &str) -> Result<Bindings, String> {
        bindings(
            signing,
            from.parse().unwrap(),
            to.parse().unwrap(),
            Binding::Signed,
        )
    }

    #[test]
    fn both_packets_go_only_where_the_own_address_may_be_seen() {
        let source = Ok(Bindings::Only(Binding::Source));
        let auto = AddressBinding::IfGlobal;
        let both = Ok(Bindings::Both(Binding::Signed));
        assert_eq!(of(auto, "198.51.100.7", "192.0.2.10"), both);
        assert_eq!(of(auto, "192.168.1.7", "192.0.2.10"), source);
        // Behind a NAT64 the server never sees this computer's address.
        assert_eq!(of(auto, "2001:db8::7", "64:ff9b::192.0.2.10"), source);
        assert_eq!(of(AddressBinding::Never, "9.9.9.9", "192.0.2.10"), source);
    }

    #[test]
    fn a_demanded_address_that_cannot_be_signed_sends_nothing() {
        let always = AddressBinding::Always;
        let signed = Ok(Bindings::Only(Binding::Signed));
        assert_eq!(of(always, "192.168.1.7", "192.0.2.10"), signed);
        assert!(of(always, "127.0.0.1", "127.0.0.1").is_err());
    }

    #[test]
    fn there_is_no_route_to_an_address_of_another_family_than_the_own() {
        let own: IpAddr = "127.0.0.1".parse().unwrap();
        assert!(route(Some(own), "[::1]:9".parse().unwrap()).is_err());
        assert_eq!(route(Some(own), "127.0.0.1:9".parse().unwrap()), Ok(own));
    }
}
