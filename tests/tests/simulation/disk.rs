//! The ledger in memory: what is written survives a kill, what is synced a power cut.

use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::KeyName;
use oneknock_shared::packet::PacketId;
use oneknock_shared::secret::GenerationId;
use oneknock_tests::chance::Chance;
use oneknockd::gate::{Accepted, Claim, Forgotten, Lost, Memory, Now, Place};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How far ahead of a packet's timestamp the lease is written, in milliseconds.
const LEASE_MS: u64 = 5_000;

/// One commit.
enum Commit {
    Record {
        key: KeyName,
        generation: GenerationId,
        packet: (Timestamp, PacketId),
        /// Older generations that end then.
        retired: Vec<(GenerationId, Timestamp)>,
        /// Opened until then, or closed.
        places: Vec<(Place, Option<Duration>)>,
    },
    /// The claims as they were before a packet.
    Claims {
        key: KeyName,
        generation: GenerationId,
        retired: Vec<GenerationId>,
        places: Vec<(Place, Option<Duration>)>,
    },
    Forget {
        oldest: Timestamp,
        floors: Vec<(GenerationId, Timestamp)>,
    },
    End(Vec<(KeyName, Place)>),
}

#[derive(Default, Clone)]
struct Rows {
    seen: BTreeMap<GenerationId, BTreeSet<(Timestamp, PacketId)>>,
    floors: BTreeMap<GenerationId, Timestamp>,
    closes: BTreeMap<(KeyName, Place), Timestamp>,
    claims: BTreeMap<(KeyName, Place), (GenerationId, Duration)>,
    retires: BTreeMap<GenerationId, Timestamp>,
}

impl Rows {
    fn apply(&mut self, commit: &Commit) {
        match commit {
            Commit::Record {
                key,
                generation,
                packet,
                retired,
                places,
            } => {
                self.retires.extend(retired.iter().copied());
                self.seen.entry(*generation).or_default().insert(*packet);
                for &(place, until) in places {
                    let at = (key.clone(), place);
                    if let Some(until) = until {
                        let claim = self.claims.entry(at).or_insert((*generation, until));
                        *claim = (*generation, claim.1.max(until));
                    } else {
                        self.claims.remove(&at);
                        let last = self.closes.entry(at).or_insert(packet.0);
                        *last = (*last).max(packet.0);
                    }
                }
            }
            Commit::Claims {
                key,
                generation,
                retired,
                places,
            } => {
                self.retires.retain(|id, _| !retired.contains(id));
                for &(place, until) in places {
                    let at = (key.clone(), place);
                    match until {
                        Some(until) => self.claims.insert(at, (*generation, until)),
                        None => self.claims.remove(&at),
                    };
                }
            }
            Commit::Forget { oldest, floors } => {
                for &(generation, floor) in floors {
                    let had = self.floors.entry(generation).or_insert(floor);
                    *had = (*had).max(floor);
                }
                for seen in self.seen.values_mut() {
                    *seen = seen.split_off(&(*oldest, PacketId([0; 32])));
                }
                self.closes.retain(|_, at| *at >= *oldest);
            }
            Commit::End(claims) => {
                for claim in claims {
                    self.claims.remove(claim);
                }
            }
        }
    }
}

/// How a run of the daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Clean,
    Killed,
    PowerCut,
    /// As killed; and the state is gone.
    StateLost,
}

pub struct Disk {
    /// Whether there is a state at all.
    exists: bool,
    written: Rows,
    synced: Rows,
    unsynced: Vec<Commit>,
    /// Nothing later was accepted.
    lease: Timestamp,
    greatest: Timestamp,
}

impl Disk {
    /// The empty state that `init` makes.
    pub fn new() -> Self {
        Self {
            exists: true,
            written: Rows::default(),
            synced: Rows::default(),
            unsynced: Vec::new(),
            lease: Timestamp(0),
            greatest: Timestamp(0),
        }
    }

    fn commit(&mut self, commit: Commit) {
        self.written.apply(&commit);
        self.unsynced.push(commit);
    }

    /// Everything written is synced.
    pub fn sync(&mut self) {
        for commit in self.unsynced.drain(..) {
            self.synced.apply(&commit);
        }
    }

