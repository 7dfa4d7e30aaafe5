//! The port sequence with no daemon: the ruleset that oneknockctl prints, by itself.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::sequence::{STEPS, configure, walk};
use oneknock_tests::wire::{Probe, banner, probe, until_open};
use oneknock_tests::{Site, binaries};
use std::fs;

/// A site, and the rules for it with these lines behind the sequence in the configuration;
/// nothing else of ours is on the machine.
fn site(more: &str) -> (Site, String) {
    let site = Site::new(binaries!());
    configure(&site, &STEPS, "");
    let text = fs::read_to_string(site.config()).unwrap();
    fs::write(site.config(), format!("{more}\n{text}")).unwrap();
    let rules = site.ctl(&["debug", "rules", "--sequence-only"]).ok();
    fs::remove_dir_all(&site.dir).unwrap();
    (site, rules)
}

#[test]
fn rules_alone_open_with_no_daemon_and_no_configuration_on_the_machine() {
    let (site, rules) = site("");
    let (laptop, stranger, server) = (&site.lab.laptop, &site.lab.stranger, &site.lab.server);
    // Twice: it takes the place of what it was.
    for _ in 0..2 {
        server.nft(&rules);
    }
    for (to, family) in server.addresses().into_iter().zip(["-4", "-6"]) {
        assert_eq!(probe(laptop, to, 22), Probe::Silent);
        let walk = [
            "oneknock",
            "sequence",
            "server.lab",
            "7000",
            "8000/udp",
            "300",
            "9000/udp",
        ];
        laptop.run(&[&walk[..], &[family]].concat()).ok();
        until_open(laptop, to, 22);
        assert_eq!(banner(laptop, to, 22), "SSH-2.0-");
        assert_eq!(probe(stranger, to, 22), Probe::Silent);
    }
    let listing = server.run(&["nft", "list", "ruleset"]).ok();
    server.nft("flush ruleset");
    server.nft(&listing);
}

#[test]
fn rules_alone_say_how_they_go_and_are_named_where_they_stand() {
    let site = Site::new(binaries!());
    site.laptop_key();
    configure(&site, &STEPS, "");
    let rules = site.ctl(&["debug", "rules", "--sequence-only"]).ok();
    let mend = "nft delete table inet oneknock_sequence";
    assert!(rules.contains(mend), "{rules}");
    let _daemon = site.daemon();
    site.lab.server.nft(&rules);
    let said = site.ctl(&["status"]);
    assert!(said.err.contains(mend), "{said}");
    let said = site.ctl(&["doctor"]);
    assert!(said.out.contains(&format!("hint: {mend}\n")), "{said}");
    let said = site.ctl(&["disable", "--until-reboot"]);
    assert!(said.err.contains(mend), "{said}");
    // With neither daemon nor guard as well: that is what it is for.
    let said = site.ctl(&["status"]).fails(4);
    assert!(
        said.contains(mend) && said.contains("its service opens by the port sequence alone"),
        "{said}"
    );
    site.lab.server.run(&["sh", "-c", mend]).ok();
    let said = site.ctl(&["disable", "--until-reboot"]);
    assert!(!said.err.contains("sequence"), "{said}");
}

#[test]
fn with_the_daemon_dead_it_is_said_that_the_sequence_lets_in_still() {
    let site = Site::new(binaries!());
    site.laptop_key();
    configure(&site, &STEPS, "");
    drop(site.daemon());
    let said = site.ctl(&["status"]).fails(4);
    let but = "only the port sequence opens anything new";
    assert!(said.contains(but), "{said}");
    let said = site.ctl(&["doctor"]);
    assert!(said.out.contains(but), "{said}");
}

#[test]
fn rules_alone_let_in_whoever_never_needs_to_knock() {
    let (site, rules) = site("trusted_networks = [\"198.51.100.0/24\", \"2001:db8:0:2::/64\"]");
    site.lab.server.nft(&rules);
    for to in site.lab.server.addresses() {
        assert_eq!(site.probe(&site.lab.laptop, to), Probe::Open);
        assert_eq!(site.probe(&site.lab.stranger, to), Probe::Silent);
    }
}

#[test]
fn a_session_older_than_rules_alone_lives_on() {
    let (site, rules) = site("");
    let mut sessions = ["-4", "-6"].map(|family| site.session(&["ssh", family, "server.lab"]));
    site.lab.server.nft(&rules);
    for to in site.lab.server.addresses() {
        assert_eq!(site.probe(&site.lab.laptop, to), Probe::Silent);
    }
    for session in &mut sessions {
        session.say("after");
        session.expect("got after");
    }
}

#[test]
fn a_redirect_to_a_guarded_port_is_no_way_round_rules_alone() {
    let (site, rules) = site("");
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
    site.lab.server.nft(&rules);
    for to in site.lab.server.addresses() {
        assert_eq!(probe(stranger, to, 2022), Probe::Silent);
        walk(&site, laptop.address_like(to), &STEPS);
        until_open(laptop, to, 22);
    }
}
