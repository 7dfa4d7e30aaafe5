//! What connection tracking knows: forwarded connections and exchanges of datagrams too.

use super::address::{AddressFamily, address_of, protocol_number, transport_of};
use super::connection::ConnectionId;
use super::netlink::{Attributes, Netlink, Writer};
use super::ports::GuardedPorts;
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
    let mut socket = Netlink::open(NETLINK_NETFILTER)?;
    let mut found = Vec::new();
    for &transport in transports {
        let is_wanted = |of, port| of == transport && guarded.service(of, port).is_some();
        for port in guarded.queries(transport, &BTreeSet::new()) {
            for family in AddressFamily::BOTH {
                let request = request(family, transport, port);
                let flows = socket.dump(GET, &request, |one| read(one.attributes(), is_wanted));
                found.extend(flows?);
            }
        }
    }
    Ok(found)
}

/// Asks for the connections of a family and transport, and of a port where one is given.
fn request(family: AddressFamily, transport: Transport, port: Option<u16>) -> Vec<u8> {
    Writer::body(family.number(), |message| {
        message.nest(TUPLE_ORIG, |tuple| {
            tuple.nest(TUPLE_PROTO, |protocol| {
                protocol.bytes(PROTO_NUM, &[protocol_number(transport)]);
                if let Some(port) = port {
                    protocol.bytes(PROTO_DST_PORT, &port.to_be_bytes());
                }
            });
        });
        let by_port = port.map_or(0, |_| BY_DST_PORT);
        message.nest(FILTER, |filter| {
            filter.bytes(FILTER_ORIG_FLAGS, &(BY_PROTO_NUM | by_port).to_ne_bytes());
        });
    })
}

/// Decodes one, where its transport and port are wanted.
fn read(entry: Attributes<'_>, is_wanted: impl Fn(Transport, u16) -> bool) -> Option<Flow> {
    let (original, reply) = (entry.nested(TUPLE_ORIG), entry.nested(TUPLE_REPLY));
    let protocol = original.nested(TUPLE_PROTO);
    let [number] = protocol.array(PROTO_NUM)?;
    let transport = transport_of(number)?;
    let port = read_port(protocol, PROTO_DST_PORT)?;
    if !is_wanted(transport, port) {
        return None;
    }
    let answering = SocketAddr::new(
        read_address(reply.nested(TUPLE_IP), IP_SRC)?,
        read_port(reply.nested(TUPLE_PROTO), PROTO_SRC_PORT)?,
    );
    let tcp = entry.nested(PROTOINFO).nested(PROTOINFO_TCP);
    Some(Flow {
        connection: ConnectionId {
            transport,
            remote: read_address(original.nested(TUPLE_IP), IP_SRC)?,
            remote_port: read_port(protocol, PROTO_SRC_PORT)?,
            port,
        },
        to: read_address(original.nested(TUPLE_IP), IP_DST)?,
        answering,
        is_over: matches!(tcp.get(PROTOINFO_TCP_STATE), Some([TIME_WAIT | CLOSE])),
    })
}

fn read_port(protocol: Attributes<'_>, number: u16) -> Option<u16> {
    protocol.array(number).map(u16::from_be_bytes)
}

fn read_address(addresses: Attributes<'_>, [v4, v6]: [u16; 2]) -> Option<IpAddr> {
    let octets = addresses.get(v4).or_else(|| addresses.get(v6))?;
    Some(address_of(octets)?.to_canonical())
}

#[cfg(test)]
#[path = "tests/flows.rs"]
mod tests;
