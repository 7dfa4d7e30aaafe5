//! Packets in odd dress, and addresses that are not one host's own: none of them gets
//! round the guard. Each is sent to an unguarded port as well, where it must arrive.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::capture::{Capture, FROM_SERVER};
use oneknock_tests::packets::{self, Extension, TCP, UDP, flags};
use oneknock_tests::ssh::UNGUARDED;
use oneknock_tests::wire::{self, Listener, Probe, probe, send};
use oneknock_tests::{Host, Site, binaries, wait};
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};

/// A transport's bytes in every odd dress: name, and the packets to send in turn.
fn dresses(from: IpAddr, to: IpAddr, protocol: u8, bytes: &[u8]) -> Vec<(String, Vec<Vec<u8>>)> {
    use Extension::{Destination, Fragment, HopByHop, Routing};
    let mut all = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let id = u16::from_be_bytes([bytes[0], bytes[1]]);
            let part = |range: std::ops::Range<usize>| {
                let more = range.end < bytes.len();
                packets::ipv4(from, to, protocol, (id, range.start, more), &bytes[range])
            };
            let (tiny, rest) = (part(0..8), part(8..bytes.len()));
            all.push((
                "a tiny first fragment".into(),
                vec![tiny.clone(), rest.clone()],
            ));
            all.push(("fragments in the wrong order".into(), vec![rest, tiny]));
            let (most, rest) = (part(0..16), part(16..bytes.len()));
            all.push(("two fragments".into(), vec![most, rest]));
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let chains: &[&[Extension]] = &[
                &[HopByHop],
                &[Destination],
                &[Destination, Destination, Destination],
                &[Routing],
                &[Fragment(1, 0, false)],
                &[
                    HopByHop,
                    Destination,
                    Routing,
                    Fragment(2, 0, false),
                    Destination,
                ],
            ];
            for chain in chains {
                let packet = packets::ipv6(from, to, chain, protocol, bytes);
                all.push((format!("{chain:?}"), vec![packet]));
            }
            let id = u32::from_be_bytes([1, protocol, bytes[0], bytes[1]]);
            let part = |id, range: std::ops::Range<usize>| {
                let fragment = Fragment(id, range.start, range.end < bytes.len());
                packets::ipv6(from, to, &[fragment], protocol, &bytes[range])
            };
            // The system itself refuses a first fragment without the whole transport's
            // header (RFC 7112): 20 bytes with TCP.
            let (first, rest) = (part(id, 0..24), part(id, 24..bytes.len()));
            all.push(("two fragments".into(), vec![first, rest]));
            let (first, rest) = (part(id + 1, 0..24), part(id + 1, 24..bytes.len()));
            all.push(("fragments in the wrong order".into(), vec![rest, first]));
        }
        _ => unreachable!("one family"),
    }
    all
}

#[test]
fn fragments_and_extension_headers_do_not_get_a_tcp_connection_past_the_guard() {
    let site = Site::new(binaries!());
    let _daemon = site.daemon();
    let (stranger, server) = (&site.lab.stranger, &site.lab.server);
    let mut capture = Capture::start(stranger, FROM_SERVER);
    let syns = |to, guarded_port, port: u16| {
        let from = stranger.address_like(to);
        let data = b"said before it was asked";
        let bytes = packets::tcp((from, port), (to, guarded_port), flags::SYN, data);
        dresses(from, to, TCP, &bytes)
    };
    for to in server.addresses() {
        for index in 0..syns(to, 22, 0).len() {
            let port = 40000 + u16::try_from(index).unwrap();
            let (dress, at_guarded) = syns(to, 22, port).swap_remove(index);
            packets::send(stranger, to, &at_guarded);
            let (_, at_control) = syns(to, UNGUARDED, port + 1000).swap_remove(index);
            packets::send(stranger, to, &at_control);
            eprintln!("{to}: {dress}");
            capture.expect(&format!(".{}: Flags [S.]", port + 1000));
            assert_eq!(capture.count(&format!("{to}.22 > ")), 0, "{dress}");
        }
    }
}

#[test]
fn fragments_that_overlap_or_hide_their_header_do_not_get_past_the_guard() {
    let site = Site::new(binaries!());
    let _daemon = site.daemon();
    let (stranger, server) = (&site.lab.stranger, &site.lab.server);
    let mut capture = Capture::start(stranger, "tcp");
    // One pretends to be for the unguarded port, the other, over the same bytes, for 22.
    for ports in [[UNGUARDED, 22], [22, UNGUARDED]] {
        let segments = server.addresses().map(|to| {
            let from = stranger.address_like(to);
            ports.map(|port| packets::tcp((from, 50000), (to, port), flags::SYN, b""))
        });
        let [[a, b], [c, d]] = segments;
        let id = 77 + ports[0];
        let part = |bytes: &[u8], offset: usize, more| {
            packets::ipv4(stranger.v4, server.v4, TCP, (id, offset, more), bytes)
        };
        let all = [
            part(&a[..8], 0, true),
            part(&b[..16], 0, true),
            part(&a[8..], 8, false),
        ];
        packets::send(stranger, server.v4.into(), &all);
        let part = |bytes: &[u8], offset, more| {
            let fragment = Extension::Fragment(id.into(), offset, more);
            packets::ipv6(stranger.v6, server.v6, &[fragment], TCP, bytes)
        };
        let all = [
            part(&c[..8], 0, true),
            part(&d[..16], 0, true),
            part(&c[8..], 8, false),
        ];
        packets::send(stranger, server.v6.into(), &all);
    }
    for to in server.addresses() {
        let from = (stranger.address_like(to), 51000);
        let control = packets::segment(from, (to, UNGUARDED), flags::SYN);
        packets::send(stranger, to, &[control]);
        capture.expect(".51000: Flags [S.]");
    }
    assert_eq!(capture.count(".22 > "), 0);
}

