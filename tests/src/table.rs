//! What nft itself cannot do to a table: raw messages of nftables' own.

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use std::fs::File;
use std::io::{Read, Write};

fn message(kind: u16, flags: u16, family: u8, subsystem: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(20 + body.len()).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, 0]);
    bytes.extend(subsystem.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// Sets the flags of the table `inet oneknock`; gives the kernel's error, 0 for none. To
/// be called inside a host.
pub fn set_flags(flags: u32) -> i32 {
    let attributes = [text(1, "oneknock"), number(2, flags)].concat();
    commit(&[(0, ACKNOWLEDGE, attributes)])
}

/// Makes a table `inet foreign` with a set whose user data names, as what its key is of, an
/// expression that nft 1.0.6 does not know: as nft 1.1.2 makes them in the same network
/// namespace. nft 1.0.6 crashes on it, whatever it is asked to load. Gives the kernel's
/// error, 0 for none. To be called inside a host.
pub fn make_newer_set() -> i32 {
    let record = |kind: u8, value: &[u8]| {
        let length = u8::try_from(value.len()).unwrap();
        [&[kind, length], value].concat()
    };
    let numbered = |kind, number: u32| record(kind, &number.to_ne_bytes());
    let of = [numbered(0, 1), numbered(1, 1)].concat();
    let key = [numbered(0, 5), record(1, &of)].concat();
    let user_data = [numbered(0, 2), record(3, &key)].concat();
    let name = text(1, "foreign");
    let set = [
        name.clone(),
        text(2, "s"),
        number(3, 0),
        number(4, 7),
        number(5, 4),
        number(10, 1),
        attribute(13, &user_data),
    ];
    commit(&[(0, CREATE, name), (9, CREATE | ACKNOWLEDGE, set.concat())])
}

const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const CREATE: u16 = 0x400;

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = [&length.to_ne_bytes(), &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn text(kind: u16, text: &str) -> Vec<u8> {
    attribute(kind, &[text.as_bytes(), &[0]].concat())
}

fn number(kind: u16, number: u32) -> Vec<u8> {
    attribute(kind, &number.to_be_bytes())
}

/// Sends messages, each with its kind and flags, as one batch; gives the first answer's code.
fn commit(messages: &[(u16, u16, Vec<u8>)]) -> i32 {
    let protocol = SockProtocol::NetlinkNetFilter;
    let raw = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::empty(),
        protocol,
    );
    let mut socket = File::from(raw.unwrap());
    let mut batch = message(16, REQUEST, 0, 10, &[]);
    for (kind, flags, body) in messages {
        batch.extend(message(10 << 8 | kind, REQUEST | flags, 1, 0, body));
    }
    batch.extend(message(17, REQUEST, 0, 10, &[]));
    socket.write_all(&batch).unwrap();
    let mut answer = [0; 4096];
    let length = socket.read(&mut answer).unwrap();
    assert!(length >= 20, "{length}");
    i32::from_ne_bytes(answer[16..20].try_into().unwrap())
}
