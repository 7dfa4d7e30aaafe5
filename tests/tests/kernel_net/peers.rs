//! Hosts that talk: a server of echoes, and sessions with it.

use oneknock_tests::host::Host;
use oneknock_tests::wait;
use oneknockd::kernel::{
    BlockChange, BlockedSet, ConnectionId, GuardContext, GuardedPorts, KernelError,
};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// The services that these tests guard.
pub fn guarded(services: &[(&str, &str)]) -> GuardedPorts {
    let services = services.iter();
    let parsed = services.map(|(name, port)| (name.parse().unwrap(), vec![port.parse().unwrap()]));
    GuardedPorts::new(parsed.collect())
}

/// Sends back what comes to a TCP port of a host, for as long as the test goes on.
pub fn serve_tcp(host: &Host, port: u16) {
    let all = (Ipv6Addr::UNSPECIFIED, port);
    let listener = host.enter(|| TcpListener::bind(all).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream?;
                io::copy(&mut stream.try_clone()?, &mut stream)
            });
        }
    });
}

/// Sends back what comes to a UDP port of a host.
pub fn serve_udp(host: &Host, port: u16) {
    let socket = host.enter(|| UdpSocket::bind((host.v4, port)).unwrap());
    std::thread::spawn(move || {
        let mut bytes = [0; 100];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(&bytes[..length], from);
        }
    });
}

/// A session with such a server.
pub struct Session(TcpStream);

impl Session {
    /// One that has said something and heard it.
    pub fn open(host: &Host, to: impl Into<IpAddr>, port: u16) -> Self {
        let to = SocketAddr::new(to.into(), port);
        let stream = host.enter(|| TcpStream::connect_timeout(&to, wait::DEADLINE));
        let stream = stream.unwrap();
        stream.set_read_timeout(Some(wait::DEADLINE)).unwrap();
        let mut session = Self(stream);
        session.lives();
        session
    }

    /// It goes on.
    #[track_caller]
    pub fn lives(&mut self) {
        self.0.write_all(b"still there").unwrap();
        self.0.read_exact(&mut [0; 11]).unwrap();
    }

    /// Its other side has ended it.
    #[track_caller]
    pub fn was_reset(&mut self) {
        let end = self.0.read_to_end(&mut Vec::new()).map_err(|e| e.kind());
        assert!(
            matches!(end, Ok(_) | Err(ErrorKind::ConnectionReset)),
            "{end:?}"
        );
    }

    /// Nothing passes in it.
    #[track_caller]
    pub fn is_silent(&mut self) {
        let patience = Some(Duration::from_millis(700));
        self.0.set_read_timeout(patience).unwrap();
        self.0.write_all(b"still there").unwrap();
        let end = self.0.read(&mut [0; 11]).map_err(|e| e.kind());
        assert_eq!(end, Err(ErrorKind::WouldBlock));
        self.0.set_read_timeout(Some(wait::DEADLINE)).unwrap();
    }
}

/// A socket that sends each datagram from the same port.
pub fn udp_socket(host: &Host) -> UdpSocket {
    let socket = host.enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let patience = Some(Duration::from_millis(700));
    socket.set_read_timeout(patience).unwrap();
    socket
}

/// Whether a datagram is answered.
pub fn answers(socket: &UdpSocket, to: &Host, port: u16) -> bool {
    socket.send_to(b"x", (to.v4, port)).unwrap();
    socket.recv(&mut [0; 100]).is_ok()
}

/// Rules that make the kernel track connections, and drop those that are in two sets, in
/// the guard's place.
pub const BLOCKING_TABLE: &str = "table inet oneknock {
    set blocked4 { type ipv4_addr . inet_proto . inet_service . inet_service; flags timeout; }
    set blocked6 { type ipv6_addr . inet_proto . inet_service . inet_service; flags timeout; }
    chain guard {
        type filter hook prerouting priority -150;
        iifname lo accept
        ip saddr . meta l4proto . th sport . th dport @blocked4 counter drop
        ip6 saddr . meta l4proto . th sport . th dport @blocked6 counter drop
        ct state established accept
    }
}";

/// What is guarded, with nothing blocked yet.
pub fn guard<'g>(
    ports: &'g GuardedPorts,
    is_trusted: &'g dyn Fn(IpAddr) -> bool,
) -> GuardContext<'g> {
    const NONE: &BTreeSet<ConnectionId> = &BTreeSet::new();
    GuardContext {
        ports,
        is_trusted,
        blocked: NONE,
    }
}

/// Those sets, written by nft.
pub struct NftSet<'h>(pub &'h Host);

impl NftSet<'_> {
    fn write(&self, verb: &str, connection: &ConnectionId, time: &str) {
        let ConnectionId {
            transport,
            remote,
            remote_port,
            port,
        } = connection;
        let set = if remote.is_ipv6() {
            "blocked6"
        } else {
            "blocked4"
        };
        self.0.nft(&format!(
            "{verb} element inet oneknock {set} {{ {remote} . {transport} . {remote_port} . {port} {time} }}\n"
        ));
    }
}

impl BlockedSet for NftSet<'_> {
    fn change(&mut self, connections: &[BlockChange]) -> Result<(), KernelError> {
        for (connection, time) in connections {
            match time {
                Some(time) => {
                    self.write("add", connection, &format!("timeout {}s", time.as_secs()));
                }
                None => self.write("delete", connection, ""),
            }
        }
        Ok(())
    }
}
