//! What anybody can send makes the engine allocate nothing, and a knock next to nothing.
#![allow(clippy::unwrap_used, missing_docs)] // A test's panic is its verdict.

use oneknock_shared::knock::{Action, Knock, Timestamp};
use oneknock_shared::packet::seal;
use oneknock_shared::secret::{Secret, ServerId, Subkeys, random};
use oneknockd::engine::{
    Engine, Event, GenerationRules, Junk, KeyRules, Now, Reason, Rejection, Rules, ServiceRules,
};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

const NOW: Now = Now {
    wall: Timestamp(1_800_000_000_000),
    mono: Duration::from_secs(1_000),
};

fn subkeys() -> Subkeys {
    let id = ServerId::generate().unwrap();
    Subkeys::derive(&Secret::generate().unwrap(), &id)
}

fn engine(subkeys: &Subkeys) -> Engine {
    let hour = Duration::from_secs(3600);
    let ssh = "ssh".parse().unwrap();
    let rules = Rules {
        skew: Duration::from_secs(30),
        rotation_grace: hour,
        allow_gateway: false,
        services: vec![ServiceRules {
            name: ssh,
            default_time: hour,
            max_time: hour,
        }],
        keys: vec![KeyRules {
            name: Arc::new("laptop".parse().unwrap()),
            services: vec![ssh],
            max_time: None,
            require_signed_address: false,
            allow_other_address: false,
            max_grants: 1_000_000,
            knocks_per_minute: 1_000_000,
            generations: vec![GenerationRules {
                number: 1,
                subkeys: subkeys.clone(),
                not_before: None,
                not_after: None,
            }],
        }],
    };
    Engine::new(rules, NOW)
}

fn packet(subkeys: &Subkeys) -> Vec<u8> {
    let knock = Knock {
        action: Action::Open { seconds: 60 },
        timestamp: NOW.wall,
        address: None,
        service: None,
    };
    seal(subkeys, &knock, random().unwrap()).to_vec()
}

#[test]
fn junk_forgery_and_replay_allocate_nothing() {
    let subkeys = subkeys();
    let mut engine = engine(&subkeys);
    let source = Ipv4Addr::new(192, 0, 2, 7).into();
    let spent = packet(&subkeys);
    engine.judge(NOW, source, &spent).unwrap();
    let mut forged = packet(&subkeys);
    *forged.last_mut().unwrap() ^= 1;
    let (random, long) = (vec![0x5a; spent.len()], vec![0x5a; 1500]);
    let replayed = Event::Rejected(Rejection {
        key: Arc::new("laptop".parse().unwrap()),
        source,
        service: None,
        authenticated: false,
        reason: Reason::Replayed,
    });
    let cases: [(&[u8], Event); 5] = [
        (&[], Event::Junk(Junk::Length)),
        (&long, Event::Junk(Junk::Length)),
        (&random, Event::Junk(Junk::Selector)),
        (&forged, Event::Junk(Junk::Mac)),
        (&spent, replayed),
    ];
    for (bytes, event) in cases {
        let allocated = allocation_counter::measure(|| {
            for _ in 0..1_000 {
                assert_eq!(engine.judge(NOW, source, bytes).unwrap_err(), event);
            }
        });
        assert_eq!(allocated.count_total, 0, "{} bytes", bytes.len());
    }
}

#[test]
fn knock_allocates_a_few_times_at_most() {
    const KNOCKS: u64 = 10_000;
    let subkeys = subkeys();
    let mut engine = engine(&subkeys);
    let packets: Vec<Vec<u8>> = (0..KNOCKS).map(|_| packet(&subkeys)).collect();
    let mut address = u32::from(Ipv4Addr::new(20, 0, 0, 0));
    let allocated = allocation_counter::measure(|| {
        for packet in &packets {
            address += 1;
            let source = Ipv4Addr::from(address).into();
            let spend = engine.judge(NOW, source, packet).unwrap();
            engine.commit(NOW, &[spend]);
            // Accepted, and granted.
            assert_eq!(engine.drain_events().count(), 2);
        }
    });
    let per_knock = allocated.count_total / KNOCKS;
    assert!(per_knock <= 2, "{per_knock} allocations for each knock");
}
