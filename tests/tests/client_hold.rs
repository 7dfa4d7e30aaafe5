//! Several profiles at once, and ports that are held open.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::{Running, Site, binaries, wait};
use std::fs;
use std::net::IpAddr;

/// Over IPv4 alone, so that there is one grant.
fn site() -> Site {
    let site = Site::new(binaries!());
    site.laptop_key();
    let server = site.lab.server.v4.into();
    site.lab.name_server(&site.lab.laptop, &[server]);
    site
}

fn hold(site: &Site, args: &[&str]) -> Running {
    let command = [&["oneknock", "hold"], args].concat();
    Running::start("hold", site.lab.laptop.command(&command))
}

#[test]
fn a_held_port_stays_open_beyond_its_grant_and_closes_at_the_end() {
    let site = site();
    site.set_service("open_for", "\"4s\"");
    let mut daemon = site.daemon();
    let mut held = hold(&site, &["home", "--every", "2s"]);
    held.expect("note: home: ssh is open");
    for _ in 0..4 {
        daemon.expect("granted address=198.51.100.7 key=laptop service=ssh");
        assert!(!site.guests("ssh").is_empty());
    }
    held.signal(Signal::SIGTERM);
    assert_eq!(held.end().code(), Some(0));
    daemon.expect("closed address=198.51.100.7");
    wait::until_true("no grant is left", || site.guests("ssh").is_empty());
}

#[test]
fn a_held_port_follows_this_computers_address() {
    let site = site();
    let mut daemon = site.daemon();
    let mut held = hold(&site, &["home"]);
    daemon.expect("granted address=198.51.100.7");
    held.expect("note: home: ssh is open");
    site.lab.laptop.ip_batch(
        "addr add 198.51.100.8/24 dev eth0\n\
         addr del 198.51.100.7/24 dev eth0\n\
         addr add 198.51.100.8/24 dev eth0\n\
         route replace default via 198.51.100.1\n",
    );
    daemon.expect("granted address=198.51.100.8");
    held.expect("note: home: ssh is open (the network changed)");
    // A line that is gone for a while, and comes back.
    site.lab.laptop.ip_batch("link set eth0 down\n");
    held.expect("warning: no packet could be sent");
    site.ctl(&["revoke", "--all"]).ok();
    site.lab.laptop.ip_batch(
        "link set eth0 up\n\
         route replace default via 198.51.100.1\n",
    );
    daemon.expect("granted address=198.51.100.8");
    held.signal(Signal::SIGINT);
    assert_eq!(held.end().code(), Some(0));
}

#[test]
fn a_profile_that_cannot_be_held_ends_it() {
    let site = site();
    let mut held = hold(&site, &["home", "--service", "web"]);
    assert_eq!(held.end().code(), Some(2));
    let mut held = hold(&site, &["nowhere"]);
    assert_eq!(held.end().code(), Some(2));
}

#[test]
fn several_profiles_open_at_once_and_each_failure_is_said() {
    let site = site();
    let laptop = &site.lab.laptop;
    let phone = site.key("phone", &["ssh"]);
    site.import(laptop, &phone, "second");
    let mut daemon = site.daemon();
    site.oneknock(&["open", "home", "second"]).ok();
    daemon.expect("granted address=198.51.100.7");
    let own: IpAddr = laptop.v4.into();
    assert!(site.admits("ssh", own));
    site.oneknock(&["close", "home", "second"]).ok();
    wait::until_true("no grant is left", || site.guests("ssh").is_empty());
    // One of them leads to nobody.
    let file = laptop.home.join(".config/oneknock/profiles/second.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("server.lab", "192.0.2.99")).unwrap();
    let said = site.oneknock(&["open", "home", "second", "--timeout", "2s"]);
    assert!(site.admits("ssh", own), "{said}");
    let said = said.fails(1);
    assert!(said.contains("error: second: tcp/22"), "{said}");
    assert!(said.ends_with("error: 1 of 2 profiles failed\n"), "{said}");
    // Where one cannot be read nothing is begun.
    let _ = site.oneknock(&["open", "home", "nowhere"]).fails(2);
}
