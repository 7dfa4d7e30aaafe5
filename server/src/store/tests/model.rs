//! Any sequence of packets, outcomes, rotations and restarts comes to the state that a simple
//! model comes to.

use super::*;
use crate::engine::Close;
use oneknock_shared::name::{KeyName, ServiceName};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Step {
    /// Packets by their numbers: the same number is the same packet.
    Spend(Vec<u64>),
    Grant {
        key: bool,
        target: u8,
        seconds: u16,
    },
    Close {
        key: bool,
        target: u8,
    },
    End {
        key: bool,
        target: u8,
        why: EndReason,
    },
    Retire(u8),
    RaiseFloor(u8),
    Rotate,
    Pass(u16),
    Restart(End),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    CleanStop,
    Shutdown,
    PowerCut,
}

#[derive(Default)]
struct Model {
    seconds: u64,
    /// The least that the mark says after a power cut.
    greatest: u64,
    seen: BTreeMap<PacketId, (GenerationId, Timestamp)>,
    floors: BTreeMap<GenerationId, Timestamp>,
    default_floor: Option<Timestamp>,
    closes: BTreeMap<(bool, Option<u8>), Timestamp>,
    grants: BTreeMap<(bool, u8), Grant>,
    retirements: BTreeMap<GenerationId, Timestamp>,
}

fn name(key: bool) -> KeyName {
    ["laptop", "phone"][usize::from(key)].parse().unwrap()
}

fn service(target: u8) -> ServiceName {
    ["ssh", "web"][usize::from(target % 2)].parse().unwrap()
}

fn source() -> Source {
    Source::of([192, 0, 2, 7].into())
}

/// What the packet of a number is: its time is that of the test when it is first sent.
fn packet(number: u64, at: Timestamp) -> Spend {
    let is_close = number.is_multiple_of(5);
    let target = (number % 3 != 2).then(|| service((number % 2) as u8));
    Spend {
        key: Arc::new(name(number.is_multiple_of(2))),
        generation: generation((number % 3) as u8),
        action: if is_close {
            Action::Close
        } else {
            Action::Open { seconds: 1 }
        },
        service: target,
        ..open(number, at)
    }
}

impl Model {
    fn now(&self) -> Now {
        after(self.seconds)
    }

    fn state(&self) -> State {
        let now = self.now();
        let seen = self.seen.iter().map(|(id, (g, at))| (*g, *at, *id));
        let mut seen: Vec<_> = seen
            .filter(|(g, at, _)| self.floors.get(g) < Some(at))
            .collect();
        seen.sort_unstable();
        let close = |(key, target): &(bool, Option<u8>), at: &Timestamp| Close {
            key: name(*key),
            service: target.map(service),
            source: source(),
            at: *at,
        };
        let mut closes: Vec<Close> = self.closes.iter().map(|(k, at)| close(k, at)).collect();
        closes.sort_by_key(|close| (close.key.clone(), close.service));
        let live = self.grants.values().filter(|grant| grant.until > now.mono);
        let mut grants: Vec<Grant> = live.cloned().collect();
        grants.sort_by_key(|grant| (Arc::clone(&grant.key), grant.target));
        State {
            seen,
            floors: self.floors.iter().map(|(g, at)| (*g, *at)).collect(),
            default_floor: self.default_floor,
            closes,
            grants,
            retirements: self.retirements.iter().map(|(g, at)| (*g, *at)).collect(),
        }
    }

    fn raise_floor(&mut self, generation: GenerationId, at: Timestamp) {
        let floor = self.floors.entry(generation).or_insert(at);
        *floor = at.max(*floor);
    }

    fn spend(&mut self, spend: &Spend) -> bool {
        let fresh = self
            .seen
            .insert(spend.id, (spend.generation, spend.at))
            .is_none();
        self.greatest = self.greatest.max(spend.at.0);
        if spend.action == Action::Close && fresh {
            let (key, target) = (
                *spend.key == name(true),
                spend.service.map(|s| u8::from(s == service(1))),
            );
            let last = self.closes.entry((key, target)).or_insert(spend.at);
            *last = spend.at.max(*last);
            self.grants
                .retain(|(other, of), _| *other != key || target.is_some_and(|t| t != *of));
        }
        fresh
    }

    /// What the engine does with time: the packets are forgotten that are older than this.
    fn prune(&mut self, oldest: Timestamp) {
        let old: Vec<_> = self
            .seen
            .extract_if(.., |_, (_, at)| *at < oldest)
            .collect();
        for (_, (generation, at)) in old {
            self.raise_floor(generation, at);
        }
    }

