//! The ports of rolling port sequences: those of the minute before, of this one and of the
//! next. What the kernel is to hold follows from the clock and the keys; it is told when that
//! changes, and again where it could not be. When nobody tells it, the ports run out.

use super::Daemon;
use crate::config::Steps;
use crate::engine::Now;
use crate::kernel::RollingStep;
use crate::observers::{self, Level};
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_shared::port::Ports;
use oneknock_shared::rolling;
use oneknock_shared::secret::{GenerationId, Subkeys};
use oneknock_shared::selector::Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

const SLOT_MS: u64 = 60_000;

/// What the kernel was told last.
#[derive(Debug, Default)]
pub(super) struct Rolling {
    /// Of which sequences: the minute, and the generations.
    told: Option<(Slot, BTreeSet<GenerationId>)>,
    /// The generations that had a sequence when it was told last.
    had: BTreeSet<GenerationId>,
    error: Option<String>,
    /// Whether what was opened by sequences that no key has any more is ended: not when a run
    /// begins, since a key may have been removed while no daemon ran.
    is_settled: bool,
}

/// The steps of these generations' sequences around now. A sequence of which a port is the
/// same step of another one is skipped: its next minute has others.
fn steps(keys: &BTreeMap<GenerationId, &Subkeys>, now: Now) -> Vec<RollingStep> {
    let Slot(current) = Slot::of(now.wall);
    let mut taken = BTreeSet::new();
    let mut steps = Vec::new();
    for slot in current.saturating_sub(1)..=current.saturating_add(1) {
        let end = slot.saturating_add(2).saturating_mul(SLOT_MS);
        let time = Duration::from_millis(end.saturating_sub(now.wall.0));
        for (&generation, subkeys) in keys {
            let ports = rolling::steps(subkeys, Slot(slot));
            let positions: Vec<_> = (1..).zip(ports.iter().map(Ports::first)).collect();
            if positions.iter().any(|position| taken.contains(position)) {
                continue;
            }
            let id = id(slot, generation);
            let of = |&(at, port)| RollingStep { at, port, id, time };
            steps.extend(positions.iter().map(of));
            taken.extend(positions);
        }
    }
    steps
}

/// Tells a sequence from others; the same each time.
fn id(slot: u64, generation: GenerationId) -> u32 {
    let mut hasher = DefaultHasher::new();
    (slot, generation).hash(&mut hasher);
    let [a, b, c, d, ..] = hasher.finish().to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

impl Daemon {
    /// Tells the kernel what it lacks. To be called about once a second.
    pub(super) fn roll(&mut self) {
        let sequence = self.server.settings.config.sequence.as_ref();
        let Some(sequence) = sequence.filter(|s| s.steps == Steps::Rolling) else {
            return;
        };
        let service = sequence.service;
        let now = self.server.clock.now();
        let keys = self.server.settings.keys.iter();
        let with_sequence: BTreeSet<&KeyName> = keys
            .filter(|key| key.policy.services.contains(&service) && sequence.is_for(&key.policy))
            .map(|key| &key.name)
            .collect();
        let live = self.server.engine.generations(now);
        let keys: BTreeMap<GenerationId, &Subkeys> = live
            // Without a clock to be relied on nothing is accepted.
            .filter(|_| self.awaiting_clock.is_none())
            .filter(|g| !g.is_early(now) && with_sequence.contains(&*g.key.name))
            .map(|g| (g.rules.subkeys.id(), &g.rules.subkeys))
            .collect();
        let ids: BTreeSet<GenerationId> = keys.keys().copied().collect();
        let wanted = (Slot::of(now.wall), ids);
        if self.rolling.told.as_ref() != Some(&wanted) {
            let result = self.server.kernel.roll(&steps(&keys, now));
            if !self.note_roll(result.err().map(|error| error.to_string())) {
                return;
            }
            self.rolling.is_settled &= self.rolling.had.is_subset(&wanted.1);
            self.rolling.had.clone_from(&wanted.1);
            self.rolling.told = Some(wanted);
        }
        if !self.rolling.is_settled {
            self.end_lost_sequences(service);
        }
    }

    /// Takes note of how it went, and returns whether it went well.
    fn note_roll(&mut self, error: Option<String>) -> bool {
        if let Some(error) = &error
            && self.rolling.error.as_ref() != Some(error)
        {
            observers::say(Level::Error, "rolling-sequence-not-set", error);
        }
        self.rolling.error = error;
        self.rolling.error.is_none()
    }

    /// Ends what rolling sequences have opened, since a key has none any more: which key has
    /// opened it is not known, and who still has one can repeat it.
    fn end_lost_sequences(&mut self, service: ServiceName) {
        let kernel = &mut self.server.kernel;
        let listed = kernel.sequence_grants(service);
        let ended = listed.and_then(|listed| {
            kernel.revoke_sequence_grants(service, None)?;
            Ok(listed.len())
        });
        match ended {
            Ok(0) => self.rolling.is_settled = true,
            Ok(count) => {
                self.rolling.is_settled = true;
                observers::write(
                    Level::Info,
                    format_args!("revoked-sequence-grants grants={count} by=key-change"),
                );
            }
            Err(error) => drop(self.note_roll(Some(error.to_string()))),
        }
    }

    /// As [`Daemon::roll`], after the rules were loaded.
    pub(super) fn roll_again(&mut self) {
        self.rolling.told = None;
        self.roll();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oneknock_shared::knock::Timestamp;
    use oneknock_shared::secret::{Secret, ServerId};

    fn at(ms: u64) -> Now {
        Now {
            wall: Timestamp(ms),
            mono: Duration::from_millis(ms),
        }
    }

    fn keys(count: usize) -> Vec<Subkeys> {
        let id = ServerId::generate().unwrap();
        let key = |_| Subkeys::derive(&Secret::generate().unwrap(), &id);
        (0..count).map(key).collect()
    }

    fn of(keys: &[Subkeys]) -> BTreeMap<GenerationId, &Subkeys> {
        keys.iter().map(|key| (key.id(), key)).collect()
    }

    #[test]
    fn three_minutes_have_their_steps_until_each_is_over() {
        let keys = keys(1);
        let now = at(1_800_000_030_000);
        let found = steps(&of(&keys), now);
        assert_eq!(found.len(), 3 * rolling::STEPS);
        let times: BTreeSet<u64> = found.iter().map(|step| step.time.as_secs()).collect();
        assert_eq!(times, [30, 90, 150].into());
        // The same within the minute but for the time that remains.
        let later = steps(&of(&keys), at(1_800_000_040_000));
        let bare = |steps: &[RollingStep]| -> Vec<_> {
            steps.iter().map(|s| (s.at, s.port, s.id)).collect()
        };
        assert_eq!(bare(&found), bare(&later));
    }

    #[test]
    fn port_is_one_step_of_one_sequence_only() {
        let keys = keys(200);
        let found = steps(&of(&keys), at(1_800_000_000_000));
        let positions: BTreeSet<_> = found.iter().map(|step| (step.at, step.port)).collect();
        assert_eq!(positions.len(), found.len());
        assert!(found.len().is_multiple_of(rolling::STEPS));
    }
}
