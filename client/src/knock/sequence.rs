//! The port sequence: the first packets of connections to some ports, in order. What a
//! knocking server of any kind watches for; against this project's own it is the fallback.

use crate::knock::drive::{self, Report, Target};
use crate::knock::engine::{EndpointOutcome, Goal, Outcome};
use crate::knock::memory::Memory;
use crate::knock::packet;
use crate::knock::plan::{KnockPlan, unspecified};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::port::{Ports, Transport};
use oneknock_shared::rolling;
use oneknock_shared::secret::Subkeys;
use oneknock_shared::selector::Slot;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;
use tokio::net::{TcpSocket, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

/// How long after each step the next one follows where nobody says: longer than packets
/// overtake each other, and short enough for a person.
pub const DELAY: Duration = Duration::from_millis(100);
/// How often each step is sent where the server takes that for one, as ours does: where
/// all of them are lost, the next step is a misstep.
pub const COPIES: u32 = 3;
/// A second walk completes what the first one began, as long as its steps last, which is
/// five seconds at least. A third would only renew a penalty.
const WALKS: u32 = 2;

/// How long the packet has before the sequence is sent, of all the time that there is: two
/// fifths, and no longer than [`BEFORE_WALK`].
#[must_use]
pub fn before_walk(timeout: Duration) -> Duration {
    (timeout * 2 / 5).min(BEFORE_WALK)
}

/// Three knocks and their attempts: where these are in vain, more hardly help.
const BEFORE_WALK: Duration = Duration::from_secs(4);
/// How long after a sequence the port is tried before it is sent again.
const AFTER_WALK: Duration = Duration::from_millis(1500);

/// By which way a port is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Via {
    /// By a packet; where that is in vain and the profile has a sequence, by that.
    #[default]
    Auto,
    /// By a packet alone.
    Packet,
    /// By the sequence alone.
    Sequence,
}

impl Via {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Packet => "packet",
            Self::Sequence => "sequence",
        }
    }
}

impl FromStr for Via {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Auto, Self::Packet, Self::Sequence];
        let found = all.into_iter().find(|via| via.as_str() == text);
        found.ok_or("write auto, packet or sequence")
    }
}

/// A step as the command line has it: `7000`, `7000/tcp` or `8000/udp`.
pub fn read_step(text: &str) -> Result<Ports, String> {
    let (port, transport) = text.split_once('/').unwrap_or((text, "tcp"));
    let step = format!("{transport}/{port}").parse::<Ports>().ok();
    step.filter(|step| step.first() == step.last())
        .ok_or_else(|| "write it as 7000, or 8000/udp, ports 1 to 65535".into())
}

/// What the steps are.
#[derive(Debug, Clone)]
pub enum Steps {
    /// The first port of each of these.
    Fixed(Vec<Ports>),
    /// Those of these keys, in the minute in which they are walked.
    Rolling(Box<Subkeys>),
}

impl Steps {
    /// Whether they are others in the next minute.
    #[must_use]
    pub fn is_rolling(&self) -> bool {
        matches!(self, Self::Rolling(_))
    }

    /// The steps at this time.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> Vec<Ports> {
        match self {
            Self::Fixed(steps) => steps.clone(),
            Self::Rolling(keys) => rolling::steps(keys, Slot::of(now)),
        }
    }
}

/// A sequence, and where to walk it.
#[derive(Debug, Clone)]
pub struct Walk {
    /// The server's addresses; each sees the whole sequence.
    pub addresses: Vec<IpAddr>,
    /// The local address; `None` leaves it to the system.
    pub from: Option<IpAddr>,
    /// The steps.
    pub steps: Steps,
    /// How long each step takes.
    pub delay: Duration,
    /// How often each is sent, within its time.
    pub copies: u32,
}

impl Walk {
    /// Sends the steps, as they are now, to every address, in order. Gives for each address
    /// what kept a step from being sent, where something did: then those after it were not.
    pub async fn walk(&self) -> Vec<(IpAddr, Option<String>)> {
        let steps = match packet::now() {
            Ok(now) => self.steps.at(now),
            Err(why) => {
                let each = self.addresses.iter();
                return each.map(|to| (*to, Some(why.to_string()))).collect();
            }
        };
        let mut walks = JoinSet::new();
        for &address in &self.addresses {
            let (walk, steps) = (self.clone(), steps.clone());
            walks.spawn(async move { (address, walk.to(address, &steps).await.err()) });
        }
        let mut done = walks.join_all().await;
        // In the order in which the name service gave them.
        done.sort_by_key(|(a, _)| self.addresses.iter().position(|b| a == b));
        done.into_iter()
            .map(|(address, error)| (address, error.map(|e| e.to_string())))
            .collect()
    }