    fn restart(&mut self, end: End, floor: Option<Timestamp>) {
        if let Some(floor) = floor {
            for number in 0..3 {
                self.raise_floor(generation(number), floor);
            }
            self.default_floor = self.default_floor.max(Some(floor));
        }
        if matches!(end, End::PowerCut | End::Shutdown) {
            self.grants.clear();
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let key = any::<bool>;
    let target = || 0_u8..2;
    let why = prop_oneof![
        Just(EndReason::Revoked),
        Just(EndReason::KeyChanged),
        Just(EndReason::Expired)
    ];
    let end = prop_oneof![
        4 => Just(End::Kill),
        2 => Just(End::CleanStop),
        1 => Just(End::Shutdown),
        1 => Just(End::PowerCut),
    ];
    prop_oneof![
        8 => proptest::collection::vec(0_u64..60, 0..6).prop_map(Step::Spend),
        4 => (key(), target(), 1_u16..100).prop_map(|(key, target, seconds)| Step::Grant { key, target, seconds }),
        2 => (key(), target()).prop_map(|(key, target)| Step::Close { key, target }),
        2 => (key(), target(), why).prop_map(|(key, target, why)| Step::End { key, target, why }),
        1 => (0_u8..3).prop_map(Step::Retire),
        1 => (3_u8..6).prop_map(Step::RaiseFloor),
        2 => Just(Step::Rotate),
        3 => (0_u16..30).prop_map(Step::Pass),
        2 => end.prop_map(Step::Restart),
    ]
}

/// A store beside its model.
struct Pair {
    site: Site,
    store: Option<Store>,
    model: Model,
    sent: BTreeMap<u64, Spend>,
}

impl Pair {
    fn new() -> Self {
        let site = Site::in_memory();
        let (store, _) = site.start(after(0));
        Self {
            site,
            store: Some(store),
            model: Model::default(),
            sent: BTreeMap::new(),
        }
    }

    fn note(&mut self, event: Event) {
        let now = self.model.now();
        self.store.as_mut().unwrap().note(&[event], now).unwrap();
    }

    fn go(&mut self, step: Step) {
        let now = self.model.now();
        match step {
            Step::Spend(numbers) => self.spend(&numbers),
            Step::Grant {
                key,
                target,
                seconds,
            } => {
                let grant = Grant {
                    key: Arc::new(name(key)),
                    target: Target {
                        service: service(target),
                        source: source(),
                    },
                    ..grant(now, seconds.into())
                };
                self.model.grants.insert((key, target), grant.clone());
                self.note(granted(&grant, now));
            }
            Step::Close { key, target } => {
                let grant = self.model.grants.remove(&(key, target));
                let target = Target {
                    service: service(target),
                    source: source(),
                };
                let redundant = grant.is_none();
                self.note(Event::Closed {
                    key: Arc::new(name(key)),
                    target,
                    grant,
                    redundant,
                });
            }
            Step::End { key, target, why } => {
                // One that expires does so by itself.
                let is_over = |grant: &Grant| why != EndReason::Expired || grant.until <= now.mono;
                if self.model.grants.get(&(key, target)).is_some_and(is_over) {
                    let grant = self.model.grants.remove(&(key, target)).unwrap();
                    self.note(Event::Ended { grant, why });
                }
            }
            Step::Retire(number) => {
                self.model.retirements.insert(generation(number), now.wall);
                self.note(Event::Retiring {
                    key: Arc::new(name(true)),
                    generation: generation(number),
                    number: number.into(),
                    ends: now.wall,
                    newer: 9,
                });
            }
            Step::RaiseFloor(number) => {
                self.model.raise_floor(generation(number), now.wall);
                let floors = [(generation(number), now.wall)];
                self.store.as_mut().unwrap().raise_floors(&floors).unwrap();
            }
            Step::Rotate => {
                self.model
                    .prune(Timestamp(now.wall.0.saturating_sub(60_000)));
                let state = State {
                    seen: Vec::new(),
                    ..self.model.state()
                };
                let (site, store) = (&self.site, self.store.as_mut().unwrap());
                // What is appended next goes to the segment before or to this one.
                goes_on(store, now);
                let before = site.segments();
                store.rotate(state, now).unwrap();
                until(|| site.segments().last() > before.last());
            }
            Step::Pass(seconds) => self.model.seconds += u64::from(seconds),
            Step::Restart(end) => self.restart(end),
        }
    }

    fn spend(&mut self, numbers: &[u64]) {
        let now = self.model.now();
        let packets = numbers.iter().map(|&number| {
            let new = || packet(number, now.wall);
            self.sent.entry(number).or_insert_with(new).clone()
        });
        // As the engine: what is not later than the floor does not come so far.
        let floors = &self.model.floors;
        let fresh = packets.filter(|spend| floors.get(&spend.generation) < Some(&spend.at));
        let batch: Vec<Spend> = fresh.collect();
        let want: Vec<bool> = batch.iter().map(|spend| self.model.spend(spend)).collect();
        let found = self.store.as_mut().unwrap().spend(&batch, now).unwrap();
        assert_eq!(found, want);
    }

    fn restart(&mut self, end: End) {
        let store = self.store.take().unwrap();
        match end {
            End::Kill | End::PowerCut => drop(store),
            End::CleanStop | End::Shutdown => store.close().unwrap(),
        }
        if matches!(end, End::PowerCut | End::Shutdown) {
            self.site.reboot();
        }
        let now = self.model.now();
        let (mut store, found) = self.site.open(now);
        let Recovery::State {
            mut state, floor, ..
        } = found
        else {
            panic!("{found:?}")
        };
        assert_eq!(floor.is_some(), end == End::PowerCut);
        // Five seconds ahead of the packet that raised it, at most.
        let greatest = self.model.greatest;
        assert!(floor.is_none_or(|at| (greatest..=greatest + 5_000).contains(&at.0)));
        self.model.greatest = floor.map_or(greatest, |at| at.0);
        self.model.restart(end, floor);
        let want = self.model.state();
        if floor.is_some() {
            // The floor is the engine's to raise.
            state = State {
                floors: want.floors.clone(),
                default_floor: want.default_floor,
                ..state
            };
            state
                .seen
                .retain(|(g, at, _)| self.model.floors.get(g) < Some(at));
        }
        state
            .closes
            .sort_by_key(|close| (close.key.clone(), close.service));
        assert_eq!(state, want);
        store.begin(&state, floor.unwrap_or(NOWHERE), now).unwrap();
        self.store = Some(store);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn log_comes_to_the_state_of_the_model(steps in proptest::collection::vec(step(), 1..60)) {
        let mut pair = Pair::new();
        for step in steps {
            pair.go(step);
        }
        pair.go(Step::Restart(End::Kill));
    }
}
