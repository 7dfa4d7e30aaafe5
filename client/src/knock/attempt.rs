//! Knock on every address, try the port on each, take the first that answers.

use crate::knock::address::AddressBinding;
use crate::knock::packet::{KnockRequest, Sent};
use crate::knock::schedule::{self, Step};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// What is asked, and of which addresses.
#[derive(Debug, Clone)]
pub struct KnockPlan {
    /// What is asked, with which keys.
    pub knocker: KnockRequest,
    /// The server's addresses.
    pub addresses: Vec<IpAddr>,
    /// The UDP port to knock on.
    pub port: u16,
    /// Which address is signed.
    pub signing: AddressBinding,
}

/// Why the port counts as shut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenError {
    /// Every address that was knocked on refuses the port, and none the knock: it may
    /// well have been accepted, and nothing listens there.
    pub refused: bool,
    /// An address says that nothing takes knocks there.
    pub knock_refused: bool,
    /// Something on the way to an address says that it lets no knock through.
    pub knock_rejected: bool,
    /// What is to be said about each address.
    pub troubles: Vec<String>,
}

/// One of the server's addresses, and what is known about it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    address: IpAddr,
    /// The last packet that could be sent to it.
    sent: Option<Sent>,
    trouble: EndpointError,
    /// Whether the port refused since the last knock, and in the time before that one.
    refused: [bool; 2],
}

/// What is known about an address that did not open; a later one tells more.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum EndpointError {
    Silent,
    Unsent(String),
    Failed(String),
    TcpRefused,
    // A knock that does not get there, or that nothing takes, was not accepted.
    UdpRejected,
    UdpRefused,
}

impl Endpoint {
    /// Nothing is known yet.
    pub(crate) fn new(address: IpAddr) -> Self {
        Self {
            address,
            sent: None,
            trouble: EndpointError::Silent,
            refused: [false; 2],
        }
    }

    fn remember(&mut self, trouble: EndpointError) {
        if trouble >= self.trouble {
            self.trouble = trouble;
        }
    }

    /// What could not be sent to it, where something could not.
    pub(crate) fn unsent(&mut self, why: Option<String>) {
        if let Some(why) = why {
            self.remember(EndpointError::Unsent(why));
        }
    }

    /// A connection attempt ended without one.
    fn failed(&mut self, why: &io::Error) {
        let trouble = match why.kind() {
            io::ErrorKind::ConnectionRefused => EndpointError::TcpRefused,
            // The system's own word for a SYN that met silence.
            io::ErrorKind::TimedOut => EndpointError::Silent,
            _ => EndpointError::Failed(why.to_string()),
        };
        self.refused[0] |= trouble == EndpointError::TcpRefused;
        self.remember(trouble);
    }

    /// An ICMP error for the last packet, where its socket got one.
    fn notice_refusal(&mut self) {
        let error = self
            .sent
            .as_ref()
            .and_then(|s| s.socket.take_error().ok().flatten());
        let Some(error) = error else { return };
        self.remember(match error.kind() {
            io::ErrorKind::ConnectionRefused => EndpointError::UdpRefused,
            // As firewalls reject: "prohibited", over IPv4 and over IPv6.
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::PermissionDenied => EndpointError::UdpRejected,
            _ => EndpointError::Failed(error.to_string()),
        });
    }

    fn describe(&self, knock_port: u16, tcp_port: u16) -> String {
        let address = self.address;
        match &self.trouble {
            EndpointError::Silent => format!("{address} is silent"),
            EndpointError::Unsent(why) | EndpointError::Failed(why) => format!("{address}: {why}"),
            EndpointError::UdpRefused => {
                format!("{address} says that nothing listens on udp/{knock_port}")
            }
            EndpointError::UdpRejected => {
                format!("a firewall on the way to {address} rejects udp/{knock_port}")
            }
            EndpointError::TcpRefused => format!(
                "{address} refuses tcp/{tcp_port} (nothing listens there, or something rejects)"
            ),
        }
    }
}

