//! What became of a datagram, and why. One verdict feeds the action, the counter and
//! the log line alike.

use super::claims::{Before, Change, Place};
use super::retiring::Retired;
use oneknock_shared::knock::{Malformed, Timestamp};
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_shared::packet::{PacketId, Request};
use oneknock_shared::secret::GenerationId;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The outcome of one datagram.
#[derive(Debug)]
pub enum Verdict {
    /// Steps 1 to 3: anybody can send it. Counted, nothing more.
    Junk(Junk),
    /// Steps 6 and 7: made by a holder of the key, but perhaps sent again by another,
    /// from a forged address.
    Ignored {
        /// Whose packet it was.
        key: Arc<KeyName>,
        /// Where it came from: unproven.
        source: IpAddr,
        /// Why.
        why: Ignored,
    },
    /// Steps 4, 5 and 8.
    Refused(Refused),
    /// To be recorded, then made so in the firewall.
    Accepted(Accepted),
}

/// Why a datagram is junk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Junk {
    /// Not 112 bytes.
    Length,
    /// A selector of no key, or of a minute that is not in force.
    Selector,
    /// A known selector, and an HMAC that does not hold.
    Mac,
}

/// Why an authentic packet is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// Its timestamp is further from this machine's clock than the skew.
    Stale {
        /// The packet's timestamp.
        at: Timestamp,
        /// This machine's clock.
        now: Timestamp,
    },
    /// It is not later than the generation's floor.
    BelowFloor,
    /// It was seen before.
    Replayed,
}

impl Ignored {
    /// The word for it in the log.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Stale { .. } => "stale",
            Self::BelowFloor => "below-floor",
            Self::Replayed => "replayed",
        }
    }

    /// How far a stale packet's clock is ahead of this machine's, in seconds cut off;
    /// behind where it is negative.
    #[must_use]
    pub fn ahead(self) -> Option<i64> {
        let Self::Stale { at, now } = self else {
            return None;
        };
        let seconds = i64::try_from(at.0.abs_diff(now.0) / 1000).unwrap_or(i64::MAX);
        Some(if at < now { -seconds } else { seconds })
    }
}

/// A refusal, and whose.
#[derive(Debug)]
pub struct Refused {
    /// Whose packet it was.
    pub key: Arc<KeyName>,
    /// Where it came from.
    pub source: IpAddr,
    /// The service it named.
    pub service: Option<ServiceName>,
    /// Whether the source is signed into the packet, and the packet cannot be judged
    /// again: then the refusal is the doing of the key's holder at that address.
    pub proven: bool,
    /// Why.
    pub why: Refusal,
}

/// Why a packet is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Steps 4 and 5.
    Malformed(Malformed),
    /// The generation is not valid yet.
    NotYetValid,
    /// The generation is valid no longer.
    Expired,
    /// The key is over its rate.
    TooManyKnocks,
    /// The service is not in the configuration.
    NoSuchService,
    /// The key may not open the service.
    ServiceNotAllowed,
    /// The key must sign the address, and did not.
    AddressNotSigned,
    /// The signed address is not the source, and the key may not admit others.
    AddressNotSource,
    /// The address is loopback, link-local, multicast or such: no one host's.
    AddressUnusable,
    /// The address is this machine's default gateway: behind it is everybody.
    Gateway,
    /// The key has closed this door with a later packet.
    ClosedSince,
    /// The key has as many live grants as it may.
    TooManyGrants,
}

impl Refusal {
    /// The word for it in the log.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::NotYetValid => "not-yet-valid",
            Self::Expired => "expired",
            Self::TooManyKnocks => "too-many-knocks",
            Self::NoSuchService => "no-such-service",
            Self::ServiceNotAllowed => "service-not-allowed",
            Self::AddressNotSigned => "address-not-signed",
            Self::AddressNotSource => "address-not-source",
            Self::AddressUnusable => "address-unusable",
            Self::Gateway => "gateway",
            Self::ClosedSince => "closed-since",
            Self::TooManyGrants => "too-many-grants",
        }
    }
}

/// An accepted packet: what to record, and what to do then.
#[derive(Debug)]
pub struct Accepted {
    /// Whose it is.
    pub key: Arc<KeyName>,
    /// Which of the key's generations made it.
    pub generation: GenerationId,
    /// That generation's number.
    pub number: u32,
    /// Where it came from.
    pub source: IpAddr,
    /// Its timestamp.
    pub at: Timestamp,
    /// What it is remembered by.
    pub id: PacketId,
    /// What to do in the firewall, in this order.
    pub changes: Vec<Change>,
    /// What was asked: opened for a time, or closed (`None`).
    pub asked: Vec<(Place, Option<Duration>)>,
    /// Places that were closed already, and had not been opened since: a client sends each
    /// close twice.
    pub again: BTreeSet<Place>,
    /// The key's claims as they were, for [`super::Gate::undo`] and the ledger's.
    pub undo: Vec<Before>,
    /// The older generations of the key whose end this first use brings forward.
    pub retired: Vec<Retired>,
}

impl Accepted {
    pub(super) fn new(
        key: Arc<KeyName>,
        (generation, number): (GenerationId, u32),
        source: IpAddr,
        request: &Request,
    ) -> Self {
        Self {
            key,
            generation,
            number,
            source,
            at: request.timestamp(),
            id: request.id(),
            changes: Vec::new(),
            asked: Vec::new(),
            again: BTreeSet::new(),
            undo: Vec::new(),
            retired: Vec::new(),
        }
    }

    pub(super) fn opened(&mut self, done: (Change, Before), place: Place, time: Duration) {
        self.note(done, place, Some(time));
    }

    pub(super) fn closed(&mut self, done: (Change, Before), place: Place) {
        self.note(done, place, None);
    }

    /// What was asked and is worth telling: a close that changes nothing is told once.
    pub fn told(&self) -> impl Iterator<Item = &(Place, Option<Duration>)> {
        let news = |(place, time): &&(Place, Option<Duration>)| {
            time.is_some() || !self.again.contains(place)
        };
        self.asked.iter().filter(news)
    }

    fn note(&mut self, (change, before): (Change, Before), place: Place, time: Option<Duration>) {
        self.changes.push(change);
        self.undo.push(before);
        self.asked.push((place, time));
    }
}

/// How many datagrams had which outcome since the start.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Counters {
    /// Of another length.
    pub length: u64,
    /// Of an unknown selector.
    pub selector: u64,
    /// With an HMAC that does not hold.
    pub mac: u64,
    /// Stale, below the floor, or seen before.
    pub ignored: u64,
    /// Refused.
    pub refused: u64,
    /// Accepted.
    pub accepted: u64,
    /// The ignored and the refused ones, by the log's word for the reason.
    pub reasons: BTreeMap<&'static str, u64>,
}

impl Counters {
    pub(super) fn count(&mut self, verdict: &Verdict) {
        let counter = match verdict {
            Verdict::Junk(Junk::Length) => &mut self.length,
            Verdict::Junk(Junk::Selector) => &mut self.selector,
            Verdict::Junk(Junk::Mac) => &mut self.mac,
            Verdict::Ignored { .. } => &mut self.ignored,
            Verdict::Refused(_) => &mut self.refused,
            Verdict::Accepted(_) => &mut self.accepted,
        };
        *counter = counter.saturating_add(1);
        let reason = match verdict {
            Verdict::Ignored { why, .. } => why.word(),
            Verdict::Refused(refused) => refused.why.word(),
            Verdict::Junk(_) | Verdict::Accepted(_) => return,
        };
        let reason = self.reasons.entry(reason).or_default();
        *reason = reason.saturating_add(1);
    }
}
