//! The stopwatch's two ends: when an address is in the kernel's set, and when a SYN is
//! answered. Neither asks the daemon anything.

use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrStorage, bind, connect,
    getpeername, socket,
};
use oneknock_tests::Host;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Nothing that is measured takes longer; what does has failed.
pub const PATIENCE: Duration = Duration::from_secs(4);

/// Asks the kernel for elements of a service's set for one family.
pub struct Set {
    socket: File,
    name: String,
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// What makes an attribute a list of others.
const NESTED: u16 = 0x8000;
/// `NFT_MSG_GETSETELEM` of nftables' subsystem.
const GET_ELEMENTS: u16 = 0x0a0d;
const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
const DONE: u16 = 3;

fn question(set: &str, flags: u16, elements: &[u8]) -> Vec<u8> {
    // Family inet, version, no resource.
    let mut body = vec![1, 0, 0, 0];
    body.extend(attribute(1, b"oneknock\0"));
    body.extend(attribute(2, &[set.as_bytes(), &[0]].concat()));
    body.extend(elements);
    let mut bytes = u32::try_from(16 + body.len())
        .unwrap()
        .to_ne_bytes()
        .to_vec();
    bytes.extend(GET_ELEMENTS.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

impl Set {
    pub fn of(server: &Host, service: &str, like: IpAddr) -> Self {
        let raw = server.enter(|| {
            let (kind, flags) = (SockType::Raw, SockFlag::empty());
            let protocol = SockProtocol::NetlinkNetFilter;
            socket(AddressFamily::Netlink, kind, flags, protocol).unwrap()
        });
        Self {
            socket: raw.into(),
            name: format!("{service}{}", if like.is_ipv4() { 4 } else { 6 }),
        }
    }

    /// Whether the address is in the set now.
    pub fn has(&mut self, address: IpAddr) -> bool {
        let octets = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let key = attribute(1 | NESTED, &attribute(1, &octets));
        let elements = attribute(3 | NESTED, &attribute(1 | NESTED, &key));
        self.socket
            .write_all(&question(&self.name, REQUEST, &elements))
            .unwrap();
        let mut answer = [0; 4096];
        let length = self.socket.read(&mut answer).unwrap();
        // The kernel's number of an error is 2.
        length >= 6 && answer[4..6] != 2_u16.to_ne_bytes()
    }

    /// How many there are.
    pub fn count(&mut self) -> usize {
        self.socket
            .write_all(&question(&self.name, REQUEST | DUMP, &[]))
            .unwrap();
        let (mut count, mut answer) = (0, vec![0; 64 * 1024]);
        loop {
            let length = self.socket.read(&mut answer).unwrap();
            let mut rest = &answer[..length];
            while rest.len() >= 16 {
                let size = u32::from_ne_bytes(rest[..4].try_into().unwrap());
                let size = usize::try_from(size).unwrap();
                if rest[4..6] == DONE.to_ne_bytes() {
                    return count;
                }
                count += elements(&rest[20..size]);
                rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// How many elements the list in a message has.
fn elements(mut attributes: &[u8]) -> usize {
    let mut count = 0;
    let mut depth_of_list = false;
    while attributes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes(attributes[..2].try_into().unwrap()));
        let kind = u16::from_ne_bytes(attributes[2..4].try_into().unwrap()) & !NESTED;
        if kind == 3 && !depth_of_list {
            depth_of_list = true;
            attributes = &attributes[4..length];
            continue;
        }
        count += usize::from(depth_of_list);
        attributes = attributes
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    count
}

/// Whoever asks all the time must not keep from the processor what is asked about.
fn give_way() {
    std::thread::yield_now();
}

/// When the address is seen in the set.
pub fn until_in_set(set: &mut Set, address: IpAddr) -> Option<Instant> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if set.has(address) {
            return Some(Instant::now());
        }
        give_way();
    }
    None
}

/// A connection attempt that waits for nothing.
struct Attempt {
    socket: OwnedFd,
}

impl Attempt {
    fn new(from: Ipv4Addr, to: SocketAddrV4) -> Self {
        let (kind, flags) = (SockType::Stream, SockFlag::SOCK_NONBLOCK);
        let socket = socket(AddressFamily::Inet, kind, flags, None).unwrap();
        let from = SockaddrIn::from(SocketAddrV4::new(from, 0));
        bind(socket.as_raw_fd(), &from).unwrap();
        // "In progress" is how it begins.
        let _ = connect(socket.as_raw_fd(), &SockaddrIn::from(to));
        Self { socket }
    }

    fn is_answered(&self) -> bool {
        getpeername::<SockaddrStorage>(self.socket.as_raw_fd()).is_ok()
    }
}

/// When a SYN is answered, by a new attempt every so often, for so long at the most. To be
/// called inside a host that has the address `from`.
pub fn until_answered(
    from: Ipv4Addr,
    to: SocketAddrV4,
    every: Duration,
    patience: Duration,
) -> Option<Instant> {
    let start = Instant::now();
    while start.elapsed() < patience {
        let begun = Instant::now();
        let attempt = Attempt::new(from, to);
        loop {
            if attempt.is_answered() {
                return Some(Instant::now());
            }
            if begun.elapsed() >= every {
                break;
            }
            give_way();
        }
    }
    None
}
