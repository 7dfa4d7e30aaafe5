//! What an administrator does, and what befalls a machine.

use super::clients::GATEWAY;
use super::network::thief_address;
use super::{HOUR, Happening, World};
use crate::disk::End;
use crate::model::Found;
use oneknockd::engine::Target;

impl World {
    pub(super) fn trouble(&mut self) {
        match self.chance.below(24) {
            0..=7 if self.is_up => self.reload(),
            8..=12 if self.is_up => {
                let end = *self.chance.pick(&[
                    End::Clean,
                    End::Clean,
                    End::Killed,
                    End::Killed,
                    End::Killed,
                    End::PowerCut,
                    End::PowerCut,
                    End::StateLost,
                ]);
                self.stop(end);
            }
            13..=15 => self.jump(),
            16 => {
                let has_one = self.chance.percent(80);
                self.model.gateways = if has_one { vec![GATEWAY] } else { Vec::new() };
                let gateways = self.model.gateways.clone();
                self.server.engine.set_gateways(gateways);
            }
            17 | 18 => self.spoil_guard(),
            19 | 20 if self.is_up => self.revoke(),
            21 if self.is_up => self.drop_key(),
            _ => self.trawl(),
        }
        // One trouble often comes soon after another.
        let next = *self.chance.pick(&[3_000, 20_000, 600_000]);
        let next = self.chance.below(next);
        self.after(next, Happening::Trouble);
    }

    fn change_site(&mut self) {
        let wall = self.now().wall;
        let text = self.site.change(&mut self.chance, wall);
        self.note(text);
        self.equip();
    }

    fn reload(&mut self) {
        for _ in 0..self.chance.between(1, 3) {
            self.change_site();
        }
        let now = self.now();
        let is = self.server.reload(&self.site.rules, now);
        let right = self.model.reconfigure(&self.site.rules, now);
        self.expect("a reload", &is, &right);
        self.note_events(&is);
        // Floors of keys that came in are on disk before a packet of theirs is judged.
        self.begin_segment();
        self.compare_all();
        self.trawl();
    }

    /// The administrator removes a key, and nothing is reloaded.
    fn drop_key(&mut self) {
        let Some(name) = self.site.remove(&mut self.chance) else {
            return;
        };
        self.note(format!("key {name} is dropped"));
        let now = self.now();
        let is = self.server.drop_key(&self.site.rules, now);
        let right = self.model.drop_key(&self.site.rules, now);
        self.expect("a key that is dropped", &is, &right);
        self.note_events(&is);
        self.compare_all();
        self.trawl();
    }

    /// The administrator ends what some address has.
    fn revoke(&mut self) {
        let now = self.now();
        let granted: Vec<Target> = self.model.live(now).map(|grant| grant.target).collect();
        let address = if granted.is_empty() {
            thief_address(&mut self.chance)
        } else {
            self.chance.pick(&granted).source.address()
        };
        let meant = |target: &Target| target.source.contains(address);
        let is = self.server.revoke(now, meant);
        let right = self.model.revoke(now, meant);
        self.expect("a revocation", &is, &right);
        self.note_events(&is);
        self.note(format!("{address} is revoked"));
        self.compare_all();
    }

    /// Another program changes the guard; a daemon that runs repairs it.
    fn spoil_guard(&mut self) {
        if self.chance.percent(50) {
            self.server.kernel.clear();
        } else {
            let some: Vec<Target> = self.server.kernel.keys().copied().collect();
            for target in some {
                match self.chance.below(6) {
                    0 => drop(self.server.kernel.remove(&target)),
                    1 => *self.server.kernel.entry(target).or_default() *= 2,
                    _ => {}
                }
            }
        }
        self.note("another program changes the guard".into());
        if self.is_up {
            self.server.sync_all(self.now());
            self.compare_all();
        }
    }

    pub(super) fn stop(&mut self, end: End) {
        if end == End::Clean {
            // The last batch is recorded, and a segment begun.
            self.is_recording = false;
            self.record_and_commit();
            if !self.is_up {
                return;
            }
            self.begin_segment();
        } else {
            self.leave_batch();
        }
        self.note(format!("the server ends: {end:?}"));
        self.is_up = false;
        self.run += 1;
        let away = *self.chance.pick(&[1, 2_000, 60_000]);
        let away = self.chance.below(away);
        self.after(away, Happening::Start(end));
    }

    pub(super) fn start(&mut self, end: End) {
        if self.chance.percent(20) {
            self.change_site();
        }
        if end == End::PowerCut {
            self.booted = self.time;
        }
        let (now, rules) = (self.now(), &self.site.rules);
        let start = self.server.start(end, rules, &mut self.chance, now);
        self.is_up = true;
        self.note(format!("the server starts: {:?}", start.floor));
        if let Some(state) = &start.state {
            let found = Found {
                state,
                floor: start.floor,
                torn: &start.torn,
            };
            match self.model.restart(&self.site.rules, now, &found) {
                Ok(right) => self.expect("a start", &start.events, &right),
                Err(text) => self.fail(None, None, &text),
            }
            self.note_events(&start.events);
        } else {
            self.model.restart_without_state(&self.site.rules, now);
            let wait = self.chance.below(60_000);
            self.after(wait, Happening::Synchronised(self.run));
        }
        let gateways = self.model.gateways.clone();
        self.server.engine.set_gateways(gateways);
        self.compare_all();
        self.second();
        self.trawl();
        if self.chance.percent(30) {
            // It was not the last time.
            let soon = self.chance.below(15_000);
            self.after(soon, Happening::Kill);
        }
    }

    pub(super) fn synchronised(&mut self) {
        // A clock that is synchronised is right.
        (self.ahead, self.jumps) = (0, self.jumps + 1);
        let now = self.now();
        let floor = self.server.synchronised(now);
        self.model.begin_without_state(floor, now);
        self.note(format!("the clock is synchronised: {floor:?}"));
        self.compare_all();
        self.trawl();
    }

    /// The server's clock jumps, and is right again after a while.
    fn jump(&mut self) {
        let hours = *self.chance.pick(&[1, 1, 24, 365 * 24]);
        let far = i64::try_from(hours * HOUR).unwrap();
        let near = i64::try_from(self.chance.below(240_000)).unwrap() - 120_000;
        let to_1970 = -i64::try_from(self.right_clock()).unwrap();
        let ahead = *self.chance.pick(&[far, -far, near, near, to_1970]);
        self.jumps += 1;
        self.set_clock(ahead);
        let back = *self.chance.pick(&[5_000, 15_000, 60_000, 300_000]);
        let back = self.chance.below(back);
        self.after(back, Happening::ClockIsRight(self.jumps));
    }

    pub(super) fn set_clock(&mut self, ahead: i64) {
        self.ahead = ahead;
        self.note(format!("the server's clock is {} s ahead", ahead / 1000));
        self.trawl();
    }
}
