//! Bad links: loss and reordering, interfaces that go and come, addresses that change,
//! IPv6 that appears late. The daemon is never restarted.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::wire::{self, Listener, Probe};
use oneknock_tests::{Host, Site, binaries, figure, wait, weather::Weather};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

/// Percent lost in each direction.
const LOSS: u8 = 30;
const ROUNDS: usize = 4;
/// Over such a link TCP itself may wait for a minute, and more than once.
const LONG: Duration = Duration::from_secs(300);

/// That the link is as bad as it is meant to be.
fn numbers_are_lost_and_overtaken(from: &Host, to: &Host) {
    const SENT: usize = 300;
    let listener = Listener::start(to, 9999, false, None);
    from.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for number in 0..SENT {
            let number = number.to_string();
            socket.send_to(number.as_bytes(), (to.v4, 9999)).unwrap();
        }
    });
    let mut numbers: Vec<usize> = Vec::new();
    wait::until_true("some hundred datagrams", || {
        let received = listener.received();
        numbers.extend(received.iter().map(|n| n.parse::<usize>().unwrap()));
        numbers.len() > SENT / 2
    });
    let overtaken = numbers.windows(2).filter(|w| w[0] > w[1]).count();
    assert!(overtaken > 0 && numbers.len() < SENT, "{numbers:?}");
}

#[test]
fn ssh_gets_in_over_a_link_that_loses_thirty_percent_and_reorders() {
    let site = Site::new(binaries!());
    let _key = site.laptop_key();
    let daemon = site.daemon();
    let lab = &site.lab;
    for round in 1..=ROUNDS {
        let weather = Weather::bad(&lab.net, &["laptop", "br0"], LOSS);
        if round == 1 {
            numbers_are_lost_and_overtaken(&lab.laptop, &lab.server);
        }
        let start = Instant::now();
        let ssh = [
            "oneknock",
            "ssh",
            "home",
            "-F",
            site.sshd.config(),
            "echo in",
        ];
        let said = lab.laptop.run_within(&ssh, LONG).ok();
        let millis = start.elapsed().as_millis();
        assert_eq!(said, "in\n");
        let knocks = daemon.count("granted");
        figure(format_args!(
            "loss {LOSS} %, round {round}: ssh was in and out after {millis} ms, {knocks} grants so far"
        ));
        drop(weather);
        site.oneknock(&["close", "home"]).ok();
        wait::until_true("the door is shut", || site.guests("ssh").is_empty());
    }
    for server in lab.server.addresses() {
        assert_eq!(site.probe(&lab.stranger, server), Probe::Silent);
    }
}

/// The laptop gets in at these addresses of the server, and nobody else does.
fn works_at(site: &Site, addresses: &[IpAddr]) {
    for &server in addresses {
        works_at_one(site, server);
    }
}

fn works_at_one(site: &Site, server: IpAddr) {
    let laptop = &site.lab.laptop;
    site.lab.name_server(laptop, &[server]);
    assert_eq!(site.probe(laptop, server), Probe::Silent);
    site.oneknock(&["open", "home"]).ok();
    assert_eq!(site.probe(laptop, server), Probe::Open);
    assert_eq!(site.probe(&site.lab.stranger, server), Probe::Silent);
    site.oneknock(&["close", "home"]).ok();
    let address = laptop.address_like(server);
    wait::until_true("the door is shut", || !site.admits("ssh", address));
}

/// What a link that went down has lost: the kernel forgets IPv6 addresses and routes.
fn addresses(link: &str) -> String {
    format!(
        "link set {link} up\n\
         addr replace 192.0.2.10/24 brd + dev {link}\n\
         addr replace 2001:db8:0:1::10/64 dev {link} nodad\n\
         route replace default via 192.0.2.1\n\
         route replace default via 2001:db8:0:1::1\n"
    )
}

#[test]
fn interfaces_going_down_and_up() {
    let site = Site::new(binaries!());
    let key = site.laptop_key();
    site.set(&site.key_file("laptop"), "allow_other_addresses", "true");
    let mut daemon = site.daemon();
    let (server, net) = (&site.lab.server, &site.lab.net);
    // What was granted before holds through it all.
    let mut knock = wire::open(Some("ssh"), 600);
    knock.address = Some("2001:db8::77".parse().unwrap());
    key.knock(&site.lab.laptop, server.v4.into(), &knock);
    daemon.expect("granted address=2001:db8::77");
    for _ in 0..2 {
        server.ip_batch("link set eth0 down\n");
        key.knock(&site.lab.laptop, server.v4.into(), &wire::open(None, 0));
        server.ip_batch(&addresses("eth0"));
        works_at(&site, &server.addresses());
    }
    // Another interface in its place, under another name.
    server.ip_batch("link del eth0\n");
    net.ip_batch(&format!(
        "link add server type veth peer name lan7 netns {}\n\
         link set server master br0 up\n",
        server.namespace()
    ));
    server.ip_batch(&addresses("lan7"));
    works_at(&site, &server.addresses());
    assert!(site.admits("ssh", knock.address.unwrap()));
    assert!(daemon.is_alive());
    assert_eq!(daemon.count("failed"), 0);
}

