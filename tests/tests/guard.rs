//! The guard: what it must stop, at every moment, and what it must let be.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::capture::{Capture, FROM_SERVER};
use oneknock_tests::packets::{self, flags};
use oneknock_tests::ssh::{Sshd, UNGUARDED};
use oneknock_tests::wire::{self, Probe, banner, probe, until_open};
use oneknock_tests::{Site, binaries};
use std::net::IpAddr;
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
fn a_redirect_to_a_guarded_port_is_no_way_round_the_guard() {
    let site = Site::new(binaries!());
    site.laptop_key();
    site.lab.server.nft(
        "table inet site {
            chain pre {
                type nat hook prerouting priority dstnat;
                tcp dport 2022 redirect to :22
            }
        }",
    );
    let (laptop, stranger) = (&site.lab.laptop, &site.lab.stranger);
    for to in site.lab.server.addresses() {
        assert_eq!(banner(stranger, to, 2022), "SSH-2.0-");
    }
    let _daemon = site.daemon();
    for to in site.lab.server.addresses() {
        assert_eq!(probe(stranger, to, 2022), Probe::Silent);
    }
    site.oneknock(&["open", "home"]).ok();
    for to in site.lab.server.addresses() {
        until_open(laptop, to, 2022);
        assert_eq!(probe(stranger, to, 2022), Probe::Silent);
    }
}

#[test]
fn an_address_that_another_routing_table_delivers_here_is_guarded() {
    let site = Site::new(binaries!());
    let (server, stranger) = (&site.lab.server, &site.lab.stranger);
    let extra: IpAddr = "2001:db8:0:77::1".parse().unwrap();
    let on_server = "ip -6 rule add pref 11 iif eth0 to 2001:db8:0:77::1 lookup 200 &&
        ip -6 route add local 2001:db8:0:77::1/128 dev lo table 200";
    server.run(&["sh", "-c", on_server]).ok();
    let way = "ip -6 route add 2001:db8:0:77::1/128 via 2001:db8:0:1::10";
    site.lab.net.run(&["sh", "-c", way]).ok();
    assert_eq!(banner(stranger, extra, 22), "SSH-2.0-");
    let _daemon = site.daemon();
    assert_eq!(probe(stranger, extra, 22), Probe::Silent);
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
    site.set(&site.key_file("laptop"), "max_grants", "100");
    // An owned table is not for other programs to load.
    site.set(&site.config(), "guard", "\"monitored\"");
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
    site.set(&site.config(), "guard", "\"monitored\"");
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
    site.ctl(&["disable", "--until-reboot"]).ok();
    assert_eq!(site.lab.server.run(&list).ok(), before);
    let tables = site.lab.server.run(&["nft", "list", "tables"]).ok();
    assert_eq!(tables, "table inet site\n");
    until_open(&site.lab.laptop, site.lab.server.v4.into(), 22);
}
