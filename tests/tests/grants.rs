//! Who holds which claim, and for how long: two keys, renewals, restarts, SIGHUP.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::wire::{self, Probe, until_open, until_silent};
use oneknock_tests::{Running, Site, binaries, wait};
use std::fs;
use std::net::IpAddr;

fn reloaded(daemon: &mut Running, with: &str) {
    let line = daemon.expect("oneknockd: reloaded ");
    let with = format!("{with} ");
    assert!(line.contains(&with), "{line}");
}

#[test]
fn the_close_of_one_key_does_not_shut_out_another_behind_the_same_address() {
    let site = Site::new(binaries!());
    let (laptop, server) = (&site.lab.laptop, &site.lab.server);
    site.import(laptop, &site.key("laptop", &["ssh"]), "home");
    site.import(laptop, &site.key("phone", &["ssh"]), "also");
    let mut daemon = site.daemon();
    for address in laptop.addresses() {
        site.lab
            .name_server(laptop, &[server.address_like(address)]);
        site.oneknock(&["open", "home"]).ok();
        daemon.expect(&format!("granted address={address} key=laptop service=ssh"));
        site.oneknock(&["open", "also"]).ok();
        daemon.expect(&format!("granted address={address} key=phone service=ssh"));
        site.oneknock(&["close", "home"]).ok();
        daemon.expect(&format!("closed address={address} key=laptop service=ssh"));
        assert!(site.admits("ssh", address));
        until_open(laptop, server.address_like(address), 22);
        site.oneknock(&["close", "also"]).ok();
        daemon.expect(&format!("closed address={address} key=phone service=ssh"));
        until_silent(laptop, server.address_like(address), 22);
    }
}

#[test]
fn opening_again_renews_and_never_shortens() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let (laptop, server) = (&site.lab.laptop, &site.lab.server);
    for address in laptop.addresses() {
        let to = server.address_like(address);
        let mut knock = |seconds| {
            key.knock(laptop, to, &wire::open(Some("ssh"), seconds));
            daemon.expect("granted address=");
            let guests = site.guests("ssh");
            guests
                .iter()
                .find(|g| g.address == address)
                .unwrap()
                .expires
        };
        assert!(knock(20) <= 20);
        assert!(knock(300) > 200, "a longer knock renews");
        assert!(knock(20) > 200, "a shorter knock leaves the longer grant");
        assert!(knock(300) > 200);
    }
}

#[test]
fn the_time_that_a_client_asks_for_is_capped_by_the_policy() {
    let site = Site::new(binaries!());
    site.set_service("max_duration", "\"50s\"");
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let server = site.lab.server.v4.into();
    key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 3600));
    daemon.expect("granted address=198.51.100.7 key=laptop service=ssh seconds=50");
    assert!(site.guests("ssh")[0].expires <= 50);
}

#[test]
fn a_key_may_not_open_anothers_service() {
    let site = Site::with_services(binaries!(), &["ssh=tcp/22", "web=tcp/80"]);
    let key = site.laptop_key();
    let _other = site.key("other", &["web"]);
    let mut daemon = site.daemon();
    let laptop = &site.lab.laptop;
    for server in site.lab.server.addresses() {
        key.knock(laptop, server, &wire::open(Some("web"), 0));
        daemon.expect("key=laptop service=web reason=service-not-allowed");
        key.knock(laptop, server, &wire::open(Some("nowhere"), 0));
        daemon.expect("key=laptop service=nowhere reason=no-such-service");
    }
    site.oneknock(&["open", "home", "--service", "web"])
        .fails(2);
    // Without a name it opens what it may, and no more.
    key.knock(laptop, site.lab.server.v4.into(), &wire::open(None, 0));
    daemon.expect("granted address=198.51.100.7 key=laptop service=ssh");
    assert_eq!(site.guests("web"), []);
    assert_eq!(site.guests("ssh").len(), 1);
}

