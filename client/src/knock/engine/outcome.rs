//! What became of it, as values; texts, doctor and exit status read those.

use super::Binding;
use std::time::Duration;

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The service has shown itself.
    Open {
        /// At which address.
        endpoint: usize,
        /// By which connection.
        connection: usize,
        /// Which packet opened it; `None` where no knock was sent.
        by: Option<Binding>,
        /// The round trip, where it is known.
        round_trip: Option<Duration>,
    },
    /// The knocks were sent, and nothing can answer them.
    Sent,
    /// Every address refuses the port: the knock was probably accepted.
    PortRefused,
    /// No packet can leave towards any address.
    NotSent,
    /// The time is over.
    NoAnswer,
}

/// What an ICMP error for a knock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing listens on that UDP port.
    PortUnreachable,
    /// A firewall on the way rejects it.
    Prohibited,
    /// This computer's own firewall drops it.
    NotPermitted,
}

/// What is known about an address that did not open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointOutcome {
    /// Nothing came back.
    Silent,
    /// No packet can leave towards it: the system's reason.
    NotSent(String),
    /// A connection failed: the system's reason.
    Failed(String),
    /// Something answers the handshake, and the service says nothing.
    Mute,
    /// It closes connections before the service shows itself.
    Closed,
    /// It refuses the port.
    PortRefused,
    /// It, or something on the way, refuses the knock.
    KnockRefused(Refusal),
    /// The service has shown itself.
    Shown,
}

impl EndpointOutcome {
    /// The more a finding tells, the greater. What tells less does not replace it.
    pub(super) fn weight(&self) -> u8 {
        match self {
            Self::Silent => 0,
            Self::NotSent(_) => 1,
            Self::Failed(_) => 2,
            Self::Mute => 3,
            Self::Closed => 4,
            Self::PortRefused => 5,
            // A knock that nothing takes was not accepted, whatever the port says.
            Self::KnockRefused(_) => 6,
            Self::Shown => 7,
        }
    }

    /// Whether it is known that the knock was in vain.
    #[must_use]
    pub fn is_known_failure(&self) -> bool {
        matches!(self, Self::NotSent(_) | Self::KnockRefused(_))
    }

    /// What is said of it, without the address.
    #[must_use]
    pub fn describe(&self, knock_port: u16, tcp_port: Option<u16>) -> String {
        let tcp = tcp_port.map_or_else(|| "the port".into(), |port| format!("tcp/{port}"));
        match self {
            Self::Silent => "no reply".into(),
            Self::NotSent(why) | Self::Failed(why) => why.clone(),
            Self::Mute => format!("{tcp} answers, but its service says nothing"),
            Self::Closed => format!("{tcp} closes connections at once"),
            Self::PortRefused => format!("{tcp} is refused"),
            Self::KnockRefused(Refusal::PortUnreachable) => {
                format!("nothing listens on udp/{knock_port}")
            }
            Self::KnockRefused(Refusal::Prohibited) => {
                format!("a firewall on the way rejects udp/{knock_port}")
            }
            Self::KnockRefused(Refusal::NotPermitted) => {
                format!("this computer's firewall drops udp/{knock_port}")
            }
            Self::Shown => format!("{tcp} is open"),
        }
    }
}