    /// What a start finds, and the floor after a power cut. `None`: no state.
    pub fn start(
        &mut self,
        end: End,
        chance: &mut Chance,
        now: Now,
    ) -> Option<(Memory, Option<Timestamp>)> {
        match end {
            End::StateLost => {
                *self = Self::new();
                self.exists = false;
            }
            End::PowerCut => {
                let kept = chance.index(self.unsynced.len() + 1);
                self.unsynced.truncate(kept);
                self.sync();
                self.written = self.synced.clone();
                self.written.claims.clear();
                self.synced.claims.clear();
            }
            End::Clean => {
                self.sync();
                self.lease = self.lease.min(self.greatest);
            }
            End::Killed => {}
        }
        if !self.exists {
            return None;
        }
        self.expire(now);
        let rows = &self.written;
        let seen = rows
            .seen
            .iter()
            .flat_map(|(&g, seen)| seen.iter().map(move |&(at, id)| (g, at, id)));
        let claims = rows
            .claims
            .iter()
            .map(|((key, place), &(generation, until))| Claim {
                generation,
                key: key.clone(),
                place: *place,
                until,
            });
        let memory = Memory {
            seen: seen.collect(),
            floors: rows.floors.iter().map(|(&g, &f)| (g, f)).collect(),
            closes: rows
                .closes
                .iter()
                .map(|((k, p), &at)| (k.clone(), *p, at))
                .collect(),
            claims: claims.collect(),
            retires: rows.retires.iter().map(|(&g, &at)| (g, at)).collect(),
        };
        Some((memory, (end == End::PowerCut).then_some(self.lease)))
    }

    /// Of which it has a record.
    pub fn generations(&self) -> BTreeSet<GenerationId> {
        let seen = self
            .written
            .seen
            .iter()
            .filter(|(_, seen)| !seen.is_empty());
        let seen = seen.map(|(generation, _)| *generation);
        seen.chain(self.written.floors.keys().copied()).collect()
    }

    pub fn retires(&self) -> &BTreeMap<GenerationId, Timestamp> {
        &self.written.retires
    }

    /// The claims that one of these generations has opened.
    pub fn opened_by(&self, generations: &BTreeSet<GenerationId>) -> BTreeSet<(KeyName, Place)> {
        let claims = self.written.claims.iter();
        let theirs = claims.filter(|(_, (by, _))| generations.contains(by));
        theirs.map(|(claim, _)| claim.clone()).collect()
    }

    pub fn begin(&mut self, forgotten: &Forgotten, lease: Timestamp) {
        self.exists = true;
        self.forget(forgotten);
        self.lease = self.lease.max(lease);
        self.greatest = self.greatest.max(lease);
    }

    pub fn record(&mut self, accepted: &Accepted, now: Now) {
        let at = accepted.at;
        if at > self.lease {
            self.lease = Timestamp(at.0 + LEASE_MS);
        }
        self.greatest = self.greatest.max(at);
        let until =
            |&(place, time): &(Place, Option<Duration>)| (place, time.map(|t| now.mono + t));
        self.commit(Commit::Record {
            key: (*accepted.key).clone(),
            generation: accepted.generation,
            packet: (at, accepted.id),
            retired: accepted
                .retired
                .iter()
                .map(|r| (r.generation, r.at))
                .collect(),
            places: accepted.asked.iter().map(until).collect(),
        });
    }

    pub fn undo(&mut self, accepted: &Accepted) {
        self.commit(Commit::Claims {
            key: (*accepted.key).clone(),
            generation: accepted.generation,
            retired: accepted.retired.iter().map(|r| r.generation).collect(),
            places: accepted.undo.clone(),
        });
    }

    pub fn forget(&mut self, forgotten: &Forgotten) {
        self.commit(Commit::Forget {
            oldest: forgotten.oldest,
            floors: forgotten.floors.clone(),
        });
    }

    pub fn lose(&mut self, lost: &Lost) {
        let claims = lost
            .claims
            .iter()
            .map(|(key, place)| ((**key).clone(), *place));
        self.commit(Commit::End(claims.collect()));
    }

    pub fn expire(&mut self, now: Now) {
        let claims = self.written.claims.iter();
        let ended = claims.filter(|(_, (_, until))| *until <= now.mono);
        let ended: Vec<_> = ended.map(|(claim, _)| claim.clone()).collect();
        if !ended.is_empty() {
            self.commit(Commit::End(ended));
        }
    }
}