#[test]
fn addresses_that_change_under_the_daemon() {
    let site = Site::new(binaries!());
    let _key = site.laptop_key();
    let mut daemon = site.daemon();
    let (laptop, server) = (&site.lab.laptop, &site.lab.server);
    works_at(&site, &server.addresses());
    server.ip_batch(
        "addr del 192.0.2.10/24 dev eth0\n\
         addr add 192.0.2.11/24 brd + dev eth0\n\
         route replace default via 192.0.2.1\n\
         addr add 2001:db8:0:1::11/64 dev eth0 nodad\n\
         addr del 2001:db8:0:1::10/64 dev eth0\n\
         route replace default via 2001:db8:0:1::1\n",
    );
    let v4 = Ipv4Addr::new(192, 0, 2, 11).into();
    let v6 = "2001:db8:0:1::11".parse().unwrap();
    works_at(&site, &[v4, v6]);
    // The laptop moves: what its former address was granted is not its new one's.
    site.oneknock(&["open", "home"]).ok();
    laptop.ip_batch(
        "addr add 2001:db8:0:2::8/64 dev eth0 nodad\n\
         addr del 2001:db8:0:2::7/64 dev eth0\n\
         route replace default via 2001:db8:0:2::1\n",
    );
    assert_eq!(site.probe(laptop, v6), Probe::Silent);
    site.oneknock(&["open", "home"]).ok();
    assert_eq!(site.probe(laptop, v6), Probe::Open);
    assert!(site.admits("ssh", "2001:db8:0:2::8".parse().unwrap()));
    assert!(daemon.is_alive());
}

#[test]
fn addresses_that_it_listens_on_by_name_going_and_coming_back() {
    let site = Site::new(binaries!());
    let _key = site.laptop_key();
    let listen = "[\"192.0.2.10:45123\", \"[2001:db8:0:1::10]:45123\"]";
    site.set(&site.config(), "listen", listen);
    let mut daemon = site.daemon();
    let server = &site.lab.server;
    server.ip_batch(
        "addr del 192.0.2.10/24 dev eth0\n\
         addr del 2001:db8:0:1::10/64 dev eth0\n\
         link set eth0 down\n",
    );
    server.ip_batch(&addresses("eth0"));
    works_at(&site, &server.addresses());
    assert!(daemon.is_alive());
}

#[test]
fn an_address_that_comes_after_the_start_is_listened_on() {
    let site = Site::new(binaries!());
    let _key = site.laptop_key();
    let listen = "[\"192.0.2.10:45123\", \"[2001:db8:0:1::10]:45123\"]";
    site.set(&site.config(), "listen", listen);
    let server = &site.lab.server;
    server.ip_batch(
        "addr del 192.0.2.10/24 dev eth0\n\
         addr del 2001:db8:0:1::10/64 dev eth0\n",
    );
    let _daemon = site.daemon();
    server.ip_batch(&addresses("eth0"));
    works_at(&site, &server.addresses());
}

#[test]
fn ipv6_that_appears_late() {
    let site = Site::new(binaries!());
    let key = site.laptop_key();
    let (laptop, server, net) = (&site.lab.laptop, &site.lab.server, &site.lab.net);
    server.sysctl("ipv6/conf/all/disable_ipv6", "1");
    server.ip_batch("route del default\n");
    let mut daemon = site.daemon();
    server.ip_batch("route add default via 192.0.2.1\n");
    works_at(&site, &[server.v4.into()]);
    server.sysctl("ipv6/conf/all/disable_ipv6", "0");
    server.ip_batch(&addresses("eth0"));
    works_at(&site, &[server.v6.into()]);
    // Its routers, unknown at the start, are known as such within a moment.
    for to in server.addresses() {
        let gateway = net.address_like(to);
        wait::until_true("the gateway is refused", || {
            key.knock(net, to, &wire::open(None, 1));
            let (granted, refused) = (
                format!("granted address={gateway}"),
                "reason=source-is-gateway",
            );
            let line = daemon.expect(&format!("={gateway} key=laptop"));
            assert!(line.contains(&granted) || line.contains(refused), "{line}");
            line.contains(refused)
        });
    }
    assert_eq!(site.probe(laptop, server.v6.into()), Probe::Silent);
    assert!(daemon.is_alive());
}
