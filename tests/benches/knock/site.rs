//! What is measured: a server with its daemon, and a host beside it that knocks.

use nix::sys::signal::Signal;
use oneknock_shared::knock::Knock;
use oneknock_shared::packet;
use oneknock_shared::secret::{Subkeys, random};
use oneknock_tests::packets::{self, Sender, UDP};
use oneknock_tests::site::PORT;
use oneknock_tests::wire::{self, Key};
use oneknock_tests::{Binaries, Host, Running, Site};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::time::{Duration, Instant};

pub struct Measured {
    pub site: Site,
    /// On the server's own wire, with addresses of its own to knock and connect from.
    pub near: Host,
    pub daemon: Option<Running>,
    pub key: Key,
}

/// The port of the service `bulk`, where nothing listens that is not measured.
pub const BULK: u16 = 4444;

/// So many addresses that a connection can be made from has the host beside the server.
pub const OWN: u32 = 64;

pub fn own(number: usize) -> Ipv4Addr {
    let number = u32::try_from(number).unwrap() % OWN;
    Ipv4Addr::from(u32::from(Ipv4Addr::new(192, 0, 2, 100)) + number)
}

/// An address that nobody has, another for each number below 16 million.
pub fn other(number: usize) -> IpAddr {
    let number = u32::try_from(number).unwrap();
    Ipv4Addr::from(u32::from(Ipv4Addr::new(20, 0, 0, 0)) + number).into()
}

/// The same of the other family.
pub fn other_ipv6(number: usize) -> IpAddr {
    let first = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0);
    Ipv6Addr::from(u128::from(first) + number as u128).into()
}

impl Measured {
    /// A server with so many keys, of which one is without limits to speak of.
    pub fn new(binaries: Binaries, keys: usize) -> Self {
        let site = Site::with_services(binaries, &["ssh=tcp/22", "bulk=tcp/4444"]);
        let near = site.lab.neighbour();
        let addresses = (0..usize::try_from(OWN).unwrap()).map(own);
        let lines = addresses.map(|a| format!("addr add {a}/24 dev eth0\n"));
        near.ip_batch(&lines.collect::<String>());
        let key = site.key("laptop", &["ssh", "bulk"]);
        let file = site.key_file("laptop");
        site.set(&file, "max_grants", "1000000");
        site.set(&file, "knocks_per_minute", "10000000");
        site.set(&site.config(), "skew", "\"10min\"");
        let text = fs::read_to_string(&file).unwrap();
        for number in 1..keys {
            let secret = oneknock_shared::secret::Secret::generate().unwrap();
            let old = key.invitation.secret.to_base64();
            let other = text.replace(&*old, &secret.to_base64());
            let path = site.key_file(&format!("key{number}"));
            fs::copy(&file, &path).unwrap();
            fs::write(&path, other).unwrap();
        }
        Self {
            site,
            near,
            daemon: None,
            key,
        }
    }

    /// Starts the daemon, anew where it runs; gives how long until it was ready.
    pub fn start(&mut self) -> Duration {
        if let Some(mut running) = self.daemon.take() {
            running.signal(Signal::SIGTERM);
            running.end();
        }
        let begun = Instant::now();
        self.daemon = Some(self.site.daemon());
        begun.elapsed()
    }

    pub fn server(&self) -> Ipv4Addr {
        self.site.lab.server.v4
    }

    pub fn ssh(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.server(), 22)
    }

    pub fn subkeys(&self) -> Subkeys {
        let invitation = &self.key.invitation;
        Subkeys::derive(&invitation.secret, &invitation.server_id)
    }

    /// A whole IP packet with a knock of the key's for its own source.
    pub fn knock(&self, keys: &Subkeys, from: IpAddr, seconds: u16) -> Vec<u8> {
        self.knock_for("ssh", keys, from, seconds)
    }

    /// As [`Measured::knock`], for a service.
    pub fn knock_for(&self, service: &str, keys: &Subkeys, from: IpAddr, seconds: u16) -> Vec<u8> {
        let knock: Knock = wire::open(Some(service), seconds);
        let packet = packet::seal(keys, &knock, random().unwrap());
        self.datagram(from, &packet)
    }

    /// A whole IP packet to the knock port.
    pub fn datagram(&self, from: IpAddr, bytes: &[u8]) -> Vec<u8> {
        let to = self.server_for(from);
        packets::whole(
            from,
            to,
            UDP,
            &packets::udp((from, 4000), (to, PORT), bytes),
        )
    }

    /// The server's address of that one's family.
    fn server_for(&self, from: IpAddr) -> IpAddr {
        let host = &self.site.lab.server;
        if from.is_ipv4() {
            host.v4.into()
        } else {
            host.v6.into()
        }
    }

    /// A sender of whole packets beside the server; to be used inside that host's thread.
    pub fn sender(&self) -> Sender {
        self.sender_for(self.server().into())
    }

    /// The same, of packets from addresses of that one's family.
    pub fn sender_for(&self, from: IpAddr) -> Sender {
        Sender::to(self.server_for(from))
    }

    fn schedstat(&self) -> Duration {
        let pid = self.daemon.as_ref().unwrap().pid();
        // Of every thread: nanoseconds on a processor.
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let one = |task: std::io::Result<fs::DirEntry>| -> Option<u64> {
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse().ok()
        };
        Duration::from_nanos(tasks.filter_map(one).sum())
    }

    /// What of a processor the daemon uses while `what` runs: time used, time passed.
    pub fn processor<T>(&self, what: impl FnOnce() -> T) -> (Duration, Duration, T) {
        let (used, begun) = (self.schedstat(), Instant::now());
        let done = what();
        (self.schedstat().saturating_sub(used), begun.elapsed(), done)
    }

    pub fn status(&self) -> serde_json::Value {
        oneknock_tests::control::status(&self.site)
    }
}