    async fn to(&self, address: IpAddr, steps: &[Ports]) -> io::Result<()> {
        let start = Instant::now();
        for (step, number) in steps.iter().zip(0..) {
            let mut sent = Ok(());
            for copy in 0..self.copies {
                let each = self.delay / self.copies;
                let end = start + self.delay * number + each * (copy + 1);
                // One of them is enough.
                let one = self.step(address, *step, end).await;
                sent = if copy == 0 { one } else { sent.or(one) };
                sleep_until(end).await;
            }
            sent?;
        }
        Ok(())
    }

    /// One packet. A TCP connection that is not made until then is given up, so that its
    /// SYN does not come again in the middle of later steps. It fails where the packet was
    /// not sent.
    async fn step(&self, address: IpAddr, step: Ports, end: Instant) -> io::Result<()> {
        let server = SocketAddr::new(address, step.first());
        let local = SocketAddr::new(self.from.unwrap_or_else(|| unspecified(address)), 0);
        let socket = UdpSocket::bind(local).await?;
        match step.transport() {
            Transport::Udp => socket.send_to(&[], server).await.map(drop),
            Transport::Tcp => {
                // Sends nothing: it fails where there is no way there. Whatever else a
                // connection ends with is an answer: of the port, of the host, which may
                // reject in any way, or of a router.
                socket.connect(server).await?;
                drop(timeout_at(end, tcp(local)?.connect(server)).await);
                Ok(())
            }
        }
    }

    /// Sends the steps and tries the port until its service has shown itself, or until
    /// `limit` is over.
    pub async fn open(
        &self,
        plan: &KnockPlan,
        target: Target,
        limit: Duration,
        memory: &Memory,
    ) -> Report {
        let end = Instant::now() + limit;
        let target = Target {
            goal: Goal::ConnectionWithoutKnock,
            ..target
        };
        let mut walk = 1;
        loop {
            let walked = self.walk().await;
            let left = end.saturating_duration_since(Instant::now());
            let is_last = walk == WALKS;
            let limit = if is_last {
                left.max(AFTER_WALK)
            } else {
                AFTER_WALK
            };
            let mut report = drive::run(plan, target, limit, memory).await;
            for (address, why) in walked {
                let mut all = report.endpoints.iter_mut();
                let endpoint = all.find(|(to, _)| *to == address);
                if let (Some((_, outcome @ EndpointOutcome::Silent)), Some(why)) = (endpoint, why) {
                    *outcome = EndpointOutcome::NotSent(why);
                }
            }
            if is_last || report.outcome != Outcome::NoAnswer {
                return report;
            }
            walk += 1;
        }
    }
}

fn tcp(local: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if local.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.bind(local)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oneknock_shared::secret::{Secret, ServerId};

    #[test]
    fn the_steps_of_a_rolling_sequence_are_those_of_the_minute_in_which_it_is_walked() {
        let keys = Subkeys::derive(&Secret::generate().unwrap(), &ServerId::generate().unwrap());
        let rolling = Steps::Rolling(Box::new(keys.clone()));
        for (ms, slot) in [(0, 0), (59_999, 0), (60_000, 1), (3_600_000, 60)] {
            assert_eq!(rolling.at(Timestamp(ms)), rolling::steps(&keys, Slot(slot)));
        }
    }

    #[test]
    fn the_sequence_comes_after_a_few_seconds_however_long_there_is() {
        for (timeout, ms) in [(100, 40), (1_000, 400), (10_000, 4_000), (3_600_000, 4_000)] {
            let before = before_walk(Duration::from_millis(timeout));
            assert_eq!(before.as_millis(), ms);
        }
    }

    #[test]
    fn a_step_is_one_port_of_tcp_unless_it_says_udp() {
        for (text, want) in [
            ("7000", "tcp/7000"),
            ("7000/tcp", "tcp/7000"),
            ("8/udp", "udp/8"),
        ] {
            assert_eq!(read_step(text).unwrap().to_string(), want);
        }
        for text in ["", "0", "65536", "7-8", "udp/8", "7:udp", "8/sctp", "8/"] {
            assert!(read_step(text).is_err(), "{text:?}");
        }
    }
}