/// A UDP service that is guarded, and one beside it that is not.
struct Services {
    guarded: Listener,
    control: Listener,
}

const GUARDED_UDP: u16 = 5000;
const CONTROL_UDP: u16 = 5001;

impl Services {
    fn start(server: &Host, ipv6: bool) -> Self {
        let group = (!ipv6).then(|| "239.1.2.3".parse().unwrap());
        Self {
            guarded: Listener::start(server, GUARDED_UDP, ipv6, group),
            control: Listener::start(server, CONTROL_UDP, ipv6, group),
        }
    }

    /// Waits until the unguarded service has received `word`; the guarded one, to which
    /// it was sent before, must have received nothing.
    #[track_caller]
    fn only_the_control_received(&self, word: &str) {
        wait::until_true(&format!("{word} is well made"), || {
            self.control.received().iter().any(|w| w == word)
        });
        assert_eq!(self.guarded.received(), Vec::<String>::new(), "{word}");
    }
}

#[test]
fn fragments_and_extension_headers_do_not_get_a_datagram_past_the_guard() {
    let site = Site::with_services(binaries!(), &["game=udp/5000"]);
    let _daemon = site.daemon();
    let (stranger, server) = (&site.lab.stranger, &site.lab.server);
    let services = Services::start(server, true);
    for to in server.addresses() {
        let from = stranger.address_like(to);
        let datagrams = |port: u16, index: usize, word: &str| {
            let from_port = 40000 + port + u16::try_from(index).unwrap() * 2;
            let bytes = packets::udp((from, from_port), (to, port), word.as_bytes());
            dresses(from, to, UDP, &bytes)
        };
        let count = datagrams(GUARDED_UDP, 0, "some words to cut in two").len();
        for index in 0..count {
            let word = format!("some words to cut in two, dress {index} to {to}");
            for port in [GUARDED_UDP, CONTROL_UDP] {
                let (_, packets) = datagrams(port, index, &word).swap_remove(index);
                packets::send(stranger, to, &packets);
            }
            services.only_the_control_received(&word);
        }
    }
}

#[test]
fn broadcast_and_multicast_do_not_reach_a_guarded_service() {
    let site = Site::with_services(binaries!(), &["game=udp/5000"]);
    let key = site.key("neighbour", &["game"]);
    let mut daemon = site.daemon();
    let neighbour = site.lab.neighbour();
    let server = &site.lab.server;
    let services = Services::start(server, false);
    for to in ["192.0.2.255", "255.255.255.255", "239.1.2.3", "192.0.2.10"] {
        for port in [GUARDED_UDP, CONTROL_UDP] {
            let to: IpAddr = to.parse().unwrap();
            send(&neighbour, (to, port).into(), to.to_string().as_bytes());
        }
        services.only_the_control_received(to);
    }
    drop(services);
    let services = Services::start(server, true);
    let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
    let link = neighbour.enter(|| nix::net::if_::if_nametoindex("eth0").unwrap());
    for to in [all_nodes, server.v6] {
        for port in [GUARDED_UDP, CONTROL_UDP] {
            let scope = if to.is_multicast() { link } else { 0 };
            let to_port = SocketAddrV6::new(to, port, 0, scope);
            send(&neighbour, to_port.into(), to.to_string().as_bytes());
        }
        services.only_the_control_received(&to.to_string());
    }
    // The service does receive, once its guest has knocked.
    key.knock(&neighbour, server.v6.into(), &wire::open(None, 0));
    daemon.expect("granted address=2001:db8:0:1::20");
    send(&neighbour, (server.v6, GUARDED_UDP).into(), b"in");
    wait::until_true("the guest's datagram", || {
        services.guarded.received() == ["in"]
    });
}

#[test]
fn the_subnet_router_anycast_address_does_not_reach_a_guarded_service() {
    let site = Site::with_services(binaries!(), &["game=udp/5000", "ssh=tcp/22"]);
    let behind = site.lab.behind();
    let _daemon = site.daemon();
    let services = Services::start(&site.lab.server, true);
    let anycast: IpAddr = "2001:db8:0:9::".parse().unwrap();
    for (host, word) in [
        (&behind, "from behind"),
        (&site.lab.stranger, "from outside"),
    ] {
        for port in [GUARDED_UDP, CONTROL_UDP] {
            send(host, (anycast, port).into(), word.as_bytes());
        }
        services.only_the_control_received(word);
        assert_ne!(probe(host, anycast, 22), Probe::Open);
    }
}
