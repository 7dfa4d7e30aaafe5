//! The control socket: what oneknockctl asks of a running daemon.

pub mod answers;
mod bind;
pub mod protocol;
mod refusals;
mod socket;
mod unknown;

pub use bind::NoSocket;
pub use socket::{Request, Socket};

use crate::config::Config;
use crate::gate::{Accepted, Held, Junk, Now, Place, Verdict};
use answers::{Event, Happened, MOST_LISTED, Refusals, Watched};
use oneknock_shared::name::KeyName;
use protocol::Who;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The socket, and what is remembered for those who ask.
#[derive(Debug)]
pub struct Control {
    /// Where they ask.
    pub socket: Socket,
    refusals: refusals::Memory,
    unknown: unknown::Memory,
    failed: BTreeMap<&'static str, u64>,
    waiting: u64,
    since: Duration,
}

impl Control {
    /// Makes the socket that the configuration names.
    pub fn bind(config: &Config, now: Now) -> Result<Self, NoSocket> {
        Ok(Self {
            socket: Socket::bind(&config.control, config.control_group.as_deref())?,
            refusals: refusals::Memory::default(),
            unknown: unknown::Memory::default(),
            failed: BTreeMap::new(),
            waiting: 0,
            since: now.mono,
        })
    }

    /// How long the daemon has run.
    #[must_use]
    pub fn up(&self, now: Now) -> Duration {
        now.mono.saturating_sub(self.since)
    }

    /// Accepted packets that this machine could not grant, by the log's word for why.
    #[must_use]
    pub fn failed(&self) -> &BTreeMap<&'static str, u64> {
        &self.failed
    }

    /// Datagrams that were not looked at, since nothing is accepted yet.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Takes note of a datagram that was not looked at.
    pub fn note_waiting(&mut self) {
        self.waiting = self.waiting.saturating_add(1);
    }

    /// The last refusals of this one, or of all; `waits_for_clock` is passed on.
    #[must_use]
    pub fn refusals(&self, who: Option<&Who>, waits_for_clock: bool) -> Refusals {
        let address = match who {
            Some(&Who::Address(address)) => Some(address),
            _ => None,
        };
        Refusals {
            refusals: self.refusals.of(who, MOST_LISTED),
            unknown: self.unknown.of(address),
            waits_for_clock,
        }
    }

    /// Takes note of a datagram that was not accepted.
    pub fn note_refused(&mut self, now: Now, source: IpAddr, datagram: &[u8], verdict: &Verdict) {
        let at_ms = now.wall.0;
        let event = match verdict {
            Verdict::Ignored { key, source, why } => Event {
                reason: Some(why.word().into()),
                ahead_seconds: why.ahead(),
                ..Event::new(at_ms, Happened::Ignored, key, *source)
            },
            Verdict::Refused(refused) => Event {
                proven: refused.proven,
                service: refused.service.map(|service| service.to_string()),
                reason: Some(refused.why.word().into()),
                ..Event::new(at_ms, Happened::Refused, &refused.key, refused.source)
            },
            Verdict::Junk(Junk::Selector) => {
                return self.unknown.note(at_ms, source.to_canonical(), datagram);
            }
            Verdict::Junk(_) | Verdict::Accepted(_) => return,
        };
        self.refusals.note(&event);
        self.publish(|| vec![event]);
    }

    /// Takes note of an accepted packet whose changes are made.
    pub fn note_accepted(&mut self, now: Now, accepted: &Accepted) {
        self.publish(|| {
            let retired = accepted.retired.iter().map(|retired| Event {
                generation: Some(retired.number),
                seconds: Some(retired.at.0.saturating_sub(now.wall.0) / 1000),
                ..Event::new(
                    now.wall.0,
                    Happened::Retiring,
                    &accepted.key,
                    accepted.source,
                )
            });
            let asked = accepted.told().map(|(place, time)| {
                let happened = match time {
                    Some(_) => Happened::Granted,
                    None => Happened::Closed,
                };
                Event {
                    service: Some(place.service.to_string()),
                    seconds: time.map(|time| time.as_secs()),
                    ..Event::new(now.wall.0, happened, &accepted.key, place.address)
                }
            });
            asked.chain(retired).collect()
        });
    }

    /// Takes note of grants whose time was over.
    pub fn note_over(&mut self, now: Now, claims: &[(Arc<KeyName>, Place)]) {
        self.note_gone(now, Happened::Ended, claims);
    }

    /// Takes note of an accepted packet whose changes could not be recorded or made.
    pub fn note_failed(&mut self, now: Now, accepted: &Accepted, reason: &'static str) {
        let failed = self.failed.entry(reason).or_default();
        *failed = failed.saturating_add(1);
        let events = accepted.asked.iter().map(|(place, _)| Event {
            service: Some(place.service.to_string()),
            reason: Some(reason.into()),
            ..Event::new(now.wall.0, Happened::Failed, &accepted.key, place.address)
        });
        let events: Vec<Event> = events.collect();
        for event in &events {
            self.refusals.note(event);
        }
        self.publish(|| events);
    }

    /// Takes note of grants that were ended by somebody at this machine.
    pub fn note_revoked(&mut self, now: Now, claims: &[Held]) {
        self.publish(|| {
            let events = claims.iter().map(|held| Event {
                service: Some(held.place.service.to_string()),
                ..Event::new(now.wall.0, Happened::Revoked, &held.key, held.place.address)
            });
            events.collect()
        });
    }

    /// Takes note of grants that a reload has ended.
    pub fn note_lost(&mut self, now: Now, claims: &[(Arc<KeyName>, Place)]) {
        self.note_gone(now, Happened::Revoked, claims);
    }

    fn note_gone(&mut self, now: Now, how: Happened, claims: &[(Arc<KeyName>, Place)]) {
        self.publish(|| {
            let events = claims.iter().map(|(key, place)| Event {
                service: Some(place.service.to_string()),
                ..Event::new(now.wall.0, how, key, place.address)
            });
            events.collect()
        });
    }

    /// Nothing is put together where nobody watches.
    fn publish(&mut self, events: impl FnOnce() -> Vec<Event>) {
        if self.socket.watchers() == 0 {
            return;
        }
        for event in events() {
            self.socket.publish(&Watched::Event(event));
        }
    }
}
