//! The parts of the hot path behind the engine: what a knock costs in the store and in the
//! kernel. As root: the kernel's tables are those of a network namespace of its own.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use divan::{Bencher, counter::ItemsCount};
use oneknock_shared::knock::{Action, Timestamp};
use oneknock_shared::packet::PacketId;
use oneknock_shared::secret::{GenerationId, ServerId, random};
use oneknockd::engine::{AllowEntry, Desired, Now, Source, Spend, State, Target};
use oneknockd::files::Owner;
use oneknockd::kernel::{Guard, GuardMode, GuardedService, Kernel};
use oneknockd::store::{SpentLog, Store};
use std::net::Ipv4Addr;
use std::sync::Arc;
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

fn spend(number: u32) -> Spend {
    Spend {
        key: Arc::new("laptop".parse().unwrap()),
        generation: GenerationId([7; 16]),
        number: 1,
        at: NOW.wall,
        id: PacketId(random().unwrap()),
        from: Ipv4Addr::from(number).into(),
        source: Source::of(Ipv4Addr::from(number).into()),
        is_signed: false,
        action: Action::Open { seconds: 0 },
        service: "ssh".parse().ok(),
    }
}

/// Appended to the log of a state beside the build, on a real disk: the packets that arrived
/// together. None is later than the high-water mark.
#[divan::bench(args = [1, 64])]
fn store(bencher: Bencher, batch: u32) {
    let owner = Owner {
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
    };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let dir = dir.path().join("state");
    Store::create(&dir, owner).unwrap();
    let (mut store, _) = Store::open(&dir, NOW).unwrap();
    store.begin(&State::default(), NOW.wall, NOW).unwrap();
    bencher
        .counter(ItemsCount::new(batch))
        .with_inputs(|| (0..batch).map(spend).collect::<Vec<_>>())
        .bench_local_values(|packets| {
            assert!(
                store
                    .spend(&packets, NOW)
                    .unwrap()
                    .iter()
                    .all(|fresh| *fresh)
            );
            if store.is_full() {
                store.rotate(State::default(), NOW).unwrap();
            }
        });
}

/// Written to the allow set: grants that arrived together, each of a new source.
#[divan::bench(args = [1, 64])]
fn kernel(bencher: Bencher, batch: u32) {
    let guard = Guard {
        server: ServerId::generate().unwrap(),
        mode: GuardMode::Exclusive,
        enforcing: true,
        trial: None,
        services: vec![GuardedService {
            name: "ssh".parse().unwrap(),
            ports: vec!["tcp/22".parse().unwrap()],
        }],
        trusted: Vec::new(),
        listen: vec!["0.0.0.0:45123".parse().unwrap()],
        sequence: None,
        prefilter_open: false,
        blocked_gateways: Vec::new(),
    };
    let (mut kernel, mut desired) = (Kernel::open().unwrap(), Desired::default());
    kernel.install(&guard, None, NOW, false).unwrap();
    let key = Arc::new("laptop".parse().unwrap());
    let mut source = 0x0a00_0000_u32;
    bencher.counter(ItemsCount::new(batch)).bench_local(|| {
        for _ in 0..batch {
            source += 1;
            let target = Target {
                service: "ssh".parse().unwrap(),
                source: Source::of(Ipv4Addr::from(source).into()),
            };
            let entry = AllowEntry {
                key: Arc::clone(&key),
                until: NOW.mono + Duration::from_secs(3),
            };
            desired.set(target, Some(entry));
        }
        kernel.sync(&mut desired, NOW).unwrap();
    });
}
