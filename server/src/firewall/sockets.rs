//! This machine's own TCP connections, as the kernel's `sock_diag` knows them.

use super::connection::Connection;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::message::SockDiagDestroy;
use netlink_sys::{SocketAddr, protocols::NETLINK_SOCK_DIAG};
use oneknock_shared::port::Transport;
use std::io;

/// The kernel's own name for a socket.
#[derive(Debug)]
pub struct Socket {
    family: u8,
    id: SocketId,
}

/// Larger than any datagram of a dump.
const BUFFER: usize = 64 * 1024;

/// Every TCP connection that is not over: begun, established or ending.
pub fn list() -> io::Result<Vec<(Connection, Socket)>> {
    let mut found = Vec::new();
    for (family, id) in [
        (AF_INET, SocketId::new_v4()),
        (AF_INET6, SocketId::new_v6()),
    ] {
        let states = StateFlags::all()
            .difference(StateFlags::LISTEN | StateFlags::CLOSE | StateFlags::TIME_WAIT);
        let request = SockDiagMessage::InetRequest(request(family, states, id));
        let socket = send(request, NLM_F_DUMP)?;
        'dump: loop {
            let mut buffer = Vec::with_capacity(BUFFER);
            socket.recv(&mut buffer, 0)?;
            let mut rest = &buffer[..];
            while !rest.is_empty() {
                let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest);
                let message = message.map_err(io::Error::other)?;
                let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
                rest = rest
                    .get(length.max(16).next_multiple_of(4)..)
                    .unwrap_or_default();
                match message.payload {
                    NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(answer)) => {
                        let id = answer.header.socket_id;
                        let connection = Connection {
                            transport: Transport::Tcp,
                            remote: id.destination_address.to_canonical(),
                            remote_port: id.destination_port,
                            port: id.source_port,
                        };
                        found.push((connection, Socket { family, id }));
                    }
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::Done(_) => break 'dump,
                    _ => {}
                }
            }
        }
    }
    Ok(found)
}

/// Ends the connection, as a RST from the other side would. One that is over is no error.
pub fn destroy(socket: &Socket) -> io::Result<()> {
    let request = request(socket.family, StateFlags::all(), socket.id.clone());
    let message = SockDiagDestroy::new(SockDiagMessage::InetRequest(request));
    let netlink = send(message, NLM_F_ACK)?;
    let mut buffer = Vec::with_capacity(BUFFER);
    netlink.recv(&mut buffer, 0)?;
    let answer = NetlinkMessage::<SockDiagMessage>::deserialize(&buffer);
    match answer.map_err(io::Error::other)?.payload {
        NetlinkPayload::Error(error) => match error.to_io() {
            _ if error.code.is_none() => Ok(()),
            gone if gone.kind() == io::ErrorKind::NotFound => Ok(()),
            other => Err(other),
        },
        _ => Ok(()),
    }
}

fn request(family: u8, states: StateFlags, socket_id: SocketId) -> InetRequest {
    InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states,
        socket_id,
    }
}

fn send<T>(message: T, flags: u16) -> io::Result<netlink_sys::Socket>
where
    T: NetlinkSerializable + Into<NetlinkPayload<T>>,
{
    let mut socket = netlink_sys::Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, message.into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    // The kernel answers before the send returns.
    socket.set_non_blocking(true)?;
    Ok(socket)
}
