//! `trusted_networks`: networks that never need to knock.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::wire::Probe;
use oneknock_tests::{Site, binaries, wire};

const LAPTOPS: &str = "[\"198.51.100.0/24\", \"2001:db8:0:2::/64\"]";

/// The configuration with these networks.
fn set_always(site: &Site, networks: &str) {
    site.set(&site.config(), "trusted_networks", networks);
}

#[test]
fn whoever_is_in_such_a_network_gets_in_without_a_knock_and_nobody_else() {
    let site = Site::new(binaries!());
    site.laptop_key();
    set_always(&site, LAPTOPS);
    let daemon = site.daemon();
    let (laptop, stranger) = (&site.lab.laptop, &site.lab.stranger);
    for to in site.lab.server.addresses() {
        assert_eq!(site.probe(laptop, to), Probe::Open);
        assert_eq!(site.probe(stranger, to), Probe::Silent);
    }
    let mut session = site.session(&["ssh", "server.lab"]);

    // Alone it is the same, and with another network in its place the old one is shut.
    set_always(&site, "[\"203.0.113.9\"]");
    daemon.signal(Signal::SIGHUP);
    let v4 = site.lab.server.v4.into();
    wire::until_open(stranger, v4, 22);
    for to in site.lab.server.addresses() {
        assert_eq!(site.probe(laptop, to), Probe::Silent);
    }
    assert_eq!(
        site.probe(stranger, site.lab.server.v6.into()),
        Probe::Silent
    );
    session.say("older than that");
    session.expect("got older than that");
    site.oneknock(&["open", "home"]).ok();
}

#[test]
fn its_connections_are_not_ended_as_made_while_the_guard_was_down() {
    let site = Site::new(binaries!());
    site.laptop_key();
    site.set(&site.config(), "guard", "\"monitored\"");
    set_always(&site, LAPTOPS);
    let mut daemon = site.daemon();
    daemon.signal(Signal::SIGSTOP);
    site.lab.server.nft("flush ruleset");
    let mut session = site.session(&["ssh", "server.lab"]);
    daemon.signal(Signal::SIGCONT);
    daemon.expect("guard-repaired");
    session.say("from the gap");
    session.expect("got from the gap");
    assert_eq!(daemon.count("are ended"), 0);
}

#[test]
fn everybody_or_half_a_network_is_a_mistake_and_guards_as_before() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let _daemon = site.daemon();
    for (networks, what) in [
        ("[\"0.0.0.0/0\"]", "everybody"),
        ("[\"::/0\"]", "everybody"),
        ("[\"0.0.0.0/1\", \"128.0.0.0/1\"]", "everybody"),
        ("[\"2000::/3\"]", "everybody"),
        ("[\"198.51.100.7/24\"]", "write 198.51.100.0/24"),
        ("[\"198.51.100.0/24\", \"198.51.100.7\"]", "overlap"),
        ("\"198.51.100.0/24\"", "must be a list"),
    ] {
        set_always(&site, networks);
        let said = site.ctl(&["reload"]).fails(3);
        assert!(said.contains(what), "{networks}: {said}");
        let v4 = site.lab.server.v4.into();
        assert_eq!(site.probe(&site.lab.laptop, v4), Probe::Silent);
    }
}
