//! What goes in and comes out.

use super::{Binding, Bindings, Outcome, Refusal};
use std::net::IpAddr;
use std::time::Duration;

/// What is wanted of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// A connection whose service has shown itself.
    Connection,
    /// The same, at a port that was opened by other means: no knock is sent.
    ConnectionWithoutKnock,
    /// The knock alone: nothing answers, as with UDP services.
    Knock,
}

/// One of the server's addresses, before anything is sent.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The address.
    pub address: IpAddr,
    /// Which packets may go there; or why none can.
    pub bindings: Result<Bindings, String>,
    /// The round trip to it that was measured before on this network.
    pub round_trip: Option<Duration>,
}

impl Candidate {
    /// Which packet goes first, where one may go.
    #[must_use]
    pub fn first_binding(&self) -> Option<Binding> {
        match self.bindings {
            Ok(Bindings::Only(binding) | Bindings::Both(binding)) => Some(binding),
            Err(_) => None,
        }
    }
}

/// What to do now. Endpoints and connections are named by their number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send a fresh packet.
    Knock {
        /// To which address.
        endpoint: usize,
        /// What it says of this computer's address.
        binding: Binding,
    },
    /// Begin a connection; its events carry this number.
    Connect {
        /// To which address.
        endpoint: usize,
        /// Its number.
        connection: usize,
    },
    /// Nothing until then, or until an event.
    Wait(Duration),
    /// It is over.
    Done(Outcome),
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The packet could not be sent to this endpoint.
    NotSent {
        /// The endpoint.
        endpoint: usize,
        /// The system's reason.
        why: String,
    },
    /// An ICMP error came for the packet to this endpoint.
    KnockRefused {
        /// The endpoint.
        endpoint: usize,
        /// What it says.
        refusal: Refusal,
    },
    /// This connection stands; its service has said nothing yet.
    Connected(usize),
    /// The service at the other end of this connection has shown itself.
    Shown(usize),
    /// The port refused this connection.
    PortRefused(usize),
    /// This connection ended, after it stood, without what shows the service.
    Closed(usize),
    /// This connection failed otherwise.
    Failed {
        /// The connection.
        connection: usize,
        /// The system's reason.
        why: String,
    },
}
