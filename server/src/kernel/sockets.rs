//! This machine's own TCP connections, as the kernel's `sock_diag` knows them.

use super::query::QuerySocket;
use netlink_packet_core::{Emitable, Parseable};
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::constants::{SOCK_DESTROY, SOCK_DIAG_BY_FAMILY};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponseHeader};
use netlink_packet_sock_diag::inet::{SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use std::io;
use std::net::SocketAddr;

/// A TCP connection of this machine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalSocket {
    /// Its other end.
    pub remote: SocketAddr,
    /// Its port here.
    pub port: u16,
    family: u8,
    /// The kernel's own name for it.
    id: SocketId,
}

/// Every TCP connection at these ports that is not over: begun, established or ending. A
/// port that is `None` is every port; of these the wanted ones are listed.
pub fn list(
    ports: &[Option<u16>],
    is_wanted: impl Fn(u16) -> bool,
) -> io::Result<Vec<LocalSocket>> {
    let mut socket = QuerySocket::open(NETLINK_SOCK_DIAG)?;
    let mut found = Vec::new();
    let states = StateFlags::all()
        .difference(StateFlags::LISTEN | StateFlags::CLOSE | StateFlags::TIME_WAIT);
    for &port in ports {
        for (family, mut id) in [
            (AF_INET, SocketId::new_v4()),
            (AF_INET6, SocketId::new_v6()),
        ] {
            id.source_port = port.unwrap_or(0);
            let request = encoded(family, states.clone(), id);
            found.extend(socket.dump(SOCK_DIAG_BY_FAMILY, &request, |part| {
                read(part.body).filter(|socket| is_wanted(socket.port))
            })?);
        }
    }
    Ok(found)
}

/// Ends a connection, as a RST from its other side would. One that is over is no error.
pub fn destroy(socket: &LocalSocket) -> io::Result<()> {
    let request = encoded(socket.family, StateFlags::all(), socket.id.clone());
    let mut netlink = QuerySocket::open(NETLINK_SOCK_DIAG)?;
    match netlink.request(SOCK_DESTROY, &request) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn encoded(family: u8, states: StateFlags, socket_id: SocketId) -> Vec<u8> {
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states,
        socket_id,
    };
    let mut bytes = vec![0; request.buffer_len()];
    request.emit(&mut bytes);
    bytes
}

fn read(body: &[u8]) -> Option<LocalSocket> {
    let header = InetResponseHeader::parse(body).ok()?;
    let id = header.socket_id;
    let remote = id.destination_address.to_canonical();
    Some(LocalSocket {
        remote: SocketAddr::new(remote, id.destination_port),
        port: id.source_port,
        family: header.family,
        id,
    })
}

#[cfg(test)]
pub mod tests {
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
}
