//! What a spent packet does: the rest of step 8 of `PROTOCOL.md`, then its grants.

use super::event::{Event, Rejection};
use super::grant::{Grant, Target};
use super::policy::{services_asked, time_to_open};
use super::reason::Reason;
use super::spend::Spend;
use super::{Engine, Now};
use oneknock_shared::knock::Action;
use std::sync::Arc;

impl Engine {
    /// Does what these packets ask, in their order, now that the spent log holds them.
    /// Changes the desired state and queues what happened to each. One that policy refuses
    /// is spent all the same.
    pub fn commit(&mut self, now: Now, spends: &[Spend]) {
        self.expire(now);
        for spend in spends {
            let first = self.events.len();
            let done = match spend.action {
                Action::Open { seconds } => self.open(now, spend, seconds),
                Action::Close => self.close(now, spend),
            };
            match done {
                Ok(index) => {
                    // Before what it opened or closed.
                    let accepted = Event::Accepted {
                        key: Arc::clone(&spend.key),
                        generation: spend.generation,
                        number: spend.number,
                        from: spend.from,
                    };
                    self.events.insert(first, accepted);
                    self.retire_older(now, index);
                }
                // Unsigned, the packet may come from a thief who was quicker; and of an
                // address that was not the packet's source nothing is proved.
                Err(reason) => self.events.push(Event::Rejected(Rejection {
                    key: Arc::clone(&spend.key),
                    source: spend.from,
                    service: spend.service,
                    authenticated: spend.is_signed && spend.source.contains(spend.from),
                    reason,
                })),
            }
        }
    }

    /// The spent log could not hold these packets: they do nothing, and stay spent in
    /// memory. The failure is this machine's, and no address is named as its cause.
    pub fn reject(&mut self, spends: &[Spend], reason: Reason) {
        let rejections = spends.iter().map(|spend| {
            Event::Rejected(Rejection {
                key: Arc::clone(&spend.key),
                source: spend.source.address(),
                service: spend.service,
                authenticated: false,
                reason,
            })
        });
        self.events.extend(rejections);
    }

    /// Grants what an open asks for, all of it or nothing. Returns the generation's index.
    fn open(&mut self, now: Now, spend: &Spend, seconds: u16) -> Result<usize, Reason> {
        let index = self.live_index(now, spend)?;
        let generation = self.keys.at(index).ok_or(Reason::Expired)?;
        let (key, source) = (generation.key, spend.source);
        let asked = services_asked(&self.services, key, spend.service)?;
        let targets = asked.map(|service| {
            let target = Target {
                service: service.name,
                source,
            };
            (target, time_to_open(service, key, seconds))
        });
        let mut gateways = self.gateways.iter();
        if !self.allow_gateway && gateways.any(|gateway| source.contains(*gateway)) {
            return Err(Reason::SourceIsGateway);
        }
        let mut added = 0;
        for (target, _) in targets.clone() {
            let closed = self.closes.last(spend, target.service);
            if closed.is_some_and(|closed| spend.at <= closed) {
                return Err(Reason::SupersededByClose);
            }
            added += usize::from(self.grants.get(&spend.key, target).is_none());
        }
        let siblings = key.generations.iter();
        let live = siblings.map(|sibling| self.grants.count(sibling.subkeys.id()));
        if added > 0 && live.sum::<usize>() + added > key.max_grants as usize {
            return Err(Reason::GrantLimit);
        }
        for (target, time) in targets {
            let (grant, renewed) = self.grants.open(Grant {
                key: Arc::clone(&spend.key),
                generation: spend.generation,
                number: spend.number,
                target,
                opened: now.wall,
                until: now.mono.saturating_add(time),
            });
            self.events.push(Event::Granted {
                grant,
                time,
                renewed,
                from: spend.from,
            });
        }
        Ok(index)
    }

    /// Ends what a close asks for. Whatever policy says of it, it holds back the key's earlier
    /// opens: so the spent packets alone say what is closed. Returns the generation's index.
    fn close(&mut self, now: Now, spend: &Spend) -> Result<usize, Reason> {
        let done = self.end_asked(now, spend);
        self.closes
            .insert(&spend.key, spend.service, spend.source, spend.at);
        done
    }

    fn end_asked(&mut self, now: Now, spend: &Spend) -> Result<usize, Reason> {
        let index = self.live_index(now, spend)?;
        let generation = self.keys.at(index).ok_or(Reason::Expired)?;
        let asked = services_asked(&self.services, generation.key, spend.service)?;
        for service in asked {
            let target = Target {
                service: service.name,
                source: spend.source,
            };
            let grant = self.grants.end(&spend.key, target);
            let was_closed = self.closes.last(spend, service.name).is_some();
            self.events.push(Event::Closed {
                key: Arc::clone(&spend.key),
                target,
                redundant: was_closed && grant.is_none(),
                grant,
            });
        }
        Ok(index)
    }

    /// The index of the packet's generation. It may have ended, or its key may be gone, since
    /// the packet was judged.
    fn live_index(&self, now: Now, spend: &Spend) -> Result<usize, Reason> {
        let live = self.keys.live(spend.generation, now);
        live.filter(|generation| generation.key.name == spend.key)
            .and_then(|_| self.keys.index_of(spend.generation))
            .ok_or(Reason::Expired)
    }
}
