//! The sockets: datagrams in, nothing out.

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdSocket};
use std::rc::Rc;
use std::task::Poll;
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

/// Larger than any packet, so that a longer datagram is seen as longer.
pub const BUFFER: usize = 2048;

/// Bytes that may wait in a socket, as the kernel counts them: some thousand packets.
const WAITING: usize = 4 << 20;

/// Why the daemon cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {why}")]
pub struct CannotListen {
    address: SocketAddr,
    why: String,
}

/// All sockets that the configuration names.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<Rc<UdpSocket>>,
    next: usize,
}

impl Listener {
    /// Binds every address, or none. An IPv6 socket takes IPv6 alone, so that both
    /// families can have the same port.
    pub fn bind(addresses: &[SocketAddr]) -> Result<Self, CannotListen> {
        let sockets = addresses
            .iter()
            .map(|&a| socket(a))
            .collect::<Result<_, _>>()?;
        Ok(Self { sockets, next: 0 })
    }

    /// A listener for other addresses. Where an address stays its socket does too, with
    /// what waits in it; this one goes on where a new address cannot be bound.
    pub fn rebind(&self, old: &[SocketAddr], new: &[SocketAddr]) -> Result<Self, CannotListen> {
        let socket = |&address: &SocketAddr| {
            let kept = old.iter().position(|&a| a == address);
            let kept = kept.and_then(|at| self.sockets.get(at));
            kept.map_or_else(|| socket(address), |kept| Ok(Rc::clone(kept)))
        };
        let sockets = new.iter().map(socket).collect::<Result<_, _>>()?;
        Ok(Self { sockets, next: 0 })
    }

    /// The next datagram's length and source. The sockets take turns.
    pub async fn receive(&mut self, buffer: &mut [u8; BUFFER]) -> io::Result<(usize, IpAddr)> {
        poll_fn(|cx| {
            for turn in 0..self.sockets.len() {
                let at = (self.next + turn) % self.sockets.len();
                let mut buffer = ReadBuf::new(buffer);
                if let Poll::Ready(result) = self.sockets[at].poll_recv_from(cx, &mut buffer) {
                    self.next = at + 1;
                    return Poll::Ready(result.map(|from| (buffer.filled().len(), from.ip())));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// The next datagram's, if one has arrived already; never waits.
    pub fn receive_more(&mut self, buffer: &mut [u8; BUFFER]) -> Option<(usize, IpAddr)> {
        for turn in 0..self.sockets.len() {
            let at = (self.next + turn) % self.sockets.len();
            // An error comes again where it is waited for.
            if let Ok((length, from)) = self.sockets[at].try_recv_from(buffer) {
                self.next = at + 1;
                return Some((length, from.ip()));
            }
        }
        None
    }
}

fn socket(address: SocketAddr) -> Result<Rc<UdpSocket>, CannotListen> {
    bind(address).map(Rc::new).map_err(|error| CannotListen {
        address,
        why: match error.kind() {
            io::ErrorKind::AddrInUse => "the port is taken; \"ss -lunp\" shows by whom".into(),
            _ => error.to_string(),
        },
    })
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // What comes while the daemon is busy waits here. Beyond the machine's usual limit with
    // CAP_NET_ADMIN; where that fails the usual one must do.
    let _ = setsockopt(&socket, RcvBufForce, &WAITING);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(StdSocket::from(socket))
}
