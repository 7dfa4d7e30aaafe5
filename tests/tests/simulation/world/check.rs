//! What arrives is held against the model.

use super::network::{What, thief_address};
use super::{Event, World};
use crate::disk::End;
use crate::history::Note;
use crate::model::{Look, is_spent};
use crate::server::{Fault, TOLERANCE};
use oneknock_shared::name::KeyName;
use oneknock_shared::packet::LEN;
use oneknockd::gate::{Junk, Now, Place, Verdict};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Junk(Junk::Length) => "length",
        Verdict::Junk(Junk::Selector) => "selector",
        Verdict::Junk(Junk::Mac) => "mac",
        Verdict::Ignored { why, .. } => why.word(),
        Verdict::Refused(refused) => refused.why.word(),
        Verdict::Accepted(_) => "accepted",
    }
}

impl World {
    pub(super) fn arrive(&mut self, what: &What, source: IpAddr) {
        if !self.is_up || self.server.waits {
            self.count("at a server that is away");
            return;
        }
        if self.server.is_full() {
            self.settle();
            if !self.is_up {
                return;
            }
        }
        self.delivered += 1;
        let now = self.now();
        self.model.look(now, Look::Packet);
        match what {
            What::Made(made) => self.arrive_made(now, *made, source),
            What::Forged(bytes) => self.arrive_forged(now, bytes, source),
        }
    }

    fn arrive_forged(&mut self, now: Now, bytes: &[u8], source: IpAddr) {
        let verdict = self.server.gate.handle(now, source, bytes);
        let word = word(&verdict);
        self.count(word);
        let is_right = if bytes.len() == LEN {
            ["selector", "mac"].contains(&word)
        } else {
            word == "length"
        };
        if !is_right {
            self.fail(None, None, &format!("a forged packet: {verdict:?}"));
        }
    }

    fn arrive_made(&mut self, now: Now, number: usize, source: IpAddr) {
        let made = &self.made[number];
        let judged = self.model.judge(now, source, made);
        let verdict = self.server.gate.handle(now, source, &made.bytes);
        let word = word(&verdict);
        let note = Note::Packet {
            made: number,
            source,
            word,
        };
        self.history.add(self.time, now, note);
        *self.counts.entry(word).or_default() += 1;
        let fail = |text: &str| {
            let place = made.knock.service.map(|service| Place {
                service,
                address: made.knock.address.unwrap_or(source),
            });
            self.fail(Some(&made.key), place, text)
        };
        if !judged.allowed.contains(&word) {
            let allowed = &judged.allowed;
            fail(&format!("{word}, and the protocol allows {allowed:?}"));
        }
        match &verdict {
            Verdict::Accepted(accepted) => {
                let is_right = *accepted.key == made.key
                    && accepted.generation == made.generation
                    && accepted.at == made.knock.timestamp
                    && accepted.id == made.id()
                    && accepted.source == source
                    && accepted.asked == judged.wishes;
                if !is_right {
                    fail(&format!("{accepted:?}, and right is {:?}", judged.wishes));
                }
            }
            Verdict::Refused(refused) => {
                let is_proven = is_spent(word) && made.knock.address == Some(source);
                if *refused.key != made.key || refused.proven != is_proven {
                    fail(&format!("{refused:?}"));
                }
            }
            Verdict::Ignored { key, .. } if **key != made.key => fail(&format!("{verdict:?}")),
            Verdict::Ignored { .. } | Verdict::Junk(_) => {}
        }
        let before = self.model.settle(now, made, word, &judged.wishes);
        if let (Some(before), Verdict::Accepted(accepted)) = (before, verdict) {
            let ids = accepted.retired.iter().map(|retired| retired.generation);
            if !ids.eq(before.retired.iter().copied()) {
                let (is, right) = (&accepted.retired, &before.retired);
                let text = format!("retired {is:?}, and right is {right:?}");
                self.fail(Some(&made.key), None, &text);
            }
            self.server.push(accepted);
            self.batch.push((number, judged.wishes, before));
        }
    }

    /// What has arrived together is recorded and granted together.
    pub(super) fn settle(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let fault = match self.chance.below(1000) {
            0..5 => Fault::Unrecorded,
            5..10 => Fault::Ungranted,
            10 => Fault::Killed,
            _ => Fault::None,
        };
        let now = self.now();
        self.server.settle(now, fault);
        let batch = std::mem::take(&mut self.batch);
        if fault == Fault::Killed {
            return self.stop(End::Killed);
        }
        let mut touched = Vec::new();
        for (number, wishes, before) in batch.into_iter().rev() {
            let made = &self.made[number];
            for &(place, time) in &wishes {
                touched.push((place, made.key.clone(), time));
            }
            if fault != Fault::None {
                let is_recorded = fault == Fault::Ungranted;
                self.model.take_back(made, before, is_recorded);
            }
        }
        if fault != Fault::None {
            self.note(format!("a batch of {} fails: {fault:?}", touched.len()));
        }
        for (place, key, time) in touched {
            self.compare(now, place, &key);
            if let Some(time) = time.filter(|_| fault == Fault::None) {
                let delay = u64::try_from(time.as_millis()).unwrap();
                self.after(delay - 1, Event::Ends(place, self.booted));
                self.after(delay, Event::Ends(place, self.booted));
            }
        }
    }

