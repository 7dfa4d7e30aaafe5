//! What nft itself cannot do to a table: a raw message of nftables' own.

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
    let protocol = SockProtocol::NetlinkNetFilter;
    let raw = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::empty(),
        protocol,
    );
    let mut socket = File::from(raw.unwrap());
    // Two attributes, each with length and number before it: the name, the flags.
    let name = [&[13, 0, 1, 0][..], b"oneknock\0", &[0; 3]].concat();
    let value = [&[8, 0, 2, 0][..], &flags.to_be_bytes()].concat();
    let (request, acknowledge) = (1, 4);
    let batch = [
        message(16, request, 0, 10, &[]),
        message(
            10 << 8,
            request | acknowledge,
            1,
            0,
            &[name, value].concat(),
        ),
        message(17, request, 0, 10, &[]),
    ];
    socket.write_all(&batch.concat()).unwrap();
    let mut answer = [0; 4096];
    let length = socket.read(&mut answer).unwrap();
    assert!(length >= 20, "{length}");
    i32::from_ne_bytes(answer[16..20].try_into().unwrap())
}
