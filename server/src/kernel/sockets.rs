//! This machine's own TCP connections, as the kernel's `sock_diag` knows them.

use super::netlink::Netlink;
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
    let mut socket = Netlink::open(NETLINK_SOCK_DIAG)?;
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
    let mut netlink = Netlink::open(NETLINK_SOCK_DIAG)?;
    match netlink.get(SOCK_DESTROY, &request, |_| Some(())) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map(drop),
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
#[path = "tests/sockets.rs"]
pub mod tests;
