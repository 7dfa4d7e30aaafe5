//! What anybody can send makes the gate allocate nothing.
#![allow(clippy::unwrap_used, missing_docs)] // A test's panic is its verdict.

use oneknock_shared::knock::{Action, Knock, Timestamp};
use oneknock_shared::packet::{LEN, seal};
use oneknock_shared::secret::{Secret, ServerId, Subkeys, random};
use oneknockd::config::{Config, Generation, Key, Policy, Settings};
use oneknockd::gate::{Gate, Junk, Now, Verdict};
use std::net::Ipv4Addr;
use std::time::Duration;

#[test]
fn junk_and_forgeries_allocate_nothing() {
    let now = Now {
        wall: Timestamp(1_800_000_000_000),
        mono: Duration::from_secs(1_000),
    };
    let (name, host) = ("home".parse().unwrap(), "home.test".parse().unwrap());
    let (id, secret) = (ServerId::generate().unwrap(), Secret::generate().unwrap());
    let subkeys = Subkeys::derive(&secret, &id);
    let generation = Generation {
        number: 1,
        secret,
        not_before: None,
        not_after: None,
        overlap_until: None,
        made: None,
    };
    let key = Key {
        name: "laptop".parse().unwrap(),
        policy: Policy::new(Vec::new()),
        generations: vec![generation],
    };
    let settings = Settings {
        config: Config::new(name, host, 45123, id, "/nowhere".into()),
        keys: vec![key],
    };
    let mut gate = Gate::new(&settings, now);
    let knock = Knock {
        action: Action::Open { seconds: 60 },
        timestamp: now.wall,
        address: None,
        service: None,
    };
    let mut forged = seal(&subkeys, &knock, random().unwrap());
    forged[LEN - 1] ^= 1;
    let cases: [(&[u8], Junk); 4] = [
        (&[], Junk::Length),
        (&[0x5a; LEN + 1], Junk::Length),
        (&[0x5a; LEN], Junk::Selector),
        (&forged, Junk::Mac),
    ];
    for (bytes, junk) in cases {
        let source = Ipv4Addr::new(192, 0, 2, 7).into();
        let allocated = allocation_counter::measure(|| {
            for _ in 0..1_000 {
                let verdict = gate.handle(now, source, bytes);
                assert!(matches!(verdict, Verdict::Junk(found) if found == junk));
            }
        });
        assert_eq!(allocated.count_total, 0, "{junk:?}");
    }
}
