//! What is wrong with a key's file is said with where and how to mend it.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::{Site, binaries};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

#[test]
fn what_is_no_key_file_is_warned_of_and_never_read() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    let file = site.key_file("laptop");
    for name in ["laptop.toml~", ".laptop.toml.swp", "laptop.toml.off"] {
        fs::copy(&file, site.dir.join("keys").join(name)).unwrap();
    }
    let done = site.ctl(&["check"]);
    for name in ["laptop.toml~", ".laptop.toml.swp", "laptop.toml.off"] {
        let want = format!("keys/{name} is never read");
        assert!(done.out.contains(&want), "{done}");
    }
    assert!(done.out.contains("errors: 0, warnings: 3"), "{done}");
    done.ok();
    let _daemon = site.daemon();
    // One that calls itself a key stays a mistake.
    fs::copy(&file, site.dir.join("keys/copy.toml")).unwrap();
    site.ctl(&["check"]).fails(3);
}

#[test]
fn a_broken_key_file_is_named_and_its_key_is_not_loaded() {
    let site = Site::new(binaries!());
    let secret = site.key("laptop", &["ssh"]).invitation.secret.to_base64();
    let file = site.key_file("laptop");
    let good = fs::read_to_string(&file).unwrap();
    let edits = [
        good[..good.len() - 5].to_string(),
        good.replace(secret.as_str(), &secret[1..]),
        good.replace("\"ssh\"", "\"web\""),
        good.replace("max_grants = 16", "max_grants = -1"),
        String::new(),
    ];
    for bad in edits {
        assert_ne!(bad, good);
        fs::write(&file, &bad).unwrap();
        let said = loads_no_key(&site);
        assert!(said.contains("keys/laptop.toml"), "{said}\n{bad}");
        assert!(!said.contains(&secret[1..40]), "{said}");
    }
    fs::write(&file, &good).unwrap();
}

/// Starts the daemon, which must guard and load no key; gives what it said.
#[track_caller]
fn loads_no_key(site: &Site) -> String {
    let mut daemon = site.daemon();
    daemon.expect("there is no valid key");
    let said = daemon.lines().join("\n");
    drop(daemon);
    site.ctl(&["disable"]).ok();
    fs::write(site.enabled(), "").unwrap();
    said
}

/// The command that a message says will mend it.
#[track_caller]
fn mending(said: &str) -> &str {
    let places = ["mend it with: ", "hint: "];
    let command = places.iter().find_map(|p| said.split_once(p));
    let (_, command) = command.unwrap_or_else(|| panic!("no way to mend it: {said}"));
    // In the log it ends with the text that it is part of.
    command.lines().next().unwrap().trim_end_matches('"')
}

#[test]
fn a_key_file_that_others_could_touch_is_refused_with_the_command_that_mends_it() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    let file = site.key_file("laptop");
    let (path, keys) = (
        file.display().to_string(),
        file.parent().unwrap().display().to_string(),
    );
    let spoils = [
        format!("chmod 0644 {path}"),
        format!("chmod 0660 {path}"),
        format!("chmod 0750 {path}"),
        format!("chmod 4640 {path}"),
        format!("chown nobody {path}"),
        format!("chgrp nogroup {path}"),
        format!("chmod 0777 {keys}"),
        format!("chown nobody {keys}"),
    ];
    for spoil in spoils {
        site.lab.server.run(&["sh", "-c", &spoil]).ok();
        let said = loads_no_key(&site);
        assert!(said.contains(&keys), "{spoil}: {said}");
        let command = mending(&said);
        site.lab.server.run(&["sh", "-c", command]).ok();
        let daemon = site.daemon();
        drop(daemon);
        site.ctl(&["disable", "--until-reboot"]).ok();
    }
}

#[test]
fn a_key_file_that_is_a_link_is_refused_with_the_command_that_mends_it() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    let file = site.key_file("laptop");
    let elsewhere = site.lab.server.home.join("elsewhere");
    let links: [fn(&Path, &Path); 2] = [
        |from, to| symlink(from, to).unwrap(),
        |from, to| fs::hard_link(from, to).unwrap(),
    ];
    for link in links {
        fs::rename(&file, &elsewhere).unwrap();
        link(&elsewhere, &file);
        let said = loads_no_key(&site);
        assert!(said.contains("keys/laptop.toml"), "{said}");
        site.lab.server.run(&["sh", "-c", mending(&said)]).ok();
        drop(site.daemon());
        site.ctl(&["disable", "--until-reboot"]).ok();
        fs::remove_file(&elsewhere).unwrap();
    }
}

#[test]
fn a_key_that_is_there_already_says_how_to_get_its_invitation_again() {
    let site = Site::new(binaries!());
    let laptop = site.key("laptop", &["ssh"]);
    let dir = site.dir.display();
    let again = format!("oneknockctl --config {dir} key add laptop > invitation");
    let done = site.lab.server.run(&["sh", "-c", &again]);
    let err = done.fails(5);
    assert_eq!(
        err.lines().filter(|l| !l.starts_with("hint: ")).count(),
        1,
        "{err}"
    );
    let want = format!("\"oneknockctl --config {dir} key invite laptop\"");
    assert!(err.contains(&want), "{err}");
    assert_eq!(site.ctl(&["key", "invite", "laptop"]).ok(), laptop.line);
}

#[test]
fn check_warns_of_a_port_that_the_daemon_does_not_listen_on() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    let silent = site.ctl(&["check"]);
    assert!(!silent.out.contains("warning: "), "{silent}");
    site.set(&site.config(), "port", "443");
    let done = site.ctl(&["check"]);
    assert_eq!(done.code, Some(0), "{done}");
    assert!(done.out.contains("warning: "), "{done}");
    for word in ["udp/443", "udp/45123", "oneknockd.toml"] {
        assert!(done.out.contains(word), "{done}");
    }
}

#[test]
fn a_key_cannot_be_named_like_an_address() {
    let site = Site::new(binaries!());
    for name in ["192.0.2.7", "127.1.2.3"] {
        let said = site.ctl(&["key", "add", name]).fails(2);
        assert!(said.contains("is an address"), "{said}");
        assert!(!site.key_file(name).exists());
    }
    site.ctl(&["key", "add", "192.0.2.7-laptop"]).ok();
}
