//! What holds for every request and every packet.

// A test that cannot go on is a failed test.
#![allow(clippy::unwrap_used)]

use oneknock_shared::knock::{Action, Knock, Timestamp, is_admissible};
use oneknock_shared::name::ServiceName;
use oneknock_shared::packet::{LEN, NONCE_LEN, Packet, seal};
use oneknock_shared::secret::{Secret, ServerId, Subkeys};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

static KEYS: LazyLock<Subkeys> =
    LazyLock::new(|| Subkeys::derive(&Secret::generate().unwrap(), &ServerId::generate().unwrap()));

fn any_address() -> impl Strategy<Value = Option<IpAddr>> {
    let v4 = any::<[u8; 4]>().prop_map(|b| IpAddr::V4(Ipv4Addr::from(b)));
    let v6 = any::<[u8; 16]>().prop_map(|b| IpAddr::V6(Ipv6Addr::from(b)).to_canonical());
    let good = prop_oneof![v4, v6].prop_filter("admissible", |a| is_admissible(*a));
    prop_oneof![Just(None), good.prop_map(Some)]
}

fn any_service() -> impl Strategy<Value = Option<ServiceName>> {
    let name = "[a-z][a-z0-9-]{0,15}".prop_map(|s| s.parse().unwrap());
    prop_oneof![Just(None), name.prop_map(Some)]
}

fn any_knock() -> impl Strategy<Value = Knock> {
    let action = prop_oneof![
        Just(Action::Close),
        any::<u16>().prop_map(|seconds| Action::Open { seconds })
    ];
    (action, any::<u64>(), any_address(), any_service()).prop_map(
        |(action, timestamp, address, service)| Knock {
            action,
            timestamp: Timestamp(timestamp),
            address,
            service,
        },
    )
}

proptest! {
    #[test]
    fn any_knock_survives_the_round_trip(knock in any_knock(), nonce: [u8; NONCE_LEN]) {
        let packet = seal(&KEYS, &knock, nonce);
        let request = Packet::read(&packet).unwrap().verify(&KEYS).unwrap().open().unwrap();
        prop_assert_eq!(*request.knock(), knock);
    }

    #[test]
    fn no_changed_packet_is_accepted(
        knock in any_knock(),
        nonce: [u8; NONCE_LEN],
        changes in prop::collection::vec((0..LEN, 1..=u8::MAX), 1..8),
    ) {
        let packet = seal(&KEYS, &knock, nonce);
        let mut changed = packet;
        for (at, mask) in changes {
            changed[at] ^= mask;
        }
        prop_assume!(changed != packet);
        prop_assert!(Packet::read(&changed).unwrap().verify(&KEYS).is_none());
    }

    #[test]
    fn no_datagram_is_accepted_without_the_key(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let accepted = Packet::read(&bytes).and_then(|p| p.verify(&KEYS).map(|_| ()));
        prop_assert!(accepted.is_none());
    }
}
