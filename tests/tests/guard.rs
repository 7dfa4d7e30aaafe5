//! The guard: what it must stop, however it is dressed, and what it must let be.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::capture::{Capture, FROM_SERVER};
use oneknock_tests::packets::{self, Extension, TCP, UDP, flags};
use oneknock_tests::ssh::{Sshd, UNGUARDED};
use oneknock_tests::wire::{self, Listener, Probe, banner, probe, send, until_open};
use oneknock_tests::{Host, Site, binaries, wait};
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn an_idle_session_older_than_the_guard_lives_on() {
    let site = Site::new(binaries!());
    let mut sessions = ["-4", "-6"].map(|family| site.session(&["ssh", family, "server.lab"]));
    let _daemon = site.daemon();
    for server in site.lab.server.addresses() {
        assert_eq!(site.probe(&site.lab.laptop, server), Probe::Silent);
    }
    for session in &mut sessions {
        session.say("after");
        session.expect("got after");
    }
}

#[test]
fn the_grace_for_older_sessions_lets_no_stranger_in() {
    let site = Site::new(binaries!());
    let _daemon = site.daemon();
    let (stranger, server) = (&site.lab.stranger, &site.lab.server);
    let mut capture = Capture::start(stranger, "tcp");
    let first = [
        vec![flags::ACK],
        vec![flags::ACK, flags::ACK | flags::PSH],
        vec![flags::ACK | flags::FIN],
        vec![flags::SYN | flags::ACK],
        vec![flags::SYN | flags::FIN],
        vec![flags::ACK, flags::RST],
        vec![flags::SYN | flags::ACK, flags::ACK],
        vec![0],
        vec![],
    ];
    for (port, before) in (40000..).zip(first) {
        for to in server.addresses() {
            let from = (stranger.address_like(to), port);
            let knock_on = |port: u16, from: (IpAddr, u16)| {
                let mut all: Vec<_> = before
                    .iter()
                    .map(|&f| packets::segment(from, (to, port), f))
                    .collect();
                all.push(packets::segment(from, (to, port), flags::SYN));
                // Once more, as TCP itself does after a second.
                all.push(packets::segment(from, (to, port), flags::SYN));
                packets::send(stranger, to, &all);
            };
            knock_on(22, from);
            let control = (from.0, port + 1000);
            knock_on(UNGUARDED, control);
            capture.expect(&format!("{}.{}: Flags [S.]", control.0, control.1));
            let entered = format!("{}.{port}: Flags [S.]", from.0);
            assert_eq!(capture.count(&entered), 0, "{to} after {before:?}");
        }
    }
    for to in server.addresses() {
        assert_eq!(site.probe(stranger, to), Probe::Silent);
    }
}

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

#[test]
fn a_server_that_also_routes_goes_on_forwarding_other_hosts_ssh() {
    let site = Site::new(binaries!());
    let behind = site.lab.behind();
    let _sshd = Sshd::start(&site.lab, &behind);
    let _outside = Sshd::start(&site.lab, &site.lab.laptop);
    let _daemon = site.daemon();
    for to in behind.addresses() {
        for host in [&site.lab.laptop, &site.lab.stranger] {
            assert_eq!(banner(host, to, 22), "SSH-2.0-");
        }
    }
    for to in site.lab.laptop.addresses() {
        assert_eq!(banner(&behind, to, 22), "SSH-2.0-");
    }
    // Its own addresses are guarded on every side of it.
    let own = site.lab.server.addresses().into_iter();
    let far_side = ["198.18.0.1", "2001:db8:0:9::1"].map(|a| a.parse().unwrap());
    for to in own.chain(far_side) {
        for host in [&behind, &site.lab.stranger] {
            assert_eq!(probe(host, to, 22), Probe::Silent);
        }
    }
}

#[test]
fn a_port_published_by_dnat_to_another_namespace_is_guarded() {
    let site = Site::with_services(binaries!(), &["ssh=tcp/22", "web=tcp/8080"]);
    let key = site.key("laptop", &["web"]);
    let behind = site.lab.behind();
    let _sshd = Sshd::start(&site.lab, &behind);
    site.lab.server.nft(
        "table inet site {
            chain pre {
                type nat hook prerouting priority dstnat;
                tcp dport 8080 dnat ip to 198.18.0.2:22
                tcp dport 8080 dnat ip6 to [2001:db8:0:9::2]:22
            }
        }",
    );
    let (laptop, stranger) = (&site.lab.laptop, &site.lab.stranger);
    for to in site.lab.server.addresses() {
        // It is published, as long as there is no guard.
        assert_eq!(banner(stranger, to, 8080), "SSH-2.0-");
    }
    let mut daemon = site.daemon();
    for to in site.lab.server.addresses() {
        for host in [laptop, stranger] {
            assert_eq!(probe(host, to, 8080), Probe::Silent);
        }
        key.knock(laptop, to, &wire::open(None, 0));
        daemon.expect("key=laptop service=web");
        until_open(laptop, to, 8080);
        assert_eq!(banner(laptop, to, 8080), "SSH-2.0-");
        assert_eq!(probe(stranger, to, 8080), Probe::Silent);
        assert_eq!(probe(laptop, to, 22), Probe::Silent);
    }
}

