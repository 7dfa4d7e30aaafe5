//! What an administrator does, and what befalls a machine.

use super::clients::GATEWAY;
use super::network::thief_address;
use super::{Event, HOUR, World};
use crate::disk::End;
use crate::model::Start;
use oneknockd::gate::Place;

impl World {
    pub(super) fn trouble(&mut self) {
        match self.chance.below(21) {
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
                self.server.gate.set_gateways(gateways);
            }
            17 | 18 => self.spoil_guard(),
            19 if self.is_up => self.revoke(),
            _ => self.trawl(),
        }
        // Misfortunes seldom come singly.
        let next = *self.chance.pick(&[3_000, 20_000, 600_000]);
        let next = self.chance.below(next);
        self.after(next, Event::Trouble);
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
        self.server.reload(&self.site.settings, now);
        self.model.reconfigure(&self.site, now);
        // Floors of keys that came in are on disk before a packet of theirs is taken.
        if !self.server.waits && self.server.tidy(now, true) {
            self.model.tidied();
        }
        self.compare_all();
        self.trawl();
    }

    /// The administrator ends what some address holds.
    fn revoke(&mut self) {
        let (now, meant) = (self.now(), thief_address(&mut self.chance));
        self.server.revoke(now, |place| place.address == meant);
        self.model.revoke(|place| place.address == meant);
        self.note(format!("{meant} is revoked"));
        self.compare_all();
    }

    /// Another program changes the guard; a daemon that runs heals it.
    fn spoil_guard(&mut self) {
        if self.chance.percent(50) {
            self.server.kernel.clear();
        } else {
            let some: Vec<Place> = self.server.kernel.keys().copied().collect();
            for place in some {
                match self.chance.below(6) {
                    0 => drop(self.server.kernel.remove(&place)),
                    1 => *self.server.kernel.entry(place).or_default() *= 2,
                    _ => {}
                }
            }
        }
        self.note("another program changes the guard".into());
        if self.is_up {
            self.server.heal(self.now());
            self.compare_all();
        }
    }

    pub(super) fn stop(&mut self, end: End) {
        self.note(format!("the server ends: {end:?}"));
        self.is_up = false;
        self.run += 1;
        let away = *self.chance.pick(&[1, 2_000, 60_000]);
        let away = self.chance.below(away);
        self.after(away, Event::Start(end));
    }

    pub(super) fn start(&mut self, end: End) {
        if self.chance.percent(20) {
            self.change_site();
        }
        if end == End::PowerCut {
            self.booted = self.time;
        }
        let (now, settings) = (self.now(), &self.site.settings);
        let floor = self.server.start(end, settings, &mut self.chance, now);
        self.is_up = true;
        self.note(format!("the server starts: {floor:?}"));
        if self.server.waits {
            self.model.restart_without_state(&self.site, now);
            let wait = self.chance.below(60_000);
            self.after(wait, Event::Synchronised(self.run));
        } else {
            let start = Start {
                floor,
                known: &self.server.disk.generations(),
                retires: self.server.disk.retires(),
            };
            self.model.restart(&self.site, now, &start);
        }
        let gateways = self.model.gateways.clone();
        self.server.gate.set_gateways(gateways);
        self.compare_all();
        self.second();
        self.trawl();
        if self.chance.percent(30) {
            // It was not the last time.
            let soon = self.chance.below(15_000);
            self.after(soon, Event::Kill);
        }
    }

    pub(super) fn synchronised(&mut self) {
        // A clock that is synchronised is right.
        (self.ahead, self.jumps) = (0, self.jumps + 1);
        let floor = self.server.synchronised(self.now());
        self.model.begin_anew(floor);
        self.note(format!("the clock is synchronised: {floor:?}"));
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
        self.after(back, Event::ClockIsRight(self.jumps));
    }

    pub(super) fn set_clock(&mut self, ahead: i64) {
        self.ahead = ahead;
        self.note(format!("the server's clock is {} s ahead", ahead / 1000));
        self.trawl();
    }
}