#[test]
fn a_signed_address_that_is_not_the_sources_is_refused_unless_allowed() {
    let site = Site::new(binaries!());
    let key = site.laptop_key();
    let mut daemon = site.daemon();
    let (laptop, stranger, server) = (&site.lab.laptop, &site.lab.stranger, &site.lab.server);
    let knocks = || {
        let open = ["open", "home", "--no-wait", "--address", "203.0.113.9"];
        site.oneknock(&open).ok();
        let mut knock = wire::open(Some("ssh"), 0);
        knock.address = Some(stranger.v6.into());
        key.knock(laptop, server.v6.into(), &knock);
    };
    knocks();
    for _ in stranger.addresses() {
        daemon.expect("key=laptop service=ssh reason=address-not-source");
    }
    assert_eq!(site.guests("ssh"), []);
    assert_eq!(site.probe(stranger, server.v4.into()), Probe::Silent);

    site.set(&site.key_file("laptop"), "allow_other_addresses", "true");
    daemon.signal(Signal::SIGHUP);
    reloaded(&mut daemon, "services=ssh keys=1");
    knocks();
    daemon.expect("granted address=203.0.113.9 key=laptop service=ssh");
    for address in stranger.addresses() {
        wait::until_true("the stranger is a guest", || site.admits("ssh", address));
        until_open(stranger, server.address_like(address), 22);
    }
}

#[test]
fn a_key_that_must_sign_its_address_is_refused_without_and_opens_with_it() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    site.set(&site.key_file("laptop"), "require_signed_address", "true");
    let line = site.ctl(&["key", "invite", "laptop"]).ok();
    let key = wire::Key {
        invitation: line.parse().unwrap(),
        line,
    };
    let mut daemon = site.daemon();
    let laptop = &site.lab.laptop;
    for server in site.lab.server.addresses() {
        key.knock(laptop, server, &wire::open(Some("ssh"), 0));
        daemon.expect("key=laptop service=ssh reason=address-not-signed");
    }
    site.import(laptop, &key, "home");
    assert_eq!(site.oneknock_ssh("echo in").ok(), "in\n");
}

#[test]
fn a_key_has_a_limit_of_knocks_and_of_live_grants() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    site.set(&site.key_file("laptop"), "max_grants", "1");
    site.set(&site.key_file("laptop"), "knocks_per_minute", "3");
    let mut daemon = site.daemon();
    let (v4, v6) = (site.lab.server.v4.into(), site.lab.server.v6.into());
    let knock = |to| key.knock(&site.lab.laptop, to, &wire::open(Some("ssh"), 0));
    knock(v4);
    daemon.expect("granted address=198.51.100.7");
    knock(v6);
    daemon.expect("reason=grant-limit");
    for _ in 0..4 {
        knock(v4);
    }
    daemon.expect("reason=rate-limited");
    assert_eq!(site.guests("ssh").len(), 1);
}

#[test]
fn the_servers_own_gateway_is_refused_unless_configured() {
    let site = Site::new(binaries!());
    let key = site.key("router", &["ssh"]);
    let mut daemon = site.daemon();
    let net = &site.lab.net;
    for (server, gateway) in [
        ("192.0.2.10", "192.0.2.1"),
        ("2001:db8:0:1::10", "2001:db8:0:1::1"),
    ] {
        key.knock(net, server.parse().unwrap(), &wire::open(Some("ssh"), 0));
        daemon.expect(&format!(
            "refused source={gateway} key=router service=ssh reason=source-is-gateway"
        ));
    }
    assert_eq!(site.guests("ssh"), []);
    site.set(&site.config(), "allow_gateway", "true");
    daemon.signal(Signal::SIGHUP);
    daemon.expect("oneknockd: reloaded");
    key.knock(net, site.lab.server.v4.into(), &wire::open(Some("ssh"), 0));
    daemon.expect("granted address=192.0.2.1 key=router service=ssh");
}

