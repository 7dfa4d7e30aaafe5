//! What happened: the one type that log, watchers, counters, journal and hooks read.

use super::grant::{Grant, Target};
use super::reason::Reason;
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_shared::secret::GenerationId;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Something that happened. It carries no time: who hands it on says when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Steps 1 to 3: anybody can send it. Counted, nothing more.
    Junk(Junk),
    /// A packet of a known key that opened nothing.
    Rejected(Rejection),
    /// A packet was accepted: it is spent, and policy allows what it asks. What it opened or
    /// closed follows.
    Accepted {
        /// The key.
        key: Arc<KeyName>,
        /// The generation that made it.
        generation: GenerationId,
        /// That generation's number.
        number: u32,
        /// Where the packet came from.
        from: IpAddr,
    },
    /// A grant was made or renewed.
    Granted {
        /// The grant as it is now.
        grant: Grant,
        /// For how long from now, as asked and capped.
        time: Duration,
        /// Whether the key had this grant already.
        renewed: bool,
        /// Where the packet came from.
        from: IpAddr,
    },
    /// A key closed a target.
    Closed {
        /// The key.
        key: Arc<KeyName>,
        /// The target.
        target: Target,
        /// The grant that ended by it, where there was one.
        grant: Option<Grant>,
        /// Whether it was closed already, and had not been opened since: a client sends each
        /// close twice.
        redundant: bool,
    },
    /// A grant ended otherwise.
    Ended {
        /// The grant as it was.
        grant: Grant,
        /// Why.
        why: EndReason,
    },
    /// A grant of an earlier run goes on.
    Restored(Grant),
    /// A generation of a key was used for the first time: older ones end soon.
    Retiring {
        /// The key.
        key: Arc<KeyName>,
        /// The older generation.
        generation: GenerationId,
        /// Its number.
        number: u32,
        /// When it ends.
        ends: Timestamp,
        /// The number of the generation that was used.
        newer: u32,
    },
}

/// Why a datagram is junk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Junk {
    /// Of a length that no packet has.
    Length,
    /// A selector of no key, or of a minute that is not current.
    Selector,
    /// A known selector, and an HMAC that does not hold.
    Mac,
}

/// A packet of a known key that opened nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Whose packet it was.
    pub key: Arc<KeyName>,
    /// Where it came from; of one that the store failed, the address to admit. Anybody can
    /// have sent it from there, unless it is `authenticated`.
    pub source: IpAddr,
    /// The service that it named; every service of the key where there is none.
    pub service: Option<ServiceName>,
    /// Whether the source is signed into the packet, and the packet is spent: then it is the
    /// doing of the key's holder at that address.
    pub authenticated: bool,
    /// Why.
    pub reason: Reason,
}

/// How a grant ended, if not by its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// Its time was over.
    Expired,
    /// An administrator ended it.
    Revoked,
    /// Its key lost the right to it: by a change of the configuration, or because the
    /// generation has ended.
    KeyChanged,
    /// The machine was booted since.
    Reboot,
}
