//! This machine's default gateways, as the kernel's routing tables have them. A router that
//! rewrites sources shows every visitor under such an address.

use super::netlink::{Netlink, RawMessage};
use netlink_packet_core::{DecodeError, Emitable, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

/// `RTM_NEWROUTE`, `RTM_DELROUTE` and `RTM_GETROUTE` (linux/rtnetlink.h).
pub const NEW_ROUTE: u16 = 24;
/// See [`NEW_ROUTE`].
pub const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;

/// Why the default gateways are not known.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The routing tables could not be read.
    #[error("cannot read the routing tables: {0}")]
    Read(#[from] io::Error),
    /// A default route was not understood.
    #[error("cannot read a default route: {0}")]
    Decode(DecodeError),
    /// A default route names its next hops by a number alone, which a machine with
    /// `nexthop_compat_mode` 0 does.
    #[error(
        "a default route names no gateway but nexthop object {0} (net.ipv4.nexthop_compat_mode is 0)"
    )]
    NextHopObject(u32),
}

/// Not every default gateway is known.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct UnknownGateways {
    /// Those that are known.
    pub known: Vec<IpAddr>,
    /// Why the others are not: the first error.
    pub error: RouteError,
}

impl From<RouteError> for UnknownGateways {
    fn from(error: RouteError) -> Self {
        let known = Vec::new();
        Self { known, error }
    }
}

/// The gateways of the default routes of both families in every routing table, none twice:
/// all next hops of a route with several. A route that leads to a link alone has none.
///
/// It goes through all routes, of which a router may have a million.
pub fn default_gateways() -> Result<Vec<IpAddr>, UnknownGateways> {
    let mut socket = Netlink::open(NETLINK_ROUTE).map_err(RouteError::Read)?;
    let (mut gateways, mut failure) = (BTreeSet::new(), None);
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        let mut bytes = vec![0; request.buffer_len()];
        request.emit(&mut bytes);
        let routes = socket.dump(GET_ROUTE, &bytes, |part| {
            is_default(part).then(|| read(part.body))
        });
        match routes {
            Ok(routes) => {
                for route in routes {
                    match route {
                        Ok(found) => gateways.extend(found),
                        Err(error) => failure = failure.or(Some(error)),
                    }
                }
            }
            Err(error) => failure = failure.or(Some(error.into())),
        }
    }
    let known = gateways.into_iter().collect();
    match failure {
        None => Ok(known),
        Some(error) => Err(UnknownGateways { known, error }),
    }
}

/// Whether a message is about a default route: one to everywhere, or to so much of it that
/// two of IPv4 (`0.0.0.0/1`, as VPN clients set it), or one of IPv6 (`2000::/3`, all of the
/// Internet), are as good as one.
pub fn is_default(message: &RawMessage<'_>) -> bool {
    let is_route = [NEW_ROUTE, DELETE_ROUTE].contains(&message.kind);
    let Some(&[family, bits]) = message.body.first_chunk() else {
        return false;
    };
    is_route
        && match AddressFamily::from(family) {
            AddressFamily::Inet => bits <= 1,
            AddressFamily::Inet6 => bits <= 3,
            _ => false,
        }
}

/// The gateways of a route.
fn read(body: &[u8]) -> Result<Vec<IpAddr>, RouteError> {
    let route = RouteMessage::parse(body).map_err(RouteError::Decode)?;
    if route.header.kind != RouteType::Unicast {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let mut object = None;
    let mut is_resolved = false;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::MultiPath(hops) => {
                is_resolved = true;
                let attributes = hops.iter().flat_map(|hop| &hop.attributes);
                found.extend(attributes.filter_map(gateway));
            }
            RouteAttribute::Oif(_) => is_resolved = true,
            RouteAttribute::NhId(id) => object = Some(*id),
            other => found.extend(gateway(other)),
        }
    }
    match object {
        Some(id) if !is_resolved && found.is_empty() => Err(RouteError::NextHopObject(id)),
        _ => Ok(found),
    }
}

/// A gateway, which may be of the other family than its route.
fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    use RouteAttribute::{Gateway, Via};
    let address: IpAddr = match attribute {
        Gateway(RouteAddress::Inet(v4)) | Via(RouteVia::Inet(v4)) => (*v4).into(),
        Gateway(RouteAddress::Inet6(v6)) | Via(RouteVia::Inet6(v6)) => (*v6).into(),
        _ => return None,
    };
    (!address.is_unspecified()).then_some(address.to_canonical())
}

#[cfg(test)]
#[path = "tests/routes.rs"]
mod tests;
