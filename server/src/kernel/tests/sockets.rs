use super::*;
use proptest::prelude::*;
use std::net::IpAddr;

/// A socket with this other end, at this port.
pub fn socket(remote: (IpAddr, u16), port: u16) -> LocalSocket {
    LocalSocket {
        remote: remote.into(),
        port,
        family: AF_INET,
        id: SocketId::new_v4(),
    }
}

/// What the kernel lists of a connection from 127.0.0.7:40000 to port 2222 of a socket of
/// IPv6.
fn listed() -> Vec<u8> {
    let mapped = |last: u8| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 127, 0, 0, last];
    let parts = [
        &[10, 1, 0, 0, 0x08, 0xae, 0x9c, 0x40][..],
        &mapped(1),
        &mapped(7),
        &[0, 0, 0, 0, 0x3c, 0, 0, 0, 1, 2, 3, 4],
        &[0; 20],
        &[5, 0, 8, 0, 0, 0, 0, 0],
    ];
    parts.concat()
}

#[test]
fn socket_is_read_with_the_kernels_name_for_it() {
    let socket = read(&listed()).unwrap();
    assert_eq!(socket.remote, ([127, 0, 0, 7], 40_000).into());
    assert_eq!((socket.port, socket.family), (2222, AF_INET6));
    assert_eq!(socket.id.cookie, [0x3c, 0, 0, 0, 1, 2, 3, 4]);
    // It is destroyed by the same name.
    let request = encoded(socket.family, StateFlags::all(), socket.id);
    assert_eq!(request[8..56], listed()[4..52]);
}

#[test]
fn socket_that_is_cut_short_is_none() {
    for end in 0..72 {
        assert_eq!(read(&listed()[..end]), None, "{end}");
    }
}

proptest! {
    #[test]
    fn garbage_is_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        read(&bytes);
    }
}
