//! A socket that changes nftables by messages of its own, as the daemon does.

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname,
    recv, send, socket,
};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const INET: u8 = 1;

// The kernel's numbers (linux/netfilter/nf_tables.h).
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;

/// The socket.
pub struct NftSocket {
    fd: OwnedFd,
    /// Its netlink port.
    pub port: u32,
}

impl NftSocket {
    /// Opens it in this thread's namespace.
    pub fn open() -> Self {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )
        .unwrap();
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).unwrap();
        let port = getsockname::<NetlinkAddr>(fd.as_raw_fd()).unwrap().pid();
        Self { fd, port }
    }

    /// Makes the guard's table, which drops everything that comes in, with a set; what
    /// there is of it goes before.
    pub fn install(&self) {
        let create = (NEW_TABLE, table_name());
        let delete = (DELETE_TABLE, table_name());
        self.commit(&batch(&[create.clone(), delete, create, chain(), set()]));
    }

    /// Adds an address to the set.
    pub fn add_element(&self, address: Ipv4Addr) {
        self.commit(&addition(address));
    }

    /// Sends a batch, of which the last message is acknowledged.
    pub fn commit(&self, batch: &[u8]) {
        send(self.fd.as_raw_fd(), batch, MsgFlags::empty()).unwrap();
        let mut answer = [0; 4096];
        recv(self.fd.as_raw_fd(), &mut answer, MsgFlags::empty()).unwrap();
        assert_eq!(answer[16..20], [0; 4], "the kernel refused a batch");
    }
}

/// The batch that adds an address to the set.
pub fn addition(address: Ipv4Addr) -> Vec<u8> {
    batch(&[element(address)])
}

fn batch(messages: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = message(0x10, 1, 0, &[0, 0, 0, 10]);
    for (at, (kind, attributes)) in messages.iter().enumerate() {
        let is_last = at + 1 == messages.len();
        let flags = 1 | CREATE | if is_last { ACK } else { 0 };
        let body = [&[INET, 0, 0, 0], &attributes[..]].concat();
        bytes.extend(message(0x0a00 | kind, flags, 7, &body));
    }
    bytes.extend(message(0x11, 1, 0, &[0, 0, 0, 10]));
    bytes
}

fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn attribute(number: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(number.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn table_name() -> Vec<u8> {
    attribute(1, b"oneknock\0")
}

/// At prerouting, before destination NAT, with the policy to drop.
fn chain() -> (u16, Vec<u8>) {
    let hook = [
        attribute(1, &0_u32.to_be_bytes()),
        attribute(2, &(-150_i32).to_be_bytes()),
    ];
    let parts = [
        table_name(),
        attribute(3, b"guard\0"),
        attribute(0x8004, &hook.concat()),
        attribute(5, &0_u32.to_be_bytes()),
        attribute(7, b"filter\0"),
    ];
    (NEW_CHAIN, parts.concat())
}

/// Of IPv4 addresses, with timeouts.
fn set() -> (u16, Vec<u8>) {
    let word = |number, value: u32| attribute(number, &value.to_be_bytes());
    let parts = [
        table_name(),
        attribute(2, b"ssh4\0"),
        word(3, 0x10),
        word(4, 7),
        word(5, 4),
        word(10, 1),
    ];
    (NEW_SET, parts.concat())
}

fn element(address: Ipv4Addr) -> (u16, Vec<u8>) {
    let key = attribute(0x8001, &attribute(1, &address.octets()));
    let one = [key, attribute(4, &600_000_u64.to_be_bytes())].concat();
    let parts = [
        table_name(),
        attribute(2, b"ssh4\0"),
        attribute(0x8003, &attribute(0x8001, &one)),
    ];
    (NEW_ELEMENT, parts.concat())
}
