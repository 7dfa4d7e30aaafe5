//! What a datagram is worth: steps 1 to 7 of `PROTOCOL.md`, then the generation's validity,
//! the address rule and the key's rate.
//!
//! Steps 1 to 3 are all that a sender without a key can reach: they look up, compute one HMAC
//! for a known selector, and allocate nothing.

use super::event::{Event, Junk, Rejection};
use super::policy::source_to_admit;
use super::reason::Reason;
use super::spend::Spend;
use super::{Engine, Now};
use oneknock_shared::knock::Malformed;
use oneknock_shared::packet::{Packet, Request};
use oneknock_shared::selector::Slot;
use std::net::IpAddr;
use std::sync::Arc;

impl Engine {
    /// Judges a datagram. What passes is spent: it is in the replay cache when this returns,
    /// and is to be appended to the spent log, then to go to [`Engine::commit`], or to
    /// [`Engine::reject`] where the log has failed.
    ///
    /// # Errors
    /// What else became of it: [`Event::Junk`] or [`Event::Rejected`]. It is queued nowhere.
    #[expect(
        clippy::result_large_err,
        reason = "a box would be an allocation for each packet of junk"
    )]
    pub fn judge(&mut self, now: Now, source: IpAddr, datagram: &[u8]) -> Result<Spend, Event> {
        let Some(packet) = Packet::read(datagram) else {
            return Err(Event::Junk(Junk::Length));
        };
        if !self.selectors.covers(now.wall, self.skew_ms) {
            self.cover_selectors(now);
        }
        let window = Slot::around(now.wall, self.skew_ms);
        let mut junk = Junk::Selector;
        let owners = self.selectors.probe(packet.selector());
        let mut current = owners.filter(|owner| window.contains(&owner.slot.0));
        let authentic = current.find_map(|owner| {
            let generation = self.keys.at(owner.generation)?;
            junk = Junk::Mac;
            let authentic = packet.verify(&generation.rules.subkeys)?;
            Some((owner.generation, authentic.open()))
        });
        drop(current);
        match authentic {
            Some((index, opened)) => self.decide(now, source.to_canonical(), index, opened),
            None => Err(Event::Junk(junk)),
        }
    }

    /// Steps 4 to 7 and what follows, for a packet that a holder of the key has made.
    #[expect(clippy::result_large_err, reason = "as `judge`")]
    fn decide(
        &mut self,
        now: Now,
        from: IpAddr,
        index: usize,
        opened: Result<Request, Malformed>,
    ) -> Result<Spend, Event> {
        let (Some(generation), Some(bucket)) = (self.keys.at(index), self.buckets.get_mut(index))
        else {
            return Err(Event::Junk(Junk::Selector));
        };
        let (key, id) = (&generation.key.name, generation.rules.subkeys.id());
        let rejected = |service, reason| {
            Event::Rejected(Rejection {
                key: Arc::clone(key),
                source: from,
                service,
                authenticated: false,
                reason,
            })
        };
        let request = opened.map_err(|why| rejected(None, Reason::Malformed(why)))?;
        let (at, knock) = (request.timestamp(), request.knock());
        let rejected = |reason| Err(rejected(knock.service, reason));
        if at.0.abs_diff(now.wall.0) > self.skew_ms {
            return rejected(Reason::ClockSkew { at, now: now.wall });
        }
        if self.replay.is_below_floor(id, at) {
            return rejected(Reason::ReplayFloor);
        }
        if self.replay.has(at, request.id()) {
            return rejected(Reason::Replayed);
        }
        // What is rejected from here on, until the packet is remembered, is rejected for its
        // sender or its moment, not for good: a thief who sends a caught packet from another
        // address must not spend it, nor its owner's rate, nor get an address banned.
        if generation.is_early(now) {
            return rejected(Reason::NotYetValid);
        }
        if generation.has_ended(now) {
            return rejected(Reason::Expired);
        }
        let source = match source_to_admit(generation.key, from, knock.address) {
            Ok(source) => source,
            Err(reason) => return rejected(reason),
        };
        if !bucket.take(now.mono) || !self.replay.insert(id, at, request.id()) {
            return rejected(Reason::RateLimited);
        }
        Ok(Spend {
            key: Arc::clone(key),
            generation: id,
            number: generation.rules.number,
            at,
            id: request.id(),
            from,
            source,
            is_signed: knock.address.is_some(),
            action: knock.action,
            service: knock.service,
        })
    }
}
