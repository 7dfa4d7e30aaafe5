//! What `oneknockctl check` says of a sequence and of what listens on the machine.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::sequence::{STEPS, configure};
use oneknock_tests::wire;
use oneknock_tests::{Site, binaries};
use std::net::TcpListener;

/// What `check` finds, which must fail with this status.
fn failed(site: &Site, status: i32) -> String {
    let said = site.ctl(&["check"]);
    assert_eq!(said.code, Some(status), "{said}");
    said.out
}

#[test]
fn check_refuses_a_step_that_a_service_here_listens_on_and_proposes_a_sequence() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    let steps = ["tcp/7000", "udp/8000", "tcp/300", "udp/9000"];
    configure(&site, &steps, "");
    site.ctl(&["check"]).ok();
    let _tcp = site
        .lab
        .server
        .enter(|| TcpListener::bind("[::]:300"))
        .unwrap();
    let _udp = wire::Listener::start(&site.lab.server, 9000, false, None);
    let said = failed(&site, 1);
    assert!(said.contains("listens on tcp/300"), "{said}");
    assert!(said.contains("listens on udp/9000"), "{said}");
    assert!(!said.contains("listens on tcp/7000"), "{said}");
    // What is proposed is taken as it stands.
    let drawn = said
        .lines()
        .find_map(|l| l.split("at random: ports = ").nth(1))
        .unwrap();
    let drawn: Vec<String> = serde_json::from_str(drawn).unwrap();
    let drawn: Vec<&str> = drawn.iter().map(String::as_str).collect();
    configure(&site, &drawn, "");
    site.ctl(&["check"]).ok();
    for bad in [
        &["tcp/10", "tcp/20", "tcp/30", "tcp/40"][..],
        &["tcp/10", "tcp/22", "tcp/8", "tcp/40"],
        &["tcp/10", "tcp/7"],
        &[],
    ] {
        configure(&site, bad, "");
        let said = failed(&site, 3);
        assert!(said.contains("sequence.ports: "), "{said}");
        assert!(said.contains("at random: ports = "), "{said}");
    }
}

#[test]
fn check_proposes_a_sequence_beside_other_mistakes_and_names_ports_whose_use_is_a_misstep() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    configure(&site, &STEPS, "ignored_ports = [\"tcp/443\"]");
    let listen = |at: &str| site.lab.server.enter(|| TcpListener::bind(at)).unwrap();
    // What this machine alone can reach does not matter.
    let _others = ["0.0.0.0:443", "[::]:8080", "127.0.0.1:7000", "[::1]:300"].map(listen);
    let said = site.ctl(&["check"]);
    let said = said.ok();
    // Beside the lab's own sshd that nobody guards.
    let named = "something listens on tcp/2222, tcp/8080: a client that connects";
    assert!(said.contains(named), "{said}");
    site.set(&site.config(), "skew", "\"a week\"");
    configure(&site, &["tcp/10", "tcp/7"], "");
    let said = failed(&site, 3);
    assert!(said.contains("skew: "), "{said}");
    assert!(said.contains("at random: ports = "), "{said}");
}
