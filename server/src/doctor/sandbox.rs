//! A network namespace with this machine's addresses and the name of its interface, and another
//! that is the rest of the world. Both are removed when this is dropped.

use crate::program;
use nix::sched::{CloneFlags, setns};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a packet may take from one to the other.
const PATIENCE: Duration = Duration::from_millis(400);
/// It is tried this often before it counts as blocked.
const TRIES: u32 = 3;

/// A namespace, and what holds it.
struct Namespace(Child);

impl Namespace {
    fn new() -> io::Result<Self> {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo on && read end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = holder.stdout.take();
        let namespace = Self(holder);
        let line = out.map(|out| program::first_line(out, program::ANSWER));
        if line.transpose()?.is_some_and(|line| line == "on\n") {
            Ok(namespace)
        } else {
            Err(io::Error::other("unshare made no network namespace"))
        }
    }

    /// Runs a program in it.
    fn run(&self, args: &[&str], input: &[u8]) -> io::Result<()> {
        let mut enter = Command::new("nsenter");
        enter.args(["--net", "--target", &self.0.id().to_string()]);
        let output = program::output(enter.args(args), input, program::RULESET)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said: Vec<&str> = said.split_whitespace().collect();
        Err(io::Error::other(format!(
            "{}: {}",
            args.join(" "),
            said.join(" ")
        )))
    }

    /// Runs something on a thread in it; sockets that it makes stay there.
    fn enter<T: Send>(&self, what: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let namespace = File::open(format!("/proc/{}/ns/net", self.0.id()))?;
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&namespace, CloneFlags::CLONE_NEWNET)?;
                what()
            });
            let done = inside.join();
            done.unwrap_or_else(|_| Err(io::Error::other("a thread in a namespace failed")))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Either fails only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Both.
pub struct Sandbox {
    machine: Namespace,
    world: Namespace,
}

/// Two addresses of one family: the machine's, and one far away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressPair {
    /// The interface between the two, as the machine names it.
    pub interface: String,
    /// The machine's own.
    pub own: IpAddr,
    /// The one far away.
    pub other: IpAddr,
}

impl Sandbox {
    /// Makes it, with the names of the machine's interfaces.
    pub fn new(pairs: &[AddressPair]) -> io::Result<Self> {
        let sandbox = Self {
            machine: Namespace::new()?,
            world: Namespace::new()?,
        };
        let world = sandbox.world.0.id();
        let mut here = "link set lo up\n".to_owned();
        let mut there = here.clone();
        let interfaces = pairs.iter().map(|pair| pair.interface.as_str());
        let interfaces: BTreeSet<&str> = interfaces.collect();
        for link in interfaces {
            here.extend([
                format!("link add {link} type veth peer name {link} netns {world}\n"),
                format!("link set {link} up\n"),
            ]);
            there.extend([format!("link set {link} up\n")]);
        }
        for AddressPair {
            interface: link,
            own,
            other,
        } in pairs
        {
            let (bits, nodad) = if own.is_ipv4() {
                (32, "")
            } else {
                (128, " nodad")
            };
            for (batch, address, far) in [(&mut here, own, other), (&mut there, other, own)] {
                batch.extend([
                    format!("addr add {address}/{bits} dev {link}{nodad}\n"),
                    format!("route add {far}/{bits} dev {link}\n"),
                ]);
            }
        }
        sandbox
            .machine
            .run(&["ip", "-batch", "-"], here.as_bytes())?;
        sandbox
            .world
            .run(&["ip", "-batch", "-"], there.as_bytes())?;
        Ok(sandbox)
    }

    /// Runs a program on the machine's side.
    pub fn run(&self, args: &[&str], input: &[u8]) -> io::Result<()> {
        self.machine.run(args, input)
    }

    /// Whether a datagram from the world arrives at a port.
    pub fn datagram_arrives(&self, pair: &AddressPair, port: u16) -> io::Result<bool> {
        let to = SocketAddr::new(pair.own, port);
        let socket = self.machine.enter(|| UdpSocket::bind(to))?;
        socket.set_read_timeout(Some(PATIENCE / 4))?;
        let sender = self.world.enter(|| UdpSocket::bind((pair.other, 0)))?;
        let start = Instant::now();
        // The first ones may be lost while the two still look for each other.
        while start.elapsed() < PATIENCE * TRIES {
            // A refusal by ICMP comes back as an error of the next.
            let _ = sender.send_to(b"doctor", to);
            if socket.recv(&mut [0; 16]).is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a connection from the world is accepted at a port.
    pub fn connection_stands(&self, pair: &AddressPair, port: u16) -> io::Result<bool> {
        let to = SocketAddr::new(pair.own, port);
        let _listener = self.machine.enter(|| TcpListener::bind(to))?;
        let connects = || TcpStream::connect_timeout(&to, PATIENCE).is_ok();
        // A busy machine may miss one; and TCP's own second SYN would come too late.
        self.world.enter(|| Ok((0..TRIES).any(|_| connects())))
    }
}
