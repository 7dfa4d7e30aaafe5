//! What a packet costs in the engine, and what 10,000 keys cost at a start.
#![allow(missing_docs, clippy::unwrap_used)]

use divan::Bencher;
use oneknock_shared::knock::{Action, Knock, Timestamp};
use oneknock_shared::packet::seal;
use oneknock_shared::secret::{Secret, ServerId, Subkeys, random};
use oneknockd::engine::{Engine, GenerationRules, KeyRules, Now, Rules, ServiceRules, Spend};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

fn main() {
    divan::main();
}

const NOW: Now = Now {
    wall: Timestamp(1_800_000_000_000),
    mono: Duration::from_secs(1_000),
};

fn rules(keys: usize) -> Rules {
    let id = ServerId::generate().unwrap();
    let ssh = "ssh".parse().unwrap();
    let hour = Duration::from_secs(3600);
    let key = |number| KeyRules {
        name: Arc::new(format!("key{number}").parse().unwrap()),
        services: vec![ssh],
        max_time: None,
        require_signed_address: false,
        allow_other_address: false,
        max_grants: 1_000_000,
        knocks_per_minute: 10_000_000,
        generations: vec![GenerationRules {
            number: 1,
            subkeys: Subkeys::derive(&Secret::generate().unwrap(), &id),
            not_before: None,
            not_after: None,
        }],
    };
    Rules {
        skew: Duration::from_secs(30),
        rotation_grace: hour,
        allow_gateway: false,
        services: vec![ServiceRules {
            name: ssh,
            default_time: hour,
            max_time: hour,
        }],
        keys: (0..keys).map(key).collect(),
    }
}

/// Makes packets for ssh, each from another source.
struct Knocker {
    subkeys: Subkeys,
    count: u32,
}

impl Knocker {
    fn new(rules: &Rules) -> Self {
        let subkeys = rules.keys[0].generations[0].subkeys.clone();
        Self { subkeys, count: 0 }
    }

    fn next(&mut self) -> (IpAddr, Vec<u8>) {
        self.count += 1;
        let knock = Knock {
            action: Action::Open { seconds: 60 },
            timestamp: NOW.wall,
            address: None,
            service: Some("ssh".parse().unwrap()),
        };
        let source = Ipv4Addr::from(0x1400_0000 + self.count).into();
        (
            source,
            seal(&self.subkeys, &knock, random().unwrap()).to_vec(),
        )
    }
}

fn engine(keys: usize) -> (Engine, Knocker) {
    let rules = rules(keys);
    let knocker = Knocker::new(&rules);
    (Engine::new(rules, NOW), knocker)
}

#[divan::bench(args = [1, 100, 10_000])]
fn judge_knock(bencher: Bencher, keys: usize) {
    let (mut engine, mut knocker) = engine(keys);
    bencher
        .with_inputs(|| knocker.next())
        .bench_local_values(|(source, packet)| engine.judge(NOW, source, &packet).is_ok());
}

#[divan::bench(args = [1, 100, 10_000])]
fn judge_junk(bencher: Bencher, keys: usize) {
    let (mut engine, mut knocker) = engine(keys);
    let junk = vec![0x5a; knocker.next().1.len()];
    let source = Ipv4Addr::new(20, 0, 0, 1).into();
    bencher.bench_local(|| engine.judge(NOW, source, divan::black_box(&junk)).is_err());
}

#[divan::bench]
fn judge_forgery(bencher: Bencher) {
    let (mut engine, mut knocker) = engine(1);
    let (source, mut packet) = knocker.next();
    *packet.last_mut().unwrap() ^= 1;
    bencher.bench_local(|| {
        engine
            .judge(NOW, source, divan::black_box(&packet))
            .is_err()
    });
}

#[divan::bench(args = [1, 10_000])]
fn commit(bencher: Bencher, keys: usize) {
    let (engine, mut knocker) = engine(keys);
    let engine = std::cell::RefCell::new(engine);
    bencher
        .with_inputs(|| {
            let (source, packet) = knocker.next();
            engine.borrow_mut().judge(NOW, source, &packet).unwrap()
        })
        .bench_local_refs(|spend: &mut Spend| {
            let mut engine = engine.borrow_mut();
            engine.commit(NOW, std::slice::from_ref(spend));
            engine.drain_events().count()
        });
}

/// Without the derivation of subkeys, which is the configuration's.
#[divan::bench(args = [1, 10_000], sample_count = 20)]
fn construct(bencher: Bencher, keys: usize) {
    let rules = rules(keys);
    bencher
        .with_inputs(|| rules.clone())
        .bench_local_values(|rules| Engine::new(rules, NOW));
}

/// With a grant of every key.
#[divan::bench(args = [1, 10_000])]
fn tick(bencher: Bencher, keys: usize) {
    let rules = rules(keys);
    let all = rules.keys.iter();
    let all: Vec<Subkeys> = all.map(|key| key.generations[0].subkeys.clone()).collect();
    let mut engine = Engine::new(rules, NOW);
    for (subkeys, count) in all.into_iter().zip(0..) {
        let (source, packet) = Knocker { subkeys, count }.next();
        let spend = engine.judge(NOW, source, &packet).unwrap();
        engine.commit(NOW, &[spend]);
    }
    bencher.bench_local(|| engine.tick(NOW));
}
