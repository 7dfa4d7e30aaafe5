//! Packets that no well-behaved system sends: lone segments, fragments that overlap or
//! cut a header in two, IPv6 extension headers. All checksums are right, so that only a
//! guard can be what stops them.

use crate::host::Host;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto,
    socket,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// TCP's flags, RFC 9293 section 3.1.
pub mod flags {
    /// No more data.
    pub const FIN: u8 = 0x01;
    /// Open.
    pub const SYN: u8 = 0x02;
    /// Break off.
    pub const RST: u8 = 0x04;
    /// Hand over at once.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement counts.
    pub const ACK: u8 = 0x10;
}

/// TCP's protocol number.
pub const TCP: u8 = 6;
/// UDP's protocol number.
pub const UDP: u8 = 17;

/// RFC 1071.
fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn short(number: usize) -> [u8; 2] {
    u16::try_from(number).unwrap().to_be_bytes()
}

/// RFC 9293 section 3.1, RFC 8200 section 8.1: the checksum of an upper layer. An even
/// number of bytes stands in for the pseudo-header of either family.
fn upper_checksum(from: IpAddr, to: IpAddr, protocol: u8, bytes: &[u8]) -> u16 {
    let rest = [&[0, protocol][..], &short(bytes.len())].concat();
    checksum(&[&octets(from), &octets(to), &rest, bytes])
}

/// A TCP segment without options.
pub fn tcp(from: (IpAddr, u16), to: (IpAddr, u16), flags: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(from.1.to_be_bytes());
    bytes.extend(to.1.to_be_bytes());
    bytes.extend(0x1000_0000_u32.to_be_bytes());
    bytes.extend(0_u32.to_be_bytes());
    bytes.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend(data);
    let sum = upper_checksum(from.0, to.0, TCP, &bytes);
    bytes[16..18].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// A UDP datagram.
pub fn udp(from: (IpAddr, u16), to: (IpAddr, u16), data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(from.1.to_be_bytes());
    bytes.extend(to.1.to_be_bytes());
    bytes.extend(short(8 + data.len()));
    bytes.extend([0, 0]);
    bytes.extend(data);
    let sum = upper_checksum(from.0, to.0, UDP, &bytes);
    bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// An IPv4 packet or a fragment of one: `offset` in bytes, a multiple of 8.
pub fn ipv4(
    from: Ipv4Addr,
    to: Ipv4Addr,
    protocol: u8,
    (id, offset, more): (u16, usize, bool),
    payload: &[u8],
) -> Vec<u8> {
    let fragment = (offset / 8) | (usize::from(more) << 13);
    let mut bytes = vec![0x45, 0];
    bytes.extend(short(20 + payload.len()));
    bytes.extend(id.to_be_bytes());
    bytes.extend(short(fragment));
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    let sum = checksum(&[&bytes]);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// IPv6's extension headers, RFC 8200 section 4.
#[derive(Debug, Clone, Copy)]
pub enum Extension {
    /// Options for every hop: one of padding.
    HopByHop,
    /// Options for the destination: one of padding.
    Destination,
    /// A routing header of type 0 that has no hop left.
    Routing,
    /// A fragment header: number, offset in bytes, and whether more come.
    Fragment(u32, usize, bool),
}

impl Extension {
    fn number(self) -> u8 {
        match self {
            Self::HopByHop => 0,
            Self::Destination => 60,
            Self::Routing => 43,
            Self::Fragment(..) => 44,
        }
    }

    fn bytes(self, next: u8) -> Vec<u8> {
        match self {
            Self::HopByHop | Self::Destination => vec![next, 0, 1, 4, 0, 0, 0, 0],
            Self::Routing => vec![next, 0, 0, 0, 0, 0, 0, 0],
            Self::Fragment(id, offset, more) => {
                let mut bytes = vec![next, 0];
                bytes.extend(short(offset | usize::from(more)));
                bytes.extend(id.to_be_bytes());
                bytes
            }
        }
    }
}

/// An IPv6 packet with extension headers, in this order, before the payload.
pub fn ipv6(
    from: Ipv6Addr,
    to: Ipv6Addr,
    extensions: &[Extension],
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut body = payload.to_vec();
    let mut next = protocol;
    for extension in extensions.iter().rev() {
        body.splice(0..0, extension.bytes(next));
        next = extension.number();
    }
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(short(body.len()));
    bytes.extend([next, 64]);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(body);
    bytes
}

/// Sends whole IP packets from `host`, as they are, one after the other.
pub fn send(host: &Host, to: IpAddr, packets: &[Vec<u8>]) {
    host.enter(|| {
        let sender = Sender::to(to);
        for packet in packets {
            assert_eq!(sender.send(packet).unwrap(), packet.len());
        }
    });
}

/// Sends whole IP packets from `host`, round and round, as fast as the machine can, until
/// `stop` is set; gives how many were sent.
pub fn flood(host: &Host, packets: &[(IpAddr, Vec<u8>)], stop: &AtomicBool) -> u64 {
    host.enter(|| {
        let mut senders: Vec<Sender> = Vec::new();
        let mut sent = 0;
        for (to, packet) in packets.iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let at = senders.iter().position(|s| s.to == *to);
            let at = at.unwrap_or_else(|| {
                senders.push(Sender::to(*to));
                senders.len() - 1
            });
            // A full queue is what a flood makes.
            sent += u64::from(senders[at].send(packet).is_ok());
        }
        sent
    })
}

/// A raw socket for whole packets to one host.
#[derive(Debug)]
pub struct Sender {
    socket: OwnedFd,
    to: IpAddr,
}

impl Sender {
    /// Opens it, in the host whose thread this is.
    pub fn to(to: IpAddr) -> Self {
        let family = match to {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        let raw = SockProtocol::Raw;
        let socket = socket(family, SockType::Raw, SockFlag::empty(), raw).unwrap();
        Self { socket, to }
    }

    /// Sends one packet as it is.
    pub fn send(&self, packet: &[u8]) -> nix::Result<usize> {
        let fd = self.socket.as_raw_fd();
        match self.to {
            IpAddr::V4(to) => {
                let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
                sendto(fd, packet, &to, MsgFlags::empty())
            }
            IpAddr::V6(to) => {
                let to = SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, 0));
                sendto(fd, packet, &to, MsgFlags::empty())
            }
        }
    }
}

/// A whole IP packet with one TCP segment without data in it.
pub fn segment(from: (IpAddr, u16), to: (IpAddr, u16), flags: u8) -> Vec<u8> {
    whole(from.0, to.0, TCP, &tcp(from, to, flags, b""))
}

/// A whole IP packet of either family, without fragments or extension headers.
pub fn whole(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4(from, to, protocol, (1, 0, false), payload),
        (IpAddr::V6(from), IpAddr::V6(to)) => ipv6(from, to, &[], protocol, payload),
        _ => panic!("{from} and {to} are of two families"),
    }
}
