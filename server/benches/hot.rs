//! The parts of the hot path, one by one: what a knock costs in the gate, in the ledger and
//! in the firewall. As root: the firewall is that of a network namespace of its own.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use divan::{Bencher, counter::ItemsCount};
use oneknock_shared::knock::{Action, Knock, Timestamp};
use oneknock_shared::packet::{LEN, Packet, seal};
use oneknock_shared::secret::{Secret, ServerId, Subkeys, random};
use oneknockd::config::{Config, Generation, Key, Policy, Service, Settings};
use oneknockd::files::Owner;
use oneknockd::firewall::Firewall;
use oneknockd::gate::{Accepted, Change, Gate, Now, Verdict};
use oneknockd::ledger::Ledger;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

fn main() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
        .expect("a network namespace: run this as root");
    divan::main();
}

const NOW: Now = Now {
    wall: Timestamp(1_800_000_000_000),
    mono: Duration::from_secs(1_000),
};

fn settings(keys: usize) -> Settings {
    let (name, host) = ("home".parse().unwrap(), "home.test".parse().unwrap());
    let id = ServerId::generate().unwrap();
    let mut config = Config::new(name, host, 45123, id, "/nowhere".into());
    let ssh = "ssh".parse().unwrap();
    let ports = vec!["tcp/22".parse().unwrap()];
    config.services.push(Service::new(ssh, ports));
    let key = |number| Key {
        name: format!("key{number}").parse().unwrap(),
        policy: Policy {
            grants: 1_000_000,
            knocks_per_minute: 10_000_000,
            ..Policy::new(vec![ssh])
        },
        generations: vec![Generation {
            number: 1,
            secret: Secret::generate().unwrap(),
            not_before: None,
            not_after: None,
            overlap_until: None,
            made: None,
        }],
    };
    let keys = (0..keys).map(key).collect();
    Settings { config, keys }
}

struct Knocker {
    keys: Subkeys,
    count: u32,
}

impl Knocker {
    fn new(settings: &Settings) -> Self {
        let secret = &settings.keys[0].generations[0].secret;
        Self {
            keys: Subkeys::derive(secret, &settings.config.server_id),
            count: 0,
        }
    }

    /// A packet for ssh, and another source each time.
    fn next(&mut self) -> (IpAddr, [u8; LEN]) {
        self.count += 1;
        let knock = Knock {
            action: Action::Open { seconds: 60 },
            timestamp: NOW.wall,
            address: None,
            service: Some("ssh".parse().unwrap()),
        };
        let source = Ipv4Addr::from(0x1400_0000 + self.count).into();
        (source, seal(&self.keys, &knock, random().unwrap()))
    }

    fn accepted(&mut self, gate: &mut Gate, many: usize) -> Vec<Accepted> {
        let one = |_| {
            let (source, packet) = self.next();
            match gate.handle(NOW, source, &packet) {
                Verdict::Accepted(accepted) => accepted,
                other => panic!("{other:?}"),
            }
        };
        (0..many).map(one).collect()
    }
}

#[divan::bench]
fn verify_and_open(bencher: Bencher) {
    let settings = settings(1);
    let mut knocker = Knocker::new(&settings);
    let (_, packet) = knocker.next();
    bencher.bench_local(|| {
        let packet = Packet::read(divan::black_box(&packet)).unwrap();
        packet.verify(&knocker.keys).unwrap().open().unwrap()
    });
}

#[divan::bench(args = [1, 100, 10_000])]
fn gate_knock(bencher: Bencher, keys: usize) {
    let settings = settings(keys);
    let mut gate = Gate::new(&settings, NOW);
    let mut knocker = Knocker::new(&settings);
    bencher
        .with_inputs(|| knocker.next())
        .bench_local_values(|(source, packet)| gate.handle(NOW, source, &packet));
}

#[divan::bench(args = [1, 100, 10_000])]
fn gate_junk(bencher: Bencher, keys: usize) {
    let mut gate = Gate::new(&settings(keys), NOW);
    let junk: [u8; LEN] = [0x5a; LEN];
    let source = Ipv4Addr::new(20, 0, 0, 1).into();
    bencher.bench_local(|| gate.handle(NOW, source, divan::black_box(&junk)));
}

#[divan::bench]
fn gate_forgery(bencher: Bencher) {
    let settings = settings(1);
    let mut gate = Gate::new(&settings, NOW);
    let (source, mut packet) = Knocker::new(&settings).next();
    packet[LEN - 1] ^= 1;
    bencher.bench_local(|| gate.handle(NOW, source, divan::black_box(&packet)));
}

/// As many packets in one transaction.
#[divan::bench(args = [1, 16, 128])]
fn ledger_record(bencher: Bencher, many: usize) {
    let settings = settings(1);
    let (mut gate, mut knocker) = (Gate::new(&settings, NOW), Knocker::new(&settings));
    let folder = tempfile::tempdir().unwrap();
    let owner = Owner { uid: 0, gid: 0 };
    let state = folder.path().join("state");
    Ledger::create(&state, owner).unwrap();
    let (mut ledger, _) = Ledger::open(&state, NOW).unwrap();
    ledger.begin(&gate.forgotten(NOW), Timestamp(0)).unwrap();
    bencher
        .counter(ItemsCount::new(many))
        .with_inputs(|| knocker.accepted(&mut gate, many))
        .bench_local_refs(|batch| ledger.record(batch, NOW).unwrap());
}

/// As many grants in one transaction.
#[divan::bench(args = [1, 16, 128])]
fn firewall_grant(bencher: Bencher, many: usize) {
    let settings = settings(1);
    let mut firewall = Firewall::open().unwrap();
    firewall.put_up(&settings.config, false).unwrap();
    let (mut gate, mut knocker) = (Gate::new(&settings, NOW), Knocker::new(&settings));
    bencher
        .counter(ItemsCount::new(many))
        .with_inputs(|| {
            let accepted = knocker.accepted(&mut gate, many);
            let changes: Vec<Change> = accepted.into_iter().flat_map(|a| a.changes).collect();
            changes
        })
        .bench_local_refs(|changes| firewall.apply(changes).unwrap());
}
