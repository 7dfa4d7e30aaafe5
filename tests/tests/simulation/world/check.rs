//! What arrives is held against the model.

use super::World;
use super::network::{Datagram, thief_address};
use crate::history::Note;
use crate::model::Known;
use oneknock_shared::name::KeyName;
use oneknock_shared::packet::Packet;
use oneknockd::engine::{Event, Junk, Now, Spend, Target};
use std::net::IpAddr;
use std::time::Duration;

/// More packets than this are not judged before the batch is recorded.
const MAX_BATCH: usize = 64;

fn outcome(judged: &Result<Spend, Event>) -> &'static str {
    match judged {
        Ok(_) => "spent",
        Err(Event::Junk(Junk::Length)) => "length",
        Err(Event::Junk(Junk::Selector)) => "selector",
        Err(Event::Junk(Junk::Mac)) => "mac",
        Err(Event::Rejected(rejection)) => rejection.reason.name(),
        Err(_) => "an event that is none of a judge's",
    }
}

impl World {
    pub(super) fn arrive(&mut self, datagram: &Datagram, from: IpAddr) {
        if !self.is_up || self.server.waits {
            self.count("at a server that is away");
            return;
        }
        if self.batch.len() >= MAX_BATCH {
            self.is_recording = false;
            self.record_and_commit();
            if !self.is_up {
                return;
            }
        }
        self.delivered += 1;
        match datagram {
            Datagram::Made(made) => self.arrive_made(*made, from),
            Datagram::Forged(bytes) => self.arrive_forged(bytes, from),
        }
    }

    fn arrive_forged(&mut self, bytes: &[u8], from: IpAddr) {
        let judged = self.server.engine.judge(self.now(), from, bytes);
        let outcome = outcome(&judged);
        self.count(outcome);
        let is_right = if Packet::read(bytes).is_some() {
            ["selector", "mac"].contains(&outcome)
        } else {
            outcome == "length"
        };
        if !is_right {
            self.fail(None, None, &format!("a forged packet: {judged:?}"));
        }
    }

    fn arrive_made(&mut self, number: usize, from: IpAddr) {
        let (now, made) = (self.now(), &self.made[number]);
        let right = self.model.judge(now, from, made);
        let is = self.server.engine.judge(now, from, &made.bytes);
        let outcome = outcome(&is);
        let note = Note::Packet {
            made: number,
            from,
            outcome,
        };
        self.history.add(self.time, now, note);
        *self.counts.entry(outcome).or_default() += 1;
        let fail = |text: &str| self.fail(Some(&made.key), None, text);
        match is {
            Ok(spend) => {
                if self.model.is_recorded(spend.id) {
                    fail(&format!("accepted a second time: {spend:?}"));
                }
                if right.spend.as_ref() != Some(&spend) {
                    let allowed = (&right.spend, &right.allowed);
                    fail(&format!("{spend:?}, and the protocol has {allowed:?}"));
                }
                self.model.spend(&spend);
                self.batch.push(spend);
            }
            Err(event) => {
                if !right.allowed.contains(&outcome) {
                    let allowed = (&right.spend, &right.allowed);
                    fail(&format!("{event:?}, and the protocol has {allowed:?}"));
                }
                if let Event::Rejected(rejection) = event {
                    let is_right = *rejection.key == made.key
                        && rejection.source == from
                        && !rejection.authenticated;
                    if !is_right {
                        fail(&format!("{rejection:?}"));
                    }
                }
            }
        }
    }

    /// What happened is what the protocol has, event by event.
    pub(super) fn expect(&self, by: &str, is: &[Event], right: &[Event]) {
        if is == right {
            return;
        }
        let both = is.iter().zip(right);
        let alike = both.take_while(|(is, right)| is == right).count();
        let (is, right) = (is.get(alike), right.get(alike));
        let key = match is.or(right) {
            Some(Event::Rejected(rejection)) => Some(&rejection.key),
            Some(Event::Granted { grant, .. } | Event::Ended { grant, .. }) => Some(&grant.key),
            Some(Event::Closed { key, .. } | Event::Retiring { key, .. }) => Some(key),
            _ => None,
        };
        let text = format!("{by}: {is:?}, and the protocol has {right:?}");
        self.fail(key.map(|key| &**key), None, &text);
    }