#[test]
fn a_gateway_that_cannot_be_known_is_said_at_the_start_and_while_the_daemon_runs() {
    let site = Site::new(binaries!());
    let key = site.key("router", &["ssh"]);
    let server = &site.lab.server;
    server.ip_batch("nexthop add id 7 via 192.0.2.20 dev eth0\n");
    // The kernel tells the gateway of such a route no more.
    server.sysctl("ipv4/nexthop_compat_mode", "0");
    let mut daemon = site.daemon();
    assert_eq!(daemon.count("gateways-unknown"), 0);
    server.ip_batch("route add default table 100 nhid 7\n");
    let line = daemon.expect("gateways-unknown");
    assert!(
        line.contains("may be admitted") && line.contains("nexthop object 7"),
        "{line}"
    );
    // Those that were known stay.
    key.knock(&site.lab.net, server.v4.into(), &wire::open(Some("ssh"), 0));
    daemon.expect("reason=source-is-gateway");
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    let mut daemon = site.daemon_unready();
    let line = daemon.expect("gateways-unknown");
    assert!(line.contains("nexthop object 7"), "{line}");
    daemon.expect("oneknockd: ready ");
    // The others are known all the same.
    key.knock(&site.lab.net, server.v4.into(), &wire::open(Some("ssh"), 0));
    daemon.expect("reason=source-is-gateway");
}

#[test]
fn a_new_key_is_taken_at_once_and_no_grant_is_lost() {
    let site = Site::new(binaries!());
    let laptop = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let server: IpAddr = site.lab.server.v4.into();
    laptop.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 0));
    daemon.expect("granted address=198.51.100.7 key=laptop service=ssh");
    let before = site.guests("ssh");
    let second = site.key("second", &["ssh"]);
    daemon.expect("key-reloaded key=second loaded=true");
    daemon.signal(Signal::SIGHUP);
    reloaded(&mut daemon, "services=ssh keys=2");
    let after = site.guests("ssh");
    assert_eq!(after.len(), 1, "{after:?}");
    assert_eq!(
        (after[0].address, &*after[0].comment),
        (site.lab.laptop.v4.into(), "laptop")
    );
    assert!(
        after[0].expires <= before[0].expires,
        "a reload lengthens nothing"
    );
    second.knock(&site.lab.stranger, server, &wire::open(Some("ssh"), 0));
    daemon.expect("granted address=203.0.113.9 key=second service=ssh");
    for host in [&site.lab.laptop, &site.lab.stranger] {
        until_open(host, server, 22);
    }
}

#[test]
fn sighup_adds_a_service_and_loses_no_grant() {
    let site = Site::new(binaries!());
    let laptop = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let server: IpAddr = site.lab.server.v4.into();
    laptop.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 0));
    daemon.expect("granted address=198.51.100.7 key=laptop service=ssh");
    let text = fs::read_to_string(site.config()).unwrap();
    let more = "[[service]]\nname = \"web\"\nports = [\"tcp/2222\"]\n";
    fs::write(site.config(), format!("{text}\n{more}")).unwrap();
    daemon.signal(Signal::SIGHUP);
    let reloaded = daemon.expect("oneknockd: reloaded");
    assert!(reloaded.contains("web"), "{reloaded}");
    assert!(site.admits("ssh", site.lab.laptop.v4.into()));
    until_open(&site.lab.laptop, server, 22);
    assert_eq!(wire::probe(&site.lab.laptop, server, 2222), Probe::Silent);
}