    /// Whether the kernel admits a place for as long as the model says; since a start or a
    /// heal, as nearly as the daemon looks.
    fn is_right(&self, now: Now, place: Place, model: Option<Duration>) -> bool {
        let kernel = self.server.kernel.get(&place).copied();
        let kernel_lives = kernel.filter(|until| *until > now.mono);
        if kernel_lives == model {
            return true;
        }
        let left = self.server.left.get(&place).copied();
        let is_left = left.is_some() && (kernel == left || kernel.is_none());
        is_left && left.is_some_and(|left| left.abs_diff(model.unwrap_or(now.mono)) < TOLERANCE)
    }

    /// Gate, kernel and model agree about one place.
    fn compare(&self, now: Now, place: Place, key: &KeyName) {
        let model = self.model.until(now, place);
        let gate = self.server.gate.admits(now, place);
        if !self.is_right(now, place, model) || gate != model.is_some() {
            let kernel = self.server.kernel.get(&place);
            let text = format!(
                "{place:?} is admitted until {model:?} by the protocol, {kernel:?} by the kernel; by the gate: {gate}"
            );
            self.fail(Some(key), Some(place), &text);
        }
    }

    /// At the end of a grant, and a millisecond before.
    pub(super) fn check_end(&self, place: Place) {
        let now = self.now();
        let model = self.model.until(now, place);
        let gate = self.server.gate.admits(now, place);
        if self.is_up && (!self.is_right(now, place, model) || gate != model.is_some()) {
            let kernel = self.server.kernel.get(&place);
            let text = format!("{place:?} is to end at {model:?}, and does at {kernel:?}");
            self.fail(None, Some(place), &text);
        }
    }

    /// Gate, kernel and model agree about everything.
    pub(super) fn compare_all(&self) {
        let now = self.now();
        let model = self.model.live(now);
        let model: Vec<_> = model.map(|(p, k, until)| (p, k.clone(), until)).collect();
        let gate = self.server.gate.held(now, None);
        let gate: Vec<_> = gate
            .map(|h| (h.place, (*h.key).clone(), now.mono + h.left))
            .collect();
        if model != gate {
            let odd = model.iter().filter(|claim| !gate.contains(claim));
            let more = gate.iter().filter(|claim| !model.contains(claim));
            let (odd, more): (Vec<_>, Vec<_>) = (odd.collect(), more.collect());
            let first = odd.first().or(more.first()).unwrap();
            let text = format!("claims by the protocol alone {odd:?}, by the gate alone {more:?}");
            self.fail(Some(&first.1), Some(first.0), &text);
        }
        let mut admitted: BTreeMap<Place, Duration> = BTreeMap::new();
        for (place, _, until) in model {
            let last = admitted.entry(place).or_insert(until);
            *last = (*last).max(until);
        }
        for &place in admitted.keys().chain(self.server.kernel.keys()) {
            let until = admitted.get(&place).copied();
            if !self.is_right(now, place, until) {
                let kernel = self.server.kernel.get(&place);
                let text =
                    format!("{place:?}: until {until:?} by its claims, {kernel:?} by the kernel");
                self.fail(None, Some(place), &text);
            }
        }
    }

    /// A storm of junk changes nothing, and nothing old is remembered for ever.
    pub(super) fn storm(&mut self) {
        let before = self.server.gate.memory();
        let oldest = self.now().wall.0.saturating_sub(self.skew());
        if before.seen.iter().any(|(_, at, _)| at.0 < oldest) {
            self.fail(None, None, "old packets are remembered");
        }
        if before.closes.iter().any(|(_, _, at)| at.0 < oldest) {
            self.fail(None, None, "old closes are remembered");
        }
        for _ in 0..200 {
            let bytes = if self.chance.percent(40) && !self.made.is_empty() {
                let back = self.chance.index(self.made.len().min(50));
                self.forge(self.made.len() - 1 - back)
            } else {
                let odd = self.chance.percent(20);
                let mut bytes = vec![0; if odd { self.chance.index(2000) } else { LEN }];
                self.chance.fill(&mut bytes);
                bytes
            };
            let source = thief_address(&mut self.chance);
            self.arrive(&What::Forged(bytes), source);
        }
        if self.server.gate.memory() != before {
            self.fail(None, None, "junk has changed something");
        }
    }
}
