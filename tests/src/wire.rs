//! Knocks as nobody's client would send them, plain datagrams, and probes of a port.

use crate::host::Host;
use crate::process::Running;
use crate::wait;
use oneknock_shared::invitation::Invitation;
use oneknock_shared::knock::{Action, Knock, Timestamp};
use oneknock_shared::packet::{self, LEN};
use oneknock_shared::secret::{Subkeys, random};
use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A key as its holder knows it.
#[derive(Debug)]
pub struct Key {
    /// The invitation's line.
    pub line: String,
    /// What it says.
    pub invitation: Invitation,
}

/// Now, in milliseconds since the Unix epoch.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// A knock made now, for the sender's own address.
pub fn open(service: Option<&str>, seconds: u16) -> Knock {
    Knock {
        action: Action::Open { seconds },
        timestamp: Timestamp(now()),
        address: None,
        service: service.map(|s| s.parse().unwrap()),
    }
}

/// A close made now, for the sender's own address.
pub fn close(service: Option<&str>) -> Knock {
    Knock {
        action: Action::Close,
        ..open(service, 0)
    }
}

impl Key {
    /// Seals a knock: each call makes another packet.
    pub fn seal(&self, knock: &Knock) -> [u8; LEN] {
        let keys = Subkeys::derive(&self.invitation.secret, &self.invitation.server_id);
        packet::seal(&keys, knock, random().unwrap())
    }

    /// Seals a knock and sends it from `host` to the server's address; gives the packet.
    pub fn knock(&self, host: &Host, server: IpAddr, knock: &Knock) -> [u8; LEN] {
        let bytes = self.seal(knock);
        send(host, (server, self.invitation.port).into(), &bytes);
        bytes
    }

    /// Knocks for ssh from `host`, and waits until the daemon has granted it.
    pub fn opens(&self, daemon: &mut Running, host: &Host, server: IpAddr) {
        self.knock(host, server, &open(Some("ssh"), 600));
        let name = &self.invitation.key;
        daemon.expect(&format!("granted address={} key={name}", host.v4));
    }
}

fn unspecified(like: SocketAddr) -> SocketAddr {
    let address: IpAddr = if like.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    (address, 0).into()
}

/// Sends one datagram; broadcast is allowed.
pub fn send(host: &Host, to: SocketAddr, bytes: &[u8]) {
    let sent = host.enter(|| {
        let socket = UdpSocket::bind(unspecified(to))?;
        socket.set_broadcast(true)?;
        socket.send_to(bytes, to)
    });
    assert_eq!(sent.unwrap(), bytes.len());
}

/// How a port looks to one who tries to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// The connection was accepted.
    Open,
    /// Nothing came back.
    Silent,
    /// Something said no: a RST, or an ICMP error.
    Refused,
}

/// Tries once to connect, for less time than TCP waits before it tries again.
pub fn probe(host: &Host, to: IpAddr, port: u16) -> Probe {
    let to = SocketAddr::new(to, port);
    let tried = host.enter(|| TcpStream::connect_timeout(&to, Duration::from_millis(700)));
    match tried.map_err(|e| e.kind()) {
        Ok(_) => Probe::Open,
        Err(ErrorKind::TimedOut) => Probe::Silent,
        Err(_) => Probe::Refused,
    }
}

/// Waits until the port can be connected to.
pub fn until_open(host: &Host, to: IpAddr, port: u16) {
    let what = format!("{} reaches {to} port {port}", host.namespace());
    wait::until_true(&what, || probe(host, to, port) == Probe::Open);
}

/// Waits until the port is silent.
pub fn until_silent(host: &Host, to: IpAddr, port: u16) {
    let what = format!("{to} port {port} is shut for {}", host.namespace());
    wait::until_true(&what, || probe(host, to, port) == Probe::Silent);
}

/// Connects, and reads the first bytes that the service says: sshd's banner.
pub fn banner(host: &Host, to: IpAddr, port: u16) -> String {
    let to = SocketAddr::new(to, port);
    host.enter(|| {
        let mut stream = TcpStream::connect_timeout(&to, wait::DEADLINE).unwrap();
        stream.set_read_timeout(Some(wait::DEADLINE)).unwrap();
        let mut bytes = [0; 8];
        stream.read_exact(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A UDP service that tells what it receives, and answers nothing.
#[derive(Debug)]
pub struct Listener {
    socket: UdpSocket,
}

impl Listener {
    /// Listens on every address of `host`, and in the IPv4 group if there is one (the
    /// IPv6 group of all nodes has every host in it).
    pub fn start(host: &Host, port: u16, ipv6: bool, group: Option<Ipv4Addr>) -> Self {
        let socket = host.enter(|| {
            let any: IpAddr = if ipv6 {
                Ipv6Addr::UNSPECIFIED.into()
            } else {
                Ipv4Addr::UNSPECIFIED.into()
            };
            // A process that is being started beside us may hold a former socket of ours
            // for a moment, until it becomes its program.
            let socket = wait::until("a free port", || UdpSocket::bind((any, port)).ok());
            if let Some(group) = group {
                socket.join_multicast_v4(&group, &host.v4).unwrap();
            }
            socket
        });
        socket.set_nonblocking(true).unwrap();
        Self { socket }
    }

    /// Listens at one address of `host`.
    pub fn start_at(host: &Host, address: SocketAddr) -> Self {
        let socket = host.enter(|| UdpSocket::bind(address)).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket }
    }

    /// All that has come since the last call.
    pub fn received(&self) -> Vec<String> {
        let mut bytes = [0; 2048];
        let mut all = Vec::new();
        while let Ok((length, _)) = self.socket.recv_from(&mut bytes) {
            all.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
        }
        all
    }
}

/// Waits until what was sent to the UDP port of `host` is read from its sockets, and
/// gives how many datagrams they have had to drop so far.
pub fn until_read(host: &Host, port: u16) -> u64 {
    let what = format!("udp/{port} of {} is read", host.namespace());
    wait::until(&what, || {
        let sockets = host.enter(|| {
            let read = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
            [read("udp").unwrap(), read("udp6").unwrap()].concat()
        });
        let port = format!(":{port:04X}");
        // Number, local, remote, state, tx:rx queues in hexadecimal, …, drops.
        let sockets = sockets
            .lines()
            .map(|line| line.split_whitespace().collect());
        let ours = sockets.filter(|s: &Vec<&str>| s.get(1).is_some_and(|s| s.ends_with(&port)));
        let mut dropped = 0;
        for socket in ours {
            if !socket[4].ends_with(":00000000") {
                return None;
            }
            dropped += socket.last()?.parse::<u64>().unwrap();
        }
        Some(dropped)
    })
}