#[test]
fn services_with_odd_names_load_and_the_whole_listing_loads_again() {
    let names = [
        "tcp", "log", "meta", "x1", "accept", "set-4", "inet", "th", "drop", "ct", "icmp", "ipv",
        "x-", "a", "fib", "all", "door-ssh", "guard",
    ];
    let numbered = (100..).zip(names);
    let services = numbered.map(|(port, name)| format!("{name}=tcp/{port},udp/{port}"));
    let services: Vec<String> = services.collect();
    let services: Vec<&str> = services.iter().map(String::as_str).collect();
    let site = Site::with_services(binaries!(), &services);
    let key = site.key("laptop", &names);
    site.set(&site.key_file("laptop"), "grants", "100");
    let mut daemon = site.daemon();
    for to in site.lab.server.addresses() {
        key.knock(&site.lab.laptop, to, &wire::open(None, 0));
        for _ in names {
            daemon.expect("granted address=");
        }
    }
    for name in names {
        assert_eq!(site.guests(name).len(), 2, "{name}");
    }
    listing_loads_again(&site);
}

#[test]
fn ports_and_ranges_of_several_services_load_and_the_listing_loads_again() {
    let services = [
        "ssh=tcp/22",
        "mosh=udp/60000-61000",
        "dns=udp/53,tcp/53",
        "many=tcp/1000-1999,tcp/5",
    ];
    let site = Site::with_services(binaries!(), &services);
    let _daemon = site.daemon();
    listing_loads_again(&site);
    for (port, state) in [
        (999, Probe::Refused),
        (1000, Probe::Silent),
        (1999, Probe::Silent),
        (2000, Probe::Refused),
    ] {
        for to in site.lab.server.addresses() {
            assert_eq!(probe(&site.lab.stranger, to, port), state, "port {port}");
        }
    }
}

#[test]
fn a_service_whose_set_nft_could_not_list_again_is_refused_by_name() {
    // Their sets for IPv6 would be called ip6 and icmpv6, words of nft's own.
    let site = Site::new(binaries!());
    let dir = site.lab.server.home.join("other");
    for name in ["ip", "icmpv"] {
        let service = format!("{name}=tcp/22");
        let config = dir.to_str().unwrap();
        let init = ["oneknockctl", "init", "--host", "server.lab"];
        let rest = ["--service", &service, "--config", config];
        let err = site.lab.server.run(&[init, rest].concat()).fails(2);
        assert!(err.contains(&format!("{name} is taken by nft")), "{err}");
        assert!(!dir.exists());
    }
}

#[test]
fn no_moment_is_open_while_the_rules_are_loaded_again() {
    let site = Site::new(binaries!());
    let mut daemon = site.daemon();
    let (stranger, server) = (&site.lab.stranger, &site.lab.server);
    let mut capture = Capture::start(stranger, FROM_SERVER);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let knocker = scope.spawn(|| {
            let mut port = 0;
            while !is_over.load(Ordering::Relaxed) {
                for to in server.addresses() {
                    port = 20_000 + (port + 1) % 30_000;
                    let from = (stranger.address_like(to), port);
                    let syn = packets::segment(from, (to, 22), flags::SYN);
                    packets::send(stranger, to, &[syn]);
                }
            }
            port
        });
        for round in 0..12 {
            if round % 4 == 3 {
                daemon.signal(Signal::SIGKILL);
                daemon.end();
                daemon = site.daemon();
            } else {
                daemon.signal(Signal::SIGHUP);
                daemon.expect("oneknockd: reloaded ");
            }
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(knocker.join().unwrap() > 20_100, "too few attempts to tell");
    });
    let packets = capture.packets(server, stranger.v4.into());
    assert_eq!(packets, Vec::<String>::new());
}

fn listing_loads_again(site: &Site) {
    let list = ["nft", "list", "ruleset"];
    let listing = site.lab.server.run(&list).ok();
    let load = ["nft", "-c", "-f", "-"];
    assert_eq!(site.lab.server.run_with(&load, &listing).ok(), "");
    // On another machine, for good.
    site.lab.stranger.nft(&listing);
    let again = site.lab.stranger.run(&list).ok();
    assert_eq!(again.lines().count(), listing.lines().count());
}

#[test]
fn the_server_itself_reaches_its_guarded_ports() {
    let site = Site::new(binaries!());
    let _daemon = site.daemon();
    let server = &site.lab.server;
    let loopback = ["127.0.0.1", "::1"].map(|a| a.parse().unwrap());
    for to in server.addresses().into_iter().chain(loopback) {
        assert_eq!(probe(server, to, 22), Probe::Open);
    }
}

#[test]
fn the_machines_other_rules_are_left_as_they_are() {
    let site = Site::new(binaries!());
    site.lab.server.nft(
        "table inet site {
            set s { type ipv4_addr; elements = { 192.0.2.99 }; }
            chain in {
                type filter hook input priority filter;
                ip saddr @s tcp dport 2222 drop
            }
        }",
    );
    let list = ["nft", "list", "table", "inet", "site"];
    let before = site.lab.server.run(&list).ok();
    let daemon = site.daemon();
    assert_eq!(site.lab.server.run(&list).ok(), before);
    drop(daemon);
    site.ctl(&["teardown"]).ok();
    assert_eq!(site.lab.server.run(&list).ok(), before);
    let tables = site.lab.server.run(&["nft", "list", "tables"]).ok();
    assert_eq!(tables, "table inet site\n");
    until_open(&site.lab.laptop, site.lab.server.v4.into(), 22);
}
