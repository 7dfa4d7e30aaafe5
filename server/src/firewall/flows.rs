//! What connection tracking knows: forwarded connections and exchanges of datagrams too.

use super::connection::Connection;
use super::netlink::{Attribute, Netlink, attributes};
use netlink_packet_netfilter::conntrack::ConntrackMessage;
use oneknock_shared::port::Transport;
use std::io;
use std::net::IpAddr;

/// A tracked connection, as its first packet was addressed.
#[derive(Debug, PartialEq, Eq)]
pub struct Flow {
    /// From where, and to which port.
    pub connection: Connection,
    /// To which address.
    pub to: IpAddr,
    /// The port that answers: another one where a rule redirects.
    pub answering: u16,
}

/// The tracked TCP and UDP connections that are wanted. There may be very many others.
pub fn list(netlink: &mut Netlink, wanted: impl Fn(&Flow) -> bool) -> io::Result<Vec<Flow>> {
    let mut found = Vec::new();
    netlink.ask_each(ConntrackMessage::Get(Vec::new()), true, |flow| {
        found.extend(read(&flow).filter(&wanted));
    })?;
    Ok(found)
}

/// The kernel's numbers: `CTA_TUPLE_ORIG` 1 and `CTA_TUPLE_REPLY` 2; in each `CTA_TUPLE_IP` 1
/// with the source as 1 (IPv4) or 3 (IPv6) and the destination as 2 or 4, and
/// `CTA_TUPLE_PROTO` 2 with number 1, ports 2 and 3.
fn read(flow: &[Attribute]) -> Option<Flow> {
    let tuple = inside(flow, 1)?;
    let (ip, protocol) = (inside(&tuple, 1)?, inside(&tuple, 2)?);
    let reply = inside(&inside(flow, 2)?, 2)?;
    let address = |v4: u16, v6: u16| match value(&ip, v4) {
        Some(octets) => Some(IpAddr::from(<[u8; 4]>::try_from(octets).ok()?)),
        None => Some(IpAddr::from(<[u8; 16]>::try_from(value(&ip, v6)?).ok()?)),
    };
    let (remote, to) = (address(1, 3)?, address(2, 4)?);
    let transport = match value(&protocol, 1)? {
        [6] => Transport::Tcp,
        [17] => Transport::Udp,
        _ => return None,
    };
    let port = |of: &[Attribute], kind| {
        let octets = value(of, kind)?.try_into().ok()?;
        Some(u16::from_be_bytes(octets))
    };
    let connection = Connection {
        transport,
        remote,
        remote_port: port(&protocol, 2)?,
        port: port(&protocol, 3)?,
    };
    let answering = port(&reply, 2)?;
    Some(Flow {
        connection,
        to,
        answering,
    })
}

fn value(list: &[Attribute], kind: u16) -> Option<&[u8]> {
    let found = list.iter().find(|(k, _)| *k == kind);
    found.map(|(_, value)| value.as_slice())
}

fn inside(list: &[Attribute], kind: u16) -> Option<Vec<Attribute>> {
    value(list, kind).map(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_told_by_its_first_packet_and_garbage_is_none() {
        let ip = [8, 0, 1, 0, 192, 0, 2, 7, 8, 0, 2, 0, 198, 51, 100, 1];
        let protocol = [
            5, 0, 1, 0, 6, 0, 0, 0, 6, 0, 2, 0, 0x9c, 0x40, 0, 0, 6, 0, 3, 0, 0x08, 0xae,
        ];
        let ip = [&[20, 0, 1, 0x80][..], &ip].concat();
        let protocol = [&[26, 0, 2, 0x80][..], &protocol].concat();
        // The answers come from port 22.
        let reply = [18, 0, 2, 0x80, 5, 0, 1, 0, 6, 0, 0, 0, 6, 0, 2, 0, 0, 22];
        let flow = vec![(1, [ip, protocol].concat()), (2, reply.to_vec())];
        let want = Flow {
            connection: Connection {
                transport: Transport::Tcp,
                remote: [192, 0, 2, 7].into(),
                remote_port: 40_000,
                port: 2222,
            },
            to: [198, 51, 100, 1].into(),
            answering: 22,
        };
        assert_eq!(read(&flow), Some(want));
        for (at, (_, octets)) in flow.iter().enumerate() {
            for end in 0..octets.len() - 1 {
                let mut cut = flow.clone();
                cut[at].1.truncate(end);
                assert_eq!(read(&cut), None, "{at} {end}");
            }
        }
    }
}
