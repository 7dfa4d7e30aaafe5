//! The client in networks as they are: something that answers in the server's place, address
//! translation, lost packets, slow lines, no line at all.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::capture::Capture;
use oneknock_tests::wire::{self, Probe};
use oneknock_tests::{Host, Site, binaries, relay, wait};
use std::net::IpAddr;

const OUTSIDE: [u8; 4] = [192, 0, 2, 77];
const KNOCKS: &str = "udp dst port 45123";

/// A site whose laptop knows the server by IPv4 alone.
fn site() -> Site {
    let site = Site::new(binaries!());
    site.laptop_key();
    let server = site.lab.server.v4.into();
    site.lab.name_server(&site.lab.laptop, &[server]);
    site
}

/// How many knocks reach the server while this is done.
fn knocks(site: &Site, what: impl FnOnce()) -> usize {
    let (laptop, server) = (&site.lab.laptop, &site.lab.server);
    let mut capture = Capture::start(server, KNOCKS);
    what();
    capture.packets(laptop, server.v4.into()).len()
}

/// Has the router drop the first `count` datagrams to the knock port.
fn drop_first(router: &Host, count: u32) {
    router.nft(&format!(
        "table ip lossy {{ chain forward {{
            type filter hook forward priority 0;
            udp dport 45123 numgen inc mod 100000 < {count} drop
        }}
        }}"
    ));
}

/// How many handshakes the server's listening sockets have completed.
fn handshakes(server: &Host) -> u64 {
    let text = server.run(&["cat", "/proc/net/snmp"]).ok();
    let mut tcp = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (tcp.next().unwrap(), tcp.next().unwrap());
    let at = names.split(' ').position(|name| name == "PassiveOpens");
    let value = values.split(' ').nth(at.unwrap()).unwrap();
    value.parse().unwrap()
}

#[test]
fn n1_behind_a_transparent_proxy_it_gets_in() {
    let site = site();
    let mut daemon = site.daemon();
    let server: IpAddr = site.lab.server.v4.into();
    relay::transparent(&site.lab.net, server, OUTSIDE.into());
    // The proxy answers whoever asks, and that is no open port.
    let laptop = &site.lab.laptop;
    assert_eq!(site.probe(laptop, server), Probe::Open);
    let done = site.oneknock(&["open", "home"]);
    assert_eq!(done.code, Some(0), "{done}");
    assert!(done.err.contains("a NAT stands before"), "{done}");
    daemon.expect("granted address=192.0.2.77 key=laptop service=ssh");
    site.ctl(&["revoke", "--all"]).ok();
    assert_eq!(site.oneknock_ssh("echo in").ok(), "in\n");
    // By now it knows which packet to send: no other one leaves.
    site.ctl(&["revoke", "--all"]).ok();
    let count = knocks(&site, || {
        assert_eq!(site.oneknock_ssh("echo in").ok(), "in\n");
    });
    assert_eq!(count, 1);
}

#[test]
fn n2_a_lost_first_packet_behind_a_proxy_is_made_good() {
    let site = site();
    let _daemon = site.daemon();
    let server: IpAddr = site.lab.server.v4.into();
    relay::transparent(&site.lab.net, server, OUTSIDE.into());
    drop_first(&site.lab.net, 1);
    assert_eq!(site.oneknock_ssh("echo in").ok(), "in\n");
}

#[test]
fn n3_where_tcp_leaves_from_another_address_the_cause_is_named() {
    let site = site();
    let _daemon = site.daemon();
    let (net, laptop) = (&site.lab.net, &site.lab.laptop);
    net.ip_batch(
        "addr add 100.64.7.1/24 dev laptop\n\
         addr add 192.0.2.77/24 dev br0\n\
         addr add 192.0.2.78/24 dev br0\n",
    );
    net.nft(
        "table ip carrier { chain out {
            type nat hook postrouting priority srcnat;
            oifname br0 ip saddr 100.64.7.0/24 meta l4proto udp snat to 192.0.2.77
            oifname br0 ip saddr 100.64.7.0/24 meta l4proto tcp snat to 192.0.2.78
        }
        }",
    );
    laptop.ip_batch(
        "addr del 198.51.100.7/24 dev eth0\n\
         addr add 100.64.7.2/24 dev eth0\n\
         route replace default via 100.64.7.1\n",
    );
    let said = site.oneknock(&["open", "home", "--timeout", "2s"]).fails(1);
    assert!(said.contains("oneknock doctor home"), "{said}");
    let said = site.oneknock(&["doctor", "home"]);
    assert!(
        said.out.contains("a carrier's NAT sends UDP and TCP"),
        "{said}"
    );
}

