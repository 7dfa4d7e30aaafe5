//! `oneknockctl log --follow`: what is open, and what happens, as it happens.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::wire::{self, Key};
use oneknock_tests::{Running, Site, binaries};
use serde_json::{Value, json};
use std::net::IpAddr;

#[test]
fn watch_shows_what_happens_as_it_happens() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let dir = site.dir.to_str().unwrap();
    let watch = ["oneknockctl", "--config", dir, "log", "--follow"];
    let mut words = Running::start("watch", site.lab.server.command(&watch));
    words.expect("following");
    let json = [&watch[..], &["--json"]].concat();
    let mut json = Running::start("watch --json", site.lab.server.command(&json));
    json.expect("following");
    let server: IpAddr = site.lab.server.v4.into();
    let packet = key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 60));
    words.expect("granted laptop 198.51.100.7 ssh 1m");
    let event = json.expect("\"seconds\":60");
    let event: Value = serde_json::from_str(&event).unwrap();
    assert_eq!(event["event"], "granted");
    wire::send(
        &site.lab.stranger,
        (server, key.invitation.port).into(),
        &packet,
    );
    let line = words.expect("ignored laptop from 203.0.113.9 (may be forged)");
    assert!(line.ends_with("[replayed]"), "{line}");
    site.ctl(&["revoke", "laptop"]).ok();
    words.expect("revoked laptop 198.51.100.7 ssh");
    key.knock(&site.lab.laptop, server, &wire::close(Some("ssh")));
    words.expect("closed laptop 198.51.100.7 ssh");
    daemon.signal(Signal::SIGTERM);
    words.expect("the daemon has stopped");
    assert_eq!(words.end().code(), Some(4));
    assert_eq!(daemon.end().code(), Some(0));
}

#[test]
fn watch_begins_with_what_is_open_and_tells_what_ends() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let server: IpAddr = site.lab.server.v4.into();
    let knock = wire::open(Some("ssh"), 600);
    key.knock(&site.lab.stranger, server, &knock);
    daemon.expect("granted address=203.0.113.9");
    let dir = site.dir.to_str().unwrap();
    let watch = ["oneknockctl", "--config", dir, "log", "--follow"];
    let mut words = Running::start("watch", site.lab.server.command(&watch));
    let line = words.expect(" open laptop 203.0.113.9 ssh ");
    assert!(
        line.contains("ssh 10m") || line.contains("ssh 9m"),
        "{line}"
    );
    let json = [&watch[..], &["--json"]].concat();
    let mut json = Running::start("watch --json", site.lab.server.command(&json));
    let open: Value = serde_json::from_str(&json.expect("\"open\"")).unwrap();
    assert_eq!(
        (&open["key"], &open["service"]),
        (&json!("laptop"), &json!("ssh"))
    );
    assert!(
        (590..=600).contains(&open["seconds"].as_u64().unwrap()),
        "{open}"
    );
    assert_eq!(open["version"], 1);
    key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 1));
    words.expect(" granted laptop 198.51.100.7 ssh 1s");
    words.expect(" expired laptop 198.51.100.7 ssh");
    json.expect("\"expired\"");
    let line = site.ctl(&["key", "rotate", "laptop"]).ok();
    let invitation = line.parse().unwrap();
    let new = Key { line, invitation };
    new.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 60));
    let line = words.expect(" retiring laptop generation 1: it works for another ");
    assert!(line.ends_with("since a newer one was used"), "{line}");
    let retiring: Value = serde_json::from_str(&json.expect("\"retiring\"")).unwrap();
    assert_eq!(retiring["generation"], 1);
    let seconds = retiring["seconds"].as_u64().unwrap();
    assert!((86_390..=86_400).contains(&seconds), "{retiring}");
}
