//! The sockets: datagrams in, nothing out.

use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, setsockopt};
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket as StdSocket};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::task::Poll;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// So many datagrams are taken from a socket at once. One that is alone does not wait for
/// others.
pub const AT_ONCE: usize = 64;

/// Larger than any packet, so that a longer datagram is seen as longer.
const BUFFER: usize = 128;

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
    sockets: Vec<Rc<Socket>>,
    next: usize,
}

#[derive(Debug)]
struct Socket {
    udp: UdpSocket,
    is_ipv6: bool,
}

/// The datagrams that have been received together.
pub struct Received {
    buffers: Box<[[u8; BUFFER]; AT_ONCE]>,
    /// For IPv4 and for IPv6: the room for an address is as long, from then on, as the last
    /// address that was in it.
    headers: [MultiHeaders<SockaddrStorage>; 2],
    found: Vec<(usize, IpAddr)>,
}

impl Received {
    /// Room for them.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buffers: Box::new([[0; BUFFER]; AT_ONCE]),
            headers: [(); 2].map(|()| MultiHeaders::preallocate(AT_ONCE, None)),
            found: Vec::with_capacity(AT_ONCE),
        }
    }

    /// Each with where it came from, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &[u8])> {
        let all = self.found.iter().zip(&*self.buffers);
        all.map(|(&(length, source), buffer)| (source, &buffer[..length.min(BUFFER)]))
    }

    /// Takes what waits in the socket.
    fn take(&mut self, socket: &Socket) -> io::Result<()> {
        self.found.clear();
        let mut slices = self.buffers.each_mut().map(|b| [IoSliceMut::new(b)]);
        let headers = &mut self.headers[usize::from(socket.is_ipv6)];
        let (fd, now) = (socket.udp.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        for one in recvmmsg(fd, headers, &mut slices, now, None)? {
            let source = one.address.and_then(|a| ip(&a, socket.is_ipv6));
            let source = source.ok_or_else(|| io::Error::other("a datagram without a source"))?;
            self.found.push((one.bytes, source));
        }
        Ok(())
    }
}

impl Default for Received {
    fn default() -> Self {
        Self::new()
    }
}

fn ip(address: &SockaddrStorage, is_ipv6: bool) -> Option<IpAddr> {
    if is_ipv6 {
        address.as_sockaddr_in6().map(|v6| v6.ip().into())
    } else {
        address.as_sockaddr_in().map(|v4| v4.ip().into())
    }
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

    /// Waits for datagrams and takes what one socket has. The sockets take turns.
    pub async fn receive(&mut self, received: &mut Received) -> io::Result<()> {
        poll_fn(|cx| {
            for turn in 0..self.sockets.len() {
                let at = (self.next + turn) % self.sockets.len();
                let socket = &self.sockets[at];
                while let Poll::Ready(ready) = socket.udp.poll_recv_ready(cx) {
                    let take = || received.take(socket);
                    let taken = ready.and_then(|()| socket.udp.try_io(Interest::READABLE, take));
                    // Another look at the socket says when it is ready again.
                    if !matches!(&taken, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                        self.next = at + 1;
                        return Poll::Ready(taken);
                    }
                }
            }
            Poll::Pending
        })
        .await
    }
}

fn socket(address: SocketAddr) -> Result<Rc<Socket>, CannotListen> {
    let is_ipv6 = address.is_ipv6();
    let bound = bind(address).map(|udp| Rc::new(Socket { udp, is_ipv6 }));
    bound.map_err(|error| CannotListen {
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
    // An address may come later, or again: a start before the network must not fail.
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    // What comes while the daemon is busy waits here. Beyond the machine's usual limit with
    // CAP_NET_ADMIN; where that fails the usual one must do.
    let _ = setsockopt(&socket, RcvBufForce, &WAITING);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(StdSocket::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Receives until so many have come, each as its source and its bytes' number.
    async fn all(listener: &mut Listener, count: usize) -> Vec<(IpAddr, usize)> {
        let (mut received, mut all) = (Received::new(), Vec::new());
        while all.len() < count {
            let one = listener.receive(&mut received);
            let one = tokio::time::timeout(Duration::from_secs(10), one).await;
            one.expect("nothing came").unwrap();
            all.extend(received.iter().map(|(from, bytes)| (from, bytes.len())));
        }
        all
    }

    #[tokio::test(flavor = "current_thread")]
    async fn each_datagram_has_its_own_source_and_length_whatever_came_before() {
        let any = ["127.0.0.1:0", "[::1]:0"].map(|a| a.parse().unwrap());
        let mut listener = Listener::bind(&any).unwrap();
        let to = [0, 1].map(|at| listener.sockets[at].udp.local_addr().unwrap());
        let from = ["127.0.0.2:0", "127.0.0.1:0"].map(|a| StdSocket::bind(a).unwrap());
        let from_ipv6 = StdSocket::bind("[::1]:0").unwrap();
        for round in 0..4 {
            let mut want = Vec::new();
            for size in [0, 112, 113, 128, 2000] {
                let socket = &from[(size + round) % 2];
                socket.send_to(&vec![1; size], to[0]).unwrap();
                from_ipv6.send_to(&vec![1; size], to[1]).unwrap();
                let source = socket.local_addr().unwrap().ip();
                let ipv6 = from_ipv6.local_addr().unwrap().ip();
                want.extend([(source, size.min(BUFFER)), (ipv6, size.min(BUFFER))]);
            }
            let mut found = all(&mut listener, want.len()).await;
            found.sort_unstable();
            want.sort_unstable();
            assert_eq!(found, want);
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn more_than_go_at_once_come_in_their_order() {
        let mut listener = Listener::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let to = listener.sockets[0].udp.local_addr().unwrap();
        let from = StdSocket::bind("127.0.0.1:0").unwrap();
        for number in 0..AT_ONCE + 5 {
            from.send_to(&vec![0; number % 100], to).unwrap();
        }
        let found = all(&mut listener, AT_ONCE + 5).await;
        let lengths = found.into_iter().map(|(_, length)| length);
        assert!(lengths.eq((0..AT_ONCE + 5).map(|number| number % 100)));
    }
}