impl KnockPlan {
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
    /// first knock, or until the port has refused at every address after each of two
    /// knocks: another would change nothing. `on_fall_back` is called when the signed
    /// address met silence and the packet's source is tried instead.
    pub async fn open(
        &self,
        tcp_port: u16,
        limit: Duration,
        on_fall_back: impl Fn(),
    ) -> Result<TcpStream, OpenError> {
        let mut targets: Vec<Endpoint> =
            self.addresses.iter().copied().map(Endpoint::new).collect();
        let mut signing = self.signing;
        let mut attempts = JoinSet::new();
        let start = Instant::now();
        let steps = schedule::timeline(limit, signing == AddressBinding::IfGlobal);
        for (at, step) in steps {
            if let Some(stream) = wait(&mut attempts, &mut targets, start + at).await {
                return Ok(stream);
            }
            if step != Step::Attempt && all_refuse(&mut targets, |t| t.refused == [true; 2]) {
                return Err(shut(targets, self.port, tcp_port));
            }
            match step {
                Step::Knock => self.knock_all(&mut targets, signing),
                Step::FallBack => {
                    let signed = |t: &Endpoint| t.sent.as_ref().is_some_and(|s| s.signed.is_some());
                    // One that refuses has let the signed address in.
                    if targets.iter().any(|t| signed(t) && !t.refused[0]) {
                        signing = AddressBinding::Never;
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
        Err(shut(targets, self.port, tcp_port))
    }

    fn knock_all(&self, targets: &mut [Endpoint], signing: AddressBinding) {
        for target in targets {
            target.notice_refusal();
            target.refused = [false, target.refused[0]];
            match self
                .knocker
                .knock((target.address, self.port).into(), signing)
            {
                Ok(sent) => target.sent = Some(sent),
                Err(why) => target.remember(EndpointError::Unsent(why.to_string())),
            }
        }
    }
}

/// What is to be said of addresses that did not open; a sequence has no port to knock on.
pub(crate) fn shut(mut targets: Vec<Endpoint>, knock_port: u16, tcp_port: u16) -> OpenError {
    let refused = all_refuse(&mut targets, |t| t.refused.contains(&true));
    let troubles = targets.iter().map(|t| t.describe(knock_port, tcp_port));
    let any_is = |trouble| targets.iter().any(|t| t.trouble == trouble);
    OpenError {
        refused,
        knock_refused: any_is(EndpointError::UdpRefused),
        knock_rejected: any_is(EndpointError::UdpRejected),
        troubles: troubles.collect(),
    }
}

/// Whether the port, and not the knock, is refused `often` enough by every address that a
/// packet could be sent to, and there is one.
fn all_refuse(targets: &mut [Endpoint], often: fn(&Endpoint) -> bool) -> bool {
    targets.iter_mut().for_each(Endpoint::notice_refusal);
    let mut knocked = targets.iter().filter(|t| t.sent.is_some()).peekable();
    knocked.peek().is_some() && knocked.all(|t| t.trouble == EndpointError::TcpRefused && often(t))
}

pub(crate) type Attempt = (
    usize,
    Result<io::Result<TcpStream>, tokio::time::error::Elapsed>,
);

/// Waits until `until`, or until an attempt succeeds; failures are remembered.
pub(crate) async fn wait(
    attempts: &mut JoinSet<Attempt>,
    targets: &mut [Endpoint],
    until: Instant,
) -> Option<TcpStream> {
    loop {
        tokio::select! {
            biased;
            Some(done) = attempts.join_next() => match done {
                Ok((_, Ok(Ok(stream)))) => return Some(stream),
                Ok((i, Ok(Err(why)))) => targets[i].failed(&why),
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
pub(crate) async fn connect(mut local: SocketAddr, server: SocketAddr) -> io::Result<TcpStream> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, UdpSocket};

    fn unreached() -> Endpoint {
        Endpoint::new(Ipv4Addr::LOCALHOST.into())
    }

    fn knocked() -> Endpoint {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let local = socket.local_addr().unwrap();
        let mut target = unreached();
        target.sent = Some(Sent {
            socket,
            local,
            signed: None,
        });
        target
    }

    /// One that refused in these of its two looks.
    fn refusing(looks: [bool; 2]) -> Endpoint {
        let mut target = knocked();
        target.failed(&io::ErrorKind::ConnectionRefused.into());
        target.refused = looks;
        target
    }

    fn is_settled(mut targets: Vec<Endpoint>) -> bool {
        all_refuse(&mut targets, |t| t.refused == [true; 2])
    }

    #[test]
    fn the_port_has_to_refuse_after_each_of_two_knocks() {
        assert!(is_settled(vec![refusing([true; 2])]));
        assert!(!is_settled(vec![refusing([true, false])]));
        // It refused once, and is silent since.
        assert!(!is_settled(vec![refusing([false, true])]));
    }

    #[test]
    fn every_address_that_was_knocked_on_has_to_refuse() {
        assert!(is_settled(vec![refusing([true; 2]), unreached()]));
        assert!(!is_settled(vec![refusing([true; 2]), knocked()]));
        assert!(!is_settled(vec![unreached()]));
    }

    #[test]
    fn where_the_knock_is_refused_too_it_was_not_accepted() {
        let mut target = refusing([true; 2]);
        target.remember(EndpointError::UdpRefused);
        target.failed(&io::ErrorKind::ConnectionRefused.into());
        let text = target.describe(45123, 22);
        assert!(text.contains("nothing listens on udp/45123"), "{text}");
        assert!(!is_settled(vec![target]));
    }
}
