//! What connection tracking knows: forwarded connections and exchanges of datagrams too.

use super::connection::{ConnectionId, address_of, transport, transport_number};
use super::message::{NESTED, attribute, push_attribute};
use super::ports::GuardedPorts;
use super::query::QuerySocket;
use netlink_sys::protocols::NETLINK_NETFILTER;
use oneknock_shared::port::Transport;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// A tracked connection, as its first packet was addressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// From where, and to which port.
    pub connection: ConnectionId,
    /// To which address.
    pub to: IpAddr,
    /// Where the answers come from: elsewhere than `to` where a rule redirects or forwards.
    pub answering: SocketAddr,
    /// Whether both sides have closed it, or one has reset it.
    pub is_over: bool,
}

/// Subsystem `ctnetlink`, message `IPCTNL_MSG_CT_GET`.
const GET: u16 = 0x0101;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

// The kernel's numbers (linux/netfilter/nfnetlink_conntrack.h).
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const PROTOINFO: u16 = 4;
const FILTER: u16 = 25;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
/// IPv4 and IPv6.
const IP_SRC: [u16; 2] = [1, 3];
const IP_DST: [u16; 2] = [2, 4];
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;
const PROTOINFO_TCP: u16 = 1;
const PROTOINFO_TCP_STATE: u16 = 1;
const TIME_WAIT: u8 = 7;
const CLOSE: u8 = 8;
/// What of the original tuple is compared.
const FILTER_ORIG_FLAGS: u16 = 1;
const BY_PROTO_NUM: u32 = 1 << 3;
const BY_DST_PORT: u32 = 1 << 5;

/// The tracked connections whose first packet was addressed to a guarded port of one of
/// these transports. There may be very many others: the kernel skips them where it can (5.8
/// and later), and the rest is skipped before it is decoded.
pub fn list(guarded: &GuardedPorts, transports: &[Transport]) -> io::Result<Vec<Flow>> {
    let mut socket = QuerySocket::open(NETLINK_NETFILTER)?;
    let mut found = Vec::new();
    for &transport in transports {
        let is_wanted = |of, port| of == transport && guarded.service(of, port).is_some();
        for port in guarded.queries(transport, &BTreeSet::new()) {
            for family in [AF_INET, AF_INET6] {
                found.extend(socket.dump(GET, &request(family, transport, port), |part| {
                    // Behind the header of netfilter's own.
                    read(part.body.get(4..)?, is_wanted)
                })?);
            }
        }
    }
    Ok(found)
}

/// Asks for the connections of a family and transport, and of a port where one is given.
fn request(family: u8, transport: Transport, port: Option<u16>) -> Vec<u8> {
    let mut protocol = Vec::new();
    push_attribute(&mut protocol, PROTO_NUM, &[transport_number(transport)]);
    let mut flags = BY_PROTO_NUM;
    if let Some(port) = port {
        push_attribute(&mut protocol, PROTO_DST_PORT, &port.to_be_bytes());
        flags |= BY_DST_PORT;
    }
    let (mut tuple, mut filter) = (Vec::new(), Vec::new());
    push_attribute(&mut tuple, NESTED | TUPLE_PROTO, &protocol);
    push_attribute(&mut filter, FILTER_ORIG_FLAGS, &flags.to_ne_bytes());
    let mut request = vec![family, 0, 0, 0];
    push_attribute(&mut request, NESTED | TUPLE_ORIG, &tuple);
    push_attribute(&mut request, NESTED | FILTER, &filter);
    request
}

/// Decodes one, where its transport and port are wanted.
fn read(entry: &[u8], is_wanted: impl Fn(Transport, u16) -> bool) -> Option<Flow> {
    let original = attribute(entry, TUPLE_ORIG)?;
    let protocol = attribute(original, TUPLE_PROTO)?;
    let &[number] = attribute(protocol, PROTO_NUM)? else {
        return None;
    };
    let transport = transport(number)?;
    let port = read_port(protocol, PROTO_DST_PORT)?;
    if !is_wanted(transport, port) {
        return None;
    }
    let addresses = attribute(original, TUPLE_IP)?;
    let reply = attribute(entry, TUPLE_REPLY)?;
    let answering = SocketAddr::new(
        read_address(attribute(reply, TUPLE_IP)?, IP_SRC)?,
        read_port(attribute(reply, TUPLE_PROTO)?, PROTO_SRC_PORT)?,
    );
    let state = attribute(entry, PROTOINFO)
        .and_then(|info| attribute(info, PROTOINFO_TCP))
        .and_then(|info| attribute(info, PROTOINFO_TCP_STATE));
    Some(Flow {
        connection: ConnectionId {
            transport,
            remote: read_address(addresses, IP_SRC)?,
            remote_port: read_port(protocol, PROTO_SRC_PORT)?,
            port,
        },
        to: read_address(addresses, IP_DST)?,
        answering,
        is_over: matches!(state, Some([TIME_WAIT | CLOSE])),
    })
}

fn read_port(protocol: &[u8], number: u16) -> Option<u16> {
    let octets = attribute(protocol, number)?.try_into().ok()?;
    Some(u16::from_be_bytes(octets))
}

fn read_address(addresses: &[u8], [v4, v6]: [u16; 2]) -> Option<IpAddr> {
    let octets = attribute(addresses, v4).or_else(|| attribute(addresses, v6))?;
    Some(address_of(octets)?.to_canonical())
}

#[cfg(test)]
#[path = "tests/flows.rs"]
mod tests;
