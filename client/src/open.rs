//! Knock on every address, try the port on each, take the first that answers.

use crate::address::Signing;
use crate::knock::{Knocker, Sent};
use crate::schedule::{self, Step};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// What is asked, and of which addresses.
#[derive(Debug, Clone)]
pub struct Round {
    /// What is asked, with which keys.
    pub knocker: Knocker,
    /// The server's addresses.
    pub addresses: Vec<IpAddr>,
    /// The UDP port to knock on.
    pub port: u16,
    /// Which address is signed.
    pub signing: Signing,
}

/// Why the door counts as shut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shut {
    /// Every address that was knocked on refuses the port: the knock may well have been
    /// accepted, and nothing listens there.
    pub refused: bool,
    /// What is to be said about each address.
    pub troubles: Vec<String>,
}

/// One of the server's addresses.
struct Target {
    address: IpAddr,
    /// The last packet that could be sent to it.
    sent: Option<Sent>,
    trouble: Trouble,
}

/// What is known about an address that did not open; a later one tells more.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    Silent,
    Unsent(String),
    Failed(String),
    UdpRefused,
    TcpRefused,
}

impl Target {
    fn remember(&mut self, trouble: Trouble) {
        if trouble >= self.trouble {
            self.trouble = trouble;
        }
    }

    /// An ICMP error for the last packet, where its socket got one.
    fn notice_refusal(&mut self) {
        let error = self
            .sent
            .as_ref()
            .and_then(|s| s.socket.take_error().ok().flatten());
        if error.is_some_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
            self.remember(Trouble::UdpRefused);
        }
    }

    fn describe(&self, knock_port: u16, tcp_port: u16) -> String {
        let address = self.address;
        match &self.trouble {
            Trouble::Silent => format!("{address} is silent"),
            Trouble::Unsent(why) | Trouble::Failed(why) => format!("{address}: {why}"),
            Trouble::UdpRefused => {
                format!("{address} says that nothing listens on udp/{knock_port}")
            }
            Trouble::TcpRefused => format!(
                "{address} refuses tcp/{tcp_port} (nothing listens there, or something rejects)"
            ),
        }
    }
}

impl Round {
    /// Sends one packet to every address. Gives how many could be sent, and what is to
    /// be said about each of the others.
    #[must_use]
    pub fn knock_once(&self) -> (usize, Vec<String>) {
        let mut troubles = Vec::new();
        for &address in &self.addresses {
            if let Err(why) = self
                .knocker
                .knock((address, self.port).into(), self.signing)
            {
                troubles.push(format!("{address}: {why}"));
            }
        }
        (self.addresses.len() - troubles.len(), troubles)
    }

    /// Knocks, and tries `tcp_port` until a connection stands, or until `limit` after the
    /// first knock, or until the port has refused at every address through two knocks:
    /// another would change nothing. `on_fall_back` is called when the signed address did
    /// not open the door and the packet's source is tried instead.
    pub async fn open(
        &self,
        tcp_port: u16,
        limit: Duration,
        on_fall_back: impl Fn(),
    ) -> Result<TcpStream, Shut> {
        let targets = self.addresses.iter().map(|&address| Target {
            address,
            sent: None,
            trouble: Trouble::Silent,
        });
        let mut targets: Vec<Target> = targets.collect();
        let mut signing = self.signing;
        let mut attempts = JoinSet::new();
        let start = Instant::now();
        let steps = schedule::timeline(limit, signing == Signing::IfGlobal);
        let mut knocks = 0;
        for (at, step) in steps {
            if let Some(stream) = wait(&mut attempts, &mut targets, start + at).await {
                return Ok(stream);
            }
            if step != Step::Attempt {
                if knocks >= 2 && is_refused(&targets) {
                    return Err(self.shut(targets, tcp_port));
                }
                knocks += 1;
            }
            match step {
                Step::Knock => self.knock_all(&mut targets, signing),
                Step::FallBack => {
                    signing = Signing::Never;
                    let signed = |t: &Target| t.sent.as_ref().is_some_and(|s| s.signed.is_some());
                    if targets.iter().any(signed) {
                        on_fall_back();
                        self.knock_all(&mut targets, signing);
                    }
                }
                Step::Attempt => {
                    for (i, target) in targets.iter().enumerate() {
                        let Some(sent) = &target.sent else { continue };
                        let server = SocketAddr::new(target.address, tcp_port);
                        let attempt = timeout(schedule::ATTEMPT, connect(sent.local, server));
                        attempts.spawn(async move { (i, attempt.await) });
                    }
                }
            }
        }
        if let Some(stream) = wait(&mut attempts, &mut targets, start + limit).await {
            return Ok(stream);
        }
        Err(self.shut(targets, tcp_port))
    }

    fn shut(&self, mut targets: Vec<Target>, tcp_port: u16) -> Shut {
        targets.iter_mut().for_each(Target::notice_refusal);
        let troubles = targets.iter().map(|t| t.describe(self.port, tcp_port));
        Shut {
            refused: is_refused(&targets),
            troubles: troubles.collect(),
        }
    }

    fn knock_all(&self, targets: &mut [Target], signing: Signing) {
        for target in targets {
            target.notice_refusal();
            match self
                .knocker
                .knock((target.address, self.port).into(), signing)
            {
                Ok(sent) => target.sent = Some(sent),
                Err(why) => target.remember(Trouble::Unsent(why.to_string())),
            }
        }
    }
}

/// Whether every address that a packet could be sent to, and there is one, refuses.
fn is_refused(targets: &[Target]) -> bool {
    let mut knocked = targets.iter().filter(|t| t.sent.is_some()).peekable();
    knocked.peek().is_some() && knocked.all(|t| t.trouble == Trouble::TcpRefused)
}

type Attempt = (
    usize,
    Result<io::Result<TcpStream>, tokio::time::error::Elapsed>,
);

/// Waits until `until`, or until an attempt succeeds; failures are remembered.
async fn wait(
    attempts: &mut JoinSet<Attempt>,
    targets: &mut [Target],
    until: Instant,
) -> Option<TcpStream> {
    loop {
        tokio::select! {
            biased;
            Some(done) = attempts.join_next() => match done {
                Ok((_, Ok(Ok(stream)))) => return Some(stream),
                Ok((i, Ok(Err(why)))) => targets[i].remember(match why.kind() {
                    io::ErrorKind::ConnectionRefused => Trouble::TcpRefused,
                    // The system's own word for a SYN that met silence.
                    io::ErrorKind::TimedOut => Trouble::Silent,
                    _ => Trouble::Failed(why.to_string()),
                }),
                // Given up after hanging: silence, which is what is assumed anyway.
                Ok((_, Err(_))) => {}
                Err(why) => std::panic::resume_unwind(why.into_panic()),
            },
            () = sleep_until(until) => return None,
        }
    }
}

/// From the address that was signed, or that the packet came from; any other would not
/// be admitted.
async fn connect(mut local: SocketAddr, server: SocketAddr) -> io::Result<TcpStream> {
    let socket = if server.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // What ssh itself would do; through a relay its TCPKeepAlive has no socket to set.
    socket.set_keepalive(true)?;
    local.set_port(0);
    socket.bind(local)?;
    socket.connect(server).await
}
