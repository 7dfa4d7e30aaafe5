//! What was judged is recorded and committed together; and what goes wrong there.

use super::{Happening, World};
use crate::disk::End;
use crate::model::rejected;
use oneknockd::engine::{EndReason, Event, Reason, Spend};

impl World {
    /// Mostly at once; now and then the store takes a while, and more comes in meanwhile.
    pub(super) fn record_soon(&mut self) {
        if self.batch.is_empty() || self.is_recording {
            return;
        }
        if self.chance.percent(5) {
            self.is_recording = true;
            let delay = self.chance.below(50);
            self.after(delay, Happening::Recorded(self.run));
        } else {
            self.record_and_commit();
        }
    }

    /// The batch is recorded and committed, or its store, its kernel or its daemon fails.
    pub(super) fn record_and_commit(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return;
        }
        match self.chance.below(1000) {
            0..5 => self.fail_to_record(&batch),
            5 => {
                self.batch = batch;
                self.stop(End::Killed);
            }
            6 => {
                self.record(&batch);
                self.commit(&batch, true);
            }
            7..12 => {
                self.server.kernel_fails = true;
                let most = *self.chance.pick(&[5_000, 60_000, 300_000]);
                let delay = self.chance.below(most);
                self.after(delay, Happening::KernelWorks);
                self.note("the kernel takes nothing".into());
                self.record(&batch);
                self.commit(&batch, false);
            }
            _ => {
                self.record(&batch);
                self.commit(&batch, false);
            }
        }
    }

    fn record(&mut self, batch: &[Spend]) {
        self.server.disk.append(batch);
        self.model.record(batch);
    }

    /// The store cannot record them; some may be written all the same.
    fn fail_to_record(&mut self, batch: &[Spend]) {
        let written = self.chance.index(batch.len() + 1);
        self.server.disk.fail_to_append(&batch[..written]);
        self.server.engine.reject(batch, Reason::StoreError);
        let is: Vec<Event> = self.server.engine.drain_events().collect();
        let right = rejected(batch);
        self.expect("a batch that the store failed", &is, &right);
        self.note(format!("the store fails a batch of {}", batch.len()));
        self.count("store-error");
    }

    /// The daemon is killed with a batch in its hands: some of it is recorded.
    pub(super) fn leave_batch(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        self.is_recording = false;
        let written = self.chance.index(batch.len() + 1);
        if written > 0 {
            self.record(&batch[..written]);
        }
    }

    /// Does what the batch asks; or is killed before the disk has all of what came of it, and
    /// perhaps before the kernel has.
    fn commit(&mut self, batch: &[Spend], is_killed: bool) {
        let now = self.now();
        let is = self.server.commit(now, batch);
        let right = self.model.commit(now, batch);
        self.expect("a batch", &is, &right);
        if is_killed {
            if self.chance.percent(50) {
                self.server.sync();
            }
            let noted = self.chance.index(is.len() + 1);
            self.note_events(&is[..noted]);
            return self.stop(End::Killed);
        }
        self.server.sync();
        self.note_events(&is);
        for event in &is {
            match event {
                Event::Granted { grant, time, .. } => {
                    self.count("granted");
                    self.compare(now, grant.target, &grant.key);
                    let delay = u64::try_from(time.as_millis()).unwrap();
                    for early in [1, 0] {
                        let ends = Happening::Ends(grant.target, self.booted);
                        self.after(delay - early, ends);
                    }
                }
                Event::Closed { key, target, .. } => {
                    self.count("closed");
                    self.compare(now, *target, key);
                }
                Event::Rejected(rejection) => self.count(rejection.reason.name()),
                _ => {}
            }
        }
    }

    pub(super) fn note_events(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::Ended { grant, why } => {
                    let (key, target) = (&grant.key, grant.target);
                    self.note(format!("{target:?} of {key} ends: {why:?}"));
                    self.count(match why {
                        EndReason::Expired => "grants that expired",
                        EndReason::Revoked => "grants that were revoked",
                        EndReason::KeyChanged => "grants whose key has changed",
                        EndReason::Reboot => "grants of an earlier boot",
                    });
                }
                Event::Restored(_) => self.count("grants that went on"),
                Event::Retiring { .. } => self.count("generations that retired"),
                _ => {}
            }
        }
        if !self.server.waits {
            self.server.disk.note(events);
            self.model.note(events);
        }
    }

    /// A new segment of the log.
    pub(super) fn begin_segment(&mut self) {
        if !self.server.waits {
            let now = self.now();
            self.server.begin_segment(now);
            self.model.begin_segment(now);
        }
    }
}