    /// Whether the kernel admits a target for as long as the model says. Where it could not
    /// be written to, that is known.
    fn is_right(&self, now: Now, target: Target, model: Option<Duration>) -> bool {
        let kernel = self.server.kernel.get(&target).copied();
        let is_dirty = self.server.engine.desired().dirty().contains(&target);
        if is_dirty && !self.server.kernel_fails {
            // It can be written to again, and is with the next tick.
            return true;
        }
        is_dirty || kernel.filter(|until| *until > now.mono) == model
    }

    /// Engine, kernel and model agree about one target.
    pub(super) fn compare(&self, now: Now, target: Target, key: &KeyName) {
        let model = self.model.until(now, target);
        let desired = self.server.engine.desired().allow().get(&target);
        let desired = desired.map(|entry| entry.until);
        if !self.is_right(now, target, model) || desired != model {
            let kernel = self.server.kernel.get(&target);
            let text = format!(
                "{target:?} is admitted until {model:?} by the protocol, {kernel:?} by the kernel, {desired:?} by the engine"
            );
            self.fail(Some(key), Some(target), &text);
        }
    }

    /// At the end of a grant, and a millisecond before.
    pub(super) fn check_end(&self, target: Target) {
        let now = self.now();
        let model = self.model.until(now, target);
        let desired = self.server.engine.desired().allow().get(&target);
        let desired = desired.map(|entry| entry.until);
        let lives = desired.filter(|until| *until > now.mono);
        if self.is_up && (!self.is_right(now, target, model) || lives != model) {
            let kernel = self.server.kernel.get(&target);
            let text = format!("{target:?} is to end at {model:?}, and does at {kernel:?}");
            self.fail(None, Some(target), &text);
        }
    }

    /// Engine, kernel and model agree about everything.
    pub(super) fn compare_all(&self) {
        let now = self.now();
        let is = Known::read(&self.server.engine.snapshot(now));
        let mut right = self.model.run().clone();
        right.grants.retain(|_, grant| grant.until > now.mono);
        if is != right {
            let text = format!("the engine knows {is:#?}, and by the protocol {right:#?}");
            self.fail(None, None, &text);
        }
        let listed = self.server.engine.grants(now, None);
        if !listed.eq(self.model.live(now)) {
            self.fail(None, None, "the list of grants is another");
        }
        let admitted = self.model.admitted(now);
        for &target in admitted.keys().chain(self.server.kernel.keys()) {
            let until = admitted.get(&target).copied();
            if !self.is_right(now, target, until) {
                let kernel = self.server.kernel.get(&target);
                let text = format!("{target:?}: until {until:?}, and by the kernel {kernel:?}");
                self.fail(None, Some(target), &text);
            }
        }
    }

    /// A storm of junk changes nothing, and nothing old is remembered for ever.
    pub(super) fn storm(&mut self) {
        let now = self.now();
        let before = self.server.engine.snapshot(now);
        let oldest = self.server.engine.oldest(now);
        if before.seen.iter().any(|(_, at, _)| *at < oldest) {
            self.fail(None, None, "old packets are remembered");
        }
        if before.closes.iter().any(|close| close.at < oldest) {
            self.fail(None, None, "old closes are remembered");
        }
        for _ in 0..200 {
            let bytes = if self.chance.percent(40) && !self.made.is_empty() {
                let back = self.chance.index(self.made.len().min(50));
                self.forge(self.made.len() - 1 - back)
            } else {
                self.random_datagram()
            };
            let from = thief_address(&mut self.chance);
            self.arrive(&Datagram::Forged(bytes), from);
        }
        if self.server.engine.snapshot(now) != before {
            self.fail(None, None, "junk has changed something");
        }
        if self.server.engine.drain_events().next().is_some() {
            self.fail(None, None, "junk has queued an event");
        }
    }
}