#[test]
fn sighup_with_a_mistake_keeps_the_old_in_force_and_logs_it() {
    let site = Site::new(binaries!());
    let laptop = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let server: IpAddr = site.lab.server.v4.into();
    laptop.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 0));
    daemon.expect("granted address=198.51.100.7");
    let good = fs::read_to_string(site.config()).unwrap();
    let bad = [
        (format!("nonsense = 1\n{good}"), "nonsense"),
        (good.replace("tcp/22", "tcp/0"), "tcp/0"),
        ("[".into(), "oneknockd.toml:1: "),
        (String::new(), "server_id: is missing"),
    ];
    for (text, wanted) in bad {
        fs::write(site.config(), text).unwrap();
        daemon.signal(Signal::SIGHUP);
        let line = daemon.expect(wanted);
        assert!(line.starts_with("oneknockd: config-error "), "{line}");
        assert!(line.contains("oneknockd.toml"), "{line}");
    }
    fs::write(site.config(), good).unwrap();
    assert!(site.admits("ssh", site.lab.laptop.v4.into()));
    laptop.knock(
        &site.lab.laptop,
        site.lab.server.v6.into(),
        &wire::open(Some("ssh"), 0),
    );
    daemon.expect("granted address=2001:db8:0:2::7");
    assert_eq!(site.probe(&site.lab.stranger, server), Probe::Silent);
}

#[test]
fn removing_a_key_closes_what_it_opened_and_nothing_else() {
    let site = Site::new(binaries!());
    let first = site.key("first", &["ssh"]);
    let second = site.key("second", &["ssh"]);
    let mut daemon = site.daemon();
    let server: IpAddr = site.lab.server.v4.into();
    first.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 0));
    daemon.expect("granted address=198.51.100.7 key=first");
    second.knock(&site.lab.stranger, server, &wire::open(Some("ssh"), 0));
    daemon.expect("granted address=203.0.113.9 key=second");
    let err = site.ctl(&["key", "remove", "first"]).fails(5);
    assert!(
        err.contains("key first is in use") && err.contains("--force"),
        "{err}"
    );
    site.ctl(&["key", "remove", "first", "--force"]).ok();
    daemon.expect("key-reloaded key=first loaded=false");
    until_silent(&site.lab.laptop, server, 22);
    until_open(&site.lab.stranger, server, 22);
    assert!(!site.admits("ssh", site.lab.laptop.v4.into()));
    first.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 0));
    second.knock(&site.lab.stranger, server, &wire::open(Some("ssh"), 0));
    daemon.expect("granted address=203.0.113.9 key=second");
    assert!(!site.admits("ssh", site.lab.laptop.v4.into()));
}

#[test]
fn after_sigkill_the_port_closes_when_the_grant_is_over() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    for server in site.lab.server.addresses() {
        key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 4));
        daemon.expect("granted address=");
    }
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    assert_eq!(site.guests("ssh").len(), 2, "the grants are the kernel's");
    for server in site.lab.server.addresses() {
        until_silent(&site.lab.laptop, server, 22);
        assert_eq!(site.probe(&site.lab.stranger, server), Probe::Silent);
    }
    assert_eq!(site.guests("ssh"), []);
}

#[test]
fn a_restart_keeps_the_grants_and_the_guard() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let site = Site::new(binaries!());
        site.laptop_key();
        let mut daemon = site.daemon();
        site.oneknock(&["open", "home", "--for", "5m"]).ok();
        let both = || site.guests("ssh").len() == 2;
        wait::until_true("both addresses are guests", both);
        daemon.signal(signal);
        daemon.end();
        assert_eq!(
            site.probe(&site.lab.stranger, site.lab.server.v4.into()),
            Probe::Silent
        );
        let mut daemon = site.daemon();
        assert!(both(), "after {signal}");
        for server in site.lab.server.addresses() {
            until_open(&site.lab.laptop, server, 22);
            assert_eq!(site.probe(&site.lab.stranger, server), Probe::Silent);
        }
        // The restarted daemon takes back what the one before it had granted.
        site.oneknock(&["close", "home"]).ok();
        wait::until_true("no guest is left", || site.guests("ssh").is_empty());
        daemon.expect("closed address=");
    }
}

#[test]
fn after_an_unclean_restart_the_client_gets_in_again() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let mut daemon = site.daemon();
    site.oneknock(&["open", "home"]).ok();
    daemon.expect("granted address=");
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    let mut daemon = site.daemon();
    site.oneknock(&["open", "home", "--timeout", "15s"]).ok();
    assert_eq!(site.oneknock_ssh("echo in").ok(), "in\n");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.end().code(), Some(0));
}