#[test]
fn n4_behind_nat_the_next_time_the_right_packet_goes_first() {
    let site = site();
    let mut daemon = site.daemon();
    let net = &site.lab.net;
    net.ip_batch("addr add 192.0.2.77/24 dev br0\n");
    net.nft(
        "table ip nat { chain out {
            type nat hook postrouting priority srcnat;
            oifname br0 ip saddr 198.51.100.7 snat to 192.0.2.77
        }
        }",
    );
    let first = knocks(&site, || {
        site.oneknock(&["open", "home"]).ok();
    });
    assert_eq!(first, 2);
    daemon.expect("granted address=192.0.2.77");
    site.ctl(&["revoke", "--all"]).ok();
    let later = knocks(&site, || {
        let done = site.oneknock(&["open", "home"]);
        assert_eq!((done.code, &*done.err), (Some(0), ""), "{done}");
    });
    assert_eq!(later, 1);
    // Where that is wrong it is forgotten: without the NAT's address nothing comes back.
    let memory = site.lab.laptop.home.join(".local/state/oneknock/home.json");
    let text = std::fs::read_to_string(&memory).unwrap();
    assert!(text.contains("198.51.100.7"), "{text}");
    assert!(!text.contains("secret"), "{text}");
    net.nft(
        "table inet silent { chain forward { type filter hook forward priority 0; drop
        }
        }",
    );
    let _ = site.oneknock(&["open", "home", "--timeout", "1s"]).fails(1);
    let text = std::fs::read_to_string(&memory).unwrap();
    assert!(!text.contains("198.51.100.7"), "{text}");
}

#[test]
fn n6_a_handshake_of_several_seconds_gets_in() {
    let site = site();
    let _daemon = site.daemon();
    let net = &site.lab.net;
    // Each SYN keeps the lane busy for some five seconds; a stranger's goes first.
    for words in [
        "qdisc add dev server root handle 1: htb default 10",
        "class add dev server parent 1: classid 1:10 htb rate 1gbit quantum 60000",
        "class add dev server parent 1: classid 1:20 htb rate 120bit burst 1 cburst 1 quantum 1500",
    ] {
        let tc: Vec<&str> = ["tc"].into_iter().chain(words.split(' ')).collect();
        net.run(&tc).ok();
    }
    net.nft(
        "table ip slow { chain forward {
            type filter hook forward priority 0;
            tcp dport 22 tcp flags & (syn | ack) == syn meta priority set 1:20
        }
        }",
    );
    let server = site.lab.server.v4.into();
    assert_eq!(site.probe(&site.lab.stranger, server), Probe::Silent);
    let done = site.oneknock(&["open", "home", "--timeout", "30s"]);
    assert_eq!(done.code, Some(0), "{done}");
}

#[test]
fn n7_udp_services_get_three_packets_and_a_refusal_is_an_error() {
    let site = Site::with_services(binaries!(), &["game=udp/5000"]);
    let key = site.key("laptop", &["game"]);
    let laptop = &site.lab.laptop;
    site.import(laptop, &key, "home");
    site.lab.name_server(laptop, &[site.lab.server.v4.into()]);
    let mut daemon = site.daemon();
    // Two of three times, each with a packet of either kind, are lost.
    drop_first(&site.lab.net, 4);
    let done = site.oneknock(&["open", "home"]);
    assert_eq!(done.code, Some(0), "{done}");
    let own: IpAddr = laptop.v4.into();
    wait::until_true("the grant", || site.admits("game", own));
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    daemon.end();
    let said = site.oneknock(&["open", "home"]).fails(1);
    assert!(said.contains("nothing listens on udp/45123"), "{said}");
}

#[test]
fn n8_without_a_route_it_ends_at_once_with_the_cause() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let laptop = &site.lab.laptop;
    laptop
        .run(&["ip", "-6", "addr", "flush", "dev", "eth0"])
        .ok();
    let said = site.oneknock(&["open", "home", "-6"]).fails(1);
    assert!(said.contains("no packet could be sent"), "{said}");
    assert!(said.contains("no route: "), "{said}");
    assert!(!said.contains("still unreachable"), "{said}");
    let own = laptop.v4.to_string();
    let said = site.oneknock(&["open", "home", "-6", "--address", &own]);
    assert!(said.fails(2).contains("is not an address of IPv6"));
    laptop.ip_batch("link set eth0 down\n");
    let said = site.oneknock(&["open", "home"]).fails(1);
    assert!(said.contains("no route: "), "{said}");
}

#[test]
fn n11_one_connection_reaches_sshd_and_the_first_of_two_families() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let _daemon = site.daemon();
    let opens = || drop(site.oneknock(&["open", "home"]).ok());
    let logs_in = || assert_eq!(site.oneknock_ssh("echo in").ok(), "in\n");
    let ways: [&dyn Fn(); 2] = [&opens, &logs_in];
    for way in ways {
        // A machine under load may let a second one through now and then.
        let fewest = (0..3).map(|_| {
            site.ctl(&["revoke", "--all"]).ok();
            let before = handshakes(&site.lab.server);
            way();
            handshakes(&site.lab.server) - before
        });
        assert_eq!(fewest.min(), Some(1));
    }
    let server = site.lab.server.v4.into();
    wire::until_open(&site.lab.laptop, server, 22);
}
