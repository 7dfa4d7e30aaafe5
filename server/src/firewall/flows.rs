//! What connection tracking knows: forwarded connections and exchanges of datagrams too.

use super::connection::Connection;
use super::netlink::{Attribute, Netlink, attributes};
use netlink_packet_netfilter::conntrack::ConntrackMessage;
use oneknock_shared::port::Transport;
use std::io;
use std::net::IpAddr;

/// The tracked TCP and UDP connections that are wanted, as their first packets were
/// addressed; `wanted` is told to which address. There may be very many others.
pub fn list(
    netlink: &mut Netlink,
    wanted: impl Fn(&Connection, IpAddr) -> bool,
) -> io::Result<Vec<Connection>> {
    let mut found = Vec::new();
    netlink.ask_each(ConntrackMessage::Get(Vec::new()), true, |flow| {
        let flow = connection(&flow).filter(|(connection, to)| wanted(connection, *to));
        found.extend(flow.map(|(connection, _)| connection));
    })?;
    Ok(found)
}

/// The kernel's numbers: `CTA_TUPLE_ORIG` 1; in it `CTA_TUPLE_IP` 1 with the source as 1
/// (IPv4) or 3 (IPv6) and the destination as 2 or 4, and `CTA_TUPLE_PROTO` 2 with number 1, ports 2 and 3.
fn connection(flow: &[Attribute]) -> Option<(Connection, IpAddr)> {
    let tuple = inside(flow, 1)?;
    let (ip, protocol) = (inside(&tuple, 1)?, inside(&tuple, 2)?);
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
    let port = |kind| Some(u16::from_be_bytes(value(&protocol, kind)?.try_into().ok()?));
    let connection = Connection {
        transport,
        remote,
        remote_port: port(2)?,
        port: port(3)?,
    };
    Some((connection, to))
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
            5, 0, 1, 0, 6, 0, 0, 0, 6, 0, 2, 0, 0x9c, 0x40, 0, 0, 6, 0, 3, 0, 0, 22,
        ];
        let ip = [&[20, 0, 1, 0x80][..], &ip].concat();
        let protocol = [&[26, 0, 2, 0x80][..], &protocol].concat();
        let flow = vec![(1, [ip, protocol].concat())];
        let want = Connection {
            transport: Transport::Tcp,
            remote: [192, 0, 2, 7].into(),
            remote_port: 40_000,
            port: 22,
        };
        let to = IpAddr::from([198, 51, 100, 1]);
        assert_eq!(connection(&flow), Some((want, to)));
        for end in 0..flow[0].1.len() - 1 {
            assert_eq!(connection(&[(1, flow[0].1[..end].to_vec())]), None, "{end}");
        }
    }
}
