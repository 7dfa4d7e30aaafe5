use super::*;
use crate::kernel::netlink::Writer;
use proptest::prelude::*;

/// A route as the kernel lists it: family, bits, type, and then its attributes.
fn route(family: u8, bits: u8, kind: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = Writer(vec![family, bits, 0, 0, 0xfe, 3, 0, kind, 0, 0, 0, 0]);
    for (number, value) in attributes {
        bytes.bytes(*number, value);
    }
    bytes.0
}

const V4: u8 = 2;
const V6: u8 = 10;
const UNICAST: u8 = 1;
const OIF: (u16, &[u8]) = (4, &[3, 0, 0, 0]);

fn gateways(route: &[u8]) -> Vec<String> {
    let found = read(route).unwrap();
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn gateway_of_either_family_is_found() {
    let v4 = route(V4, 0, UNICAST, &[(5, &[192, 0, 2, 1]), OIF]);
    assert_eq!(gateways(&v4), ["192.0.2.1"]);
    let mut octets = [0; 16];
    (octets[0], octets[15]) = (0xfd, 9);
    let v6 = route(V6, 0, UNICAST, &[(5, &octets), OIF]);
    assert_eq!(gateways(&v6), ["fd00::9"]);
    let through_v6 = [&[10, 0][..], &octets].concat();
    let via = route(V4, 0, UNICAST, &[(18, &through_v6), OIF]);
    assert_eq!(gateways(&via), ["fd00::9"]);
}

/// What the kernel of a little-endian machine lists of a route with two next hops.
#[cfg(target_endian = "little")]
#[test]
fn every_next_hop_is_found() {
    let listed = [
        &[2, 0, 0, 0, 0x64, 3, 0, 1, 0, 0, 0, 0][..],
        &[8, 0, 0x0f, 0, 0x64, 0, 0, 0],
        &[0x24, 0, 9, 0],
        &[0x10, 0, 0, 0, 3, 0, 0, 0, 8, 0, 5, 0, 192, 0, 2, 2],
        &[0x10, 0, 0, 0, 3, 0, 0, 0, 8, 0, 5, 0, 192, 0, 2, 3],
    ];
    assert_eq!(gateways(&listed.concat()), ["192.0.2.2", "192.0.2.3"]);
}

#[test]
fn route_to_a_link_alone_or_to_nowhere_has_no_gateway() {
    assert!(gateways(&route(V4, 0, UNICAST, &[OIF])).is_empty());
    assert!(gateways(&route(V4, 0, UNICAST, &[(30, &[7, 0, 0, 0]), OIF])).is_empty());
    let unreachable = 7;
    let gateway: (u16, &[u8]) = (5, &[192, 0, 2, 1]);
    assert!(gateways(&route(V4, 0, unreachable, &[gateway])).is_empty());
}

#[test]
fn next_hop_that_is_a_number_alone_is_an_error() {
    let number = 7_u32.to_ne_bytes();
    let error = read(&route(V4, 0, UNICAST, &[(30, &number)])).unwrap_err();
    assert!(matches!(error, RouteError::NextHopObject(7)), "{error}");
}

#[test]
fn default_route_that_is_cut_short_is_an_error() {
    let whole = route(V4, 0, UNICAST, &[(5, &[192, 0, 2, 1]), OIF]);
    for end in [4, 11, 15, 19] {
        let error = read(&whole[..end]).unwrap_err();
        assert!(matches!(error, RouteError::Decode(_)), "{end} {error}");
    }
}

#[test]
fn route_is_a_default_one_by_its_length() {
    let is = |kind, body: &[u8]| {
        is_default(&RawMessage {
            kind,
            flags: 0,
            sequence: 0,
            port: 0,
            body,
        })
    };
    for (family, bits, want) in [
        (V4, 0, true),
        (V4, 1, true),
        (V4, 2, false),
        (V4, 32, false),
        (V6, 0, true),
        (V6, 3, true),
        (V6, 4, false),
        // Multicast routing of IPv4.
        (128, 0, false),
    ] {
        for kind in [NEW_ROUTE, DELETE_ROUTE] {
            assert_eq!(is(kind, &route(family, bits, UNICAST, &[])), want);
        }
    }
    assert!(!is(16, &route(V4, 0, UNICAST, &[])));
    assert!(!is(NEW_ROUTE, &[V4]));
}

proptest! {
    #[test]
    fn garbage_and_damage_are_read_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..100),
        at in 0_usize..48,
        value: u8,
    ) {
        let _ = read(&bytes);
        let hops = [&[16, 0, 0, 0, 3, 0, 0, 0, 8, 0, 5, 0, 192, 0, 2, 2][..]; 2].concat();
        let mut damaged = route(V4, 0, UNICAST, &[(9, &hops)]);
        damaged[at] = value;
        let _ = read(&damaged);
    }
}
