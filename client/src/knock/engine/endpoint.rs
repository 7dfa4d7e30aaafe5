//! One of the server's addresses, and what is known about it.

use super::Candidate;
use super::outcome::{EndpointOutcome, Refusal};
use std::net::IpAddr;
use std::time::Duration;

/// What a packet says of this computer's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// The address to admit is in it.
    Signed,
    /// The server admits the address that it came from.
    Source,
}

/// Which packets may go to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bindings {
    /// Such alone.
    Only(Binding),
    /// Both kinds, this one first.
    Both(Binding),
}

#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) address: IpAddr,
    bindings: Option<Bindings>,
    pub(super) outcome: EndpointOutcome,
    pub(super) round_trip: Option<Duration>,
    /// Whether the round trip is of this open, not one that was remembered.
    is_measured: bool,
    /// How many attempts there were since the last round began.
    pub(super) attempts: u32,
    pub(super) last_attempt: Option<Duration>,
    /// When a packet of each kind first left.
    first_signed: Option<Duration>,
    first_source: Option<Duration>,
    last: Option<Binding>,
    /// In how many rounds in a row the port has refused.
    pub(super) refusals: u32,
    refused_in: Option<u32>,
}

impl Endpoint {
    pub(super) fn new(candidate: Candidate) -> Self {
        let (bindings, outcome) = match candidate.bindings {
            Ok(bindings) => (Some(bindings), EndpointOutcome::Silent),
            Err(why) => (None, EndpointOutcome::NotSent(why)),
        };
        Self {
            address: candidate.address,
            bindings,
            outcome,
            round_trip: candidate.round_trip,
            is_measured: false,
            attempts: 0,
            last_attempt: None,
            first_signed: None,
            first_source: None,
            last: None,
            refusals: 0,
            refused_in: None,
        }
    }

    /// Whether packets can leave towards it.
    pub(super) fn is_reachable(&self) -> bool {
        let cannot_leave = matches!(
            self.outcome,
            EndpointOutcome::NotSent(_) | EndpointOutcome::KnockRefused(Refusal::NotPermitted)
        );
        self.bindings.is_some() && !cannot_leave
    }

    /// Whether a knock left and nothing says that it was in vain.
    pub(super) fn may_have_arrived(&self) -> bool {
        self.is_reachable() && !matches!(self.outcome, EndpointOutcome::KnockRefused(_))
    }

    /// Begins a round, the first is 1; gives which packet to send.
    pub(super) fn begin_round(&mut self, round: u32) -> Option<Binding> {
        self.attempts = 0;
        let refuses = self.refused_in.is_some_and(|refused| refused + 1 == round);
        if !refuses {
            self.refusals = 0;
        }
        let bindings = self.bindings.filter(|_| self.is_reachable())?;
        Some(match (bindings, self.last) {
            // A port that refuses lets this computer in: the packet was accepted.
            (_, Some(last)) if refuses => last,
            (Bindings::Only(only), _) => only,
            (Bindings::Both(first), _) if round % 2 == 1 => first,
            (Bindings::Both(Binding::Signed), _) => Binding::Source,
            (Bindings::Both(Binding::Source), _) => Binding::Signed,
        })
    }

    /// Both kinds, where both may go.
    pub(super) fn all_bindings(&self) -> Vec<Binding> {
        match self.bindings {
            None => Vec::new(),
            Some(Bindings::Only(only)) => vec![only],
            Some(Bindings::Both(_)) => vec![Binding::Signed, Binding::Source],
        }
    }

    pub(super) fn knocked(&mut self, binding: Binding, now: Duration) {
        self.last = Some(binding);
        match binding {
            Binding::Signed => self.first_signed.get_or_insert(now),
            Binding::Source => self.first_source.get_or_insert(now),
        };
    }

    pub(super) fn attempted(&mut self, now: Duration) {
        self.attempts += 1;
        self.last_attempt = Some(now);
    }

    /// Which packet let a connection in that began then: the kind that left before it, and of
    /// both the later, since the earlier one had its time.
    pub(super) fn opened_by(&self, begun: Duration) -> Option<Binding> {
        let before = |first: Option<Duration>| first.filter(|&first| first <= begun);
        let signed = before(self.first_signed);
        let source = before(self.first_source);
        match (signed, source) {
            (None, None) => None,
            (Some(signed), source) if source.is_none_or(|source| signed > source) => {
                Some(Binding::Signed)
            }
            _ => Some(Binding::Source),
        }
    }

    fn remember(&mut self, outcome: EndpointOutcome) {
        if outcome.weight() >= self.outcome.weight() {
            self.outcome = outcome;
        }
    }

    pub(super) fn not_sent(&mut self, why: String) {
        self.remember(EndpointOutcome::NotSent(why));
    }

    pub(super) fn knock_refused(&mut self, refusal: Refusal) {
        self.remember(EndpointOutcome::KnockRefused(refusal));
    }

    pub(super) fn connected(&mut self, took: Duration) {
        self.round_trip = Some(match self.round_trip {
            Some(before) if self.is_measured => before.min(took),
            _ => took,
        });
        self.is_measured = true;
        self.remember(EndpointOutcome::Mute);
    }

    pub(super) fn shown(&mut self) {
        self.remember(EndpointOutcome::Shown);
    }

    pub(super) fn port_refused(&mut self, round: u32) {
        self.remember(EndpointOutcome::PortRefused);
        if self.refused_in != Some(round) {
            self.refused_in = Some(round);
            self.refusals += 1;
        }
    }

    pub(super) fn closed(&mut self) {
        self.remember(EndpointOutcome::Closed);
    }

    pub(super) fn failed(&mut self, why: String) {
        self.remember(EndpointOutcome::Failed(why));
    }
}
