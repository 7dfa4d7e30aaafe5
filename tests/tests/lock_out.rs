//! No command locks out the administrator who calls it.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::control::status;
use oneknock_tests::host::Done;
use oneknock_tests::wire::{self, Probe};
use oneknock_tests::{Running, Site, binaries};

/// How this site's oneknockctl is called in a session.
fn ctl(site: &Site, args: &str) -> String {
    let (ctl, dir) = (binaries!().oneknockctl, site.dir.display());
    format!("{ctl} --config {dir} {args}")
}

/// Whether a stranger finds the guarded port open.
fn is_open(site: &Site) -> bool {
    let server = site.lab.server.v4.into();
    site.probe(&site.lab.stranger, server) == Probe::Open
}

/// A daemon of a server that is not enabled.
fn waiting(site: &Site) -> Running {
    let mut daemon = site.daemon_unready();
    daemon.expect("not-enforcing");
    daemon.expect("ready");
    daemon
}

/// A shell of the laptop's that was admitted by a knock, and does what it is told.
fn shell(site: &Site) -> Running {
    let config = site.sshd.config();
    let run = "echo in; while read line; do eval \"$line\"; done";
    let ssh = ["oneknock", "ssh", "home", "-F", config, run];
    let mut shell = Running::start("shell", site.lab.laptop.command(&ssh));
    shell.expect("in");
    shell
}

/// What a command of that shell says, and its exit status.
fn call(shell: &mut Running, site: &Site, args: &str) -> String {
    let before = shell.lines().len();
    shell.say(&format!("{} 2>&1; echo \"status $?\"", ctl(site, args)));
    loop {
        let line = shell.expect("status ");
        let lines = shell.lines();
        if lines.len() > before && line.starts_with("status ") {
            return lines[before..].join("\n");
        }
    }
}

#[test]
fn disconnect_asks_before_it_ends_its_own_session() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let _daemon = site.daemon();
    let mut shell = shell(&site);
    shell.say("echo from $SSH_CONNECTION");
    let line = shell.expect("from ");
    let from = line.split(' ').nth(1).unwrap();
    for of in ["--all", "laptop", from] {
        let said = call(&mut shell, &site, &format!("revoke {of} --disconnect"));
        assert!(said.ends_with("status 5"), "{said}");
        for part in ["error: nothing was revoked", "hint: add --own-session"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(site.admits("ssh", from.parse().unwrap()));
    }
    // One that is not among them, and one that comes from elsewhere.
    let said = call(&mut shell, &site, "revoke 192.0.2.99 --disconnect");
    assert!(said.ends_with("status 0"), "{said}");
    shell.say(&ctl(&site, "revoke --all --disconnect --own-session"));
    assert_ne!(shell.end().code(), Some(0));
}

#[test]
fn rotate_of_its_own_session_prints_the_invitation() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let _daemon = site.daemon();
    let mut shell = shell(&site);
    let said = call(&mut shell, &site, "key rotate laptop --now --disconnect");
    assert!(said.ends_with("status 0"), "{said}");
    for part in [
        "warning: no connection was ended",
        "revoke laptop --disconnect --own-session",
        "oneknock1:",
    ] {
        assert!(said.contains(part), "{said}");
    }
    // The session goes on, and the old secret does not open.
    let said = call(&mut shell, &site, "grants");
    assert!(!said.contains("laptop"), "{said}");
    assert!(said.ends_with("status 0"), "{said}");
    drop(shell);
    // From elsewhere there is nothing to spare.
    let done = site.ctl(&["revoke", "laptop", "--disconnect"]);
    assert!(done.err.contains("ended connections: "), "{done}");
    done.ok();
}

#[test]
fn reload_of_what_clients_must_know_is_on_trial() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let mut daemon = site.daemon();
    // The daemon's own port stays: only what invitations say is another.
    site.set(&site.config(), "host", "\"elsewhere.lab\"");
    site.ctl(&["reload"]).fails(5);
    let said = site.ctl(&["reload", "--confirm", "10s"]);
    assert_eq!(said.code, Some(0), "{said}");
    for part in [
        "enforcing on trial for 10s",
        "reloaded: services 1, keys 1",
        "warning: host changed: existing clients need a new invitation",
    ] {
        assert!(said.err.contains(part), "{said}");
    }
    assert!(!is_open(&site));
    site.ctl(&["status"]).fails(6);
    // A reboot opens it too.
    assert!(!site.enabled().exists());
    daemon.expect("the trial has ended without a confirmation");
    wire::until_open(&site.lab.stranger, site.lab.server.v4.into(), 22);
    site.ctl(&["enable"]).ok();
    assert!(!is_open(&site));
    site.set(&site.config(), "host", "\"server.lab\"");
    site.ctl(&["reload", "--confirm", "40s"]).ok();
    let said = site.oneknock_ssh(&ctl(&site, "confirm"));
    assert!(said.err.contains("confirmed by a session from"), "{said}");
    said.ok();
    assert!(site.enabled().exists());
    site.ctl(&["status"]).ok();
    // One that the daemon refuses changes nothing, nor does one that goes on as it is.
    std::fs::write(site.config(), "listen = [").unwrap();
    site.ctl(&["reload", "--confirm", "10s"]).fails(3);
    assert!(site.enabled().exists());
    assert_eq!(status(&site)["enforcing"], true);
    assert!(!is_open(&site));
}

#[test]
fn enable_in_a_remote_session_is_a_trial_by_itself() {
    let site = Site::not_enabled(binaries!());
    site.laptop_key();
    let _daemon = waiting(&site);
    let ssh = |args: &str| -> Done {
        let config = site.sshd.config();
        let ssh = ["ssh", "server.lab", "-F", config, &ctl(&site, args)];
        site.lab.laptop.run(&ssh)
    };
    let said = ssh("enable");
    assert!(said.err.contains("on trial for 10m"), "{said}");
    assert!(said.err.contains("this session comes from "), "{said}");
    said.ok();
    assert!(!site.enabled().exists() && !is_open(&site));
    site.ctl(&["disable"]).ok();
    let _daemon = waiting(&site);
    ssh("enable --no-confirm").ok();
    assert!(site.enabled().exists() && !is_open(&site));
}

#[test]
fn confirm_from_the_console_needs_a_knock_and_no_session() {
    let site = Site::not_enabled(binaries!());
    site.laptop_key();
    let _daemon = waiting(&site);
    site.ctl(&["enable", "--confirm", "1m"]).ok();
    let said = site.ctl(&["confirm", "--from-console"]).fails(5);
    assert!(said.contains("no knock was granted since"), "{said}");
    assert!(!site.enabled().exists());
    site.oneknock(&["open", "home"]).ok();
    let said = site.ctl(&["confirm", "--from-console"]);
    assert!(said.err.contains("confirmed: enforcing"), "{said}");
    said.ok();
    assert!(site.enabled().exists() && !is_open(&site));
}

#[test]
fn closed_pipe_ends_a_command_in_silence() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let _daemon = site.daemon();
    for args in [
        "status",
        "grants",
        "check",
        "log --json",
        "key list",
        "debug rules",
    ] {
        // The reader has ended before the command begins.
        let line = format!("{{ sleep 0.2; {}; }} | true", ctl(&site, args));
        let done = site.lab.server.run(&["sh", "-c", &line]);
        assert_eq!(done.err, "", "{args}: {done}");
    }
}

#[test]
fn failure_with_json_is_an_object_with_a_code() {
    let site = Site::new(binaries!());
    let object = |args: &[&str], status| {
        let done = site.ctl(args);
        assert_eq!(done.code, Some(status), "{done}");
        assert!(done.err.contains("error: "), "{done}");
        let json: serde_json::Value = serde_json::from_str(&done.out).unwrap();
        assert_eq!(json["version"], 1);
        json["error"]["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(object(&["status", "--json"], 4), "E-NOT-RUNNING");
    assert_eq!(object(&["log", "nobody", "--json"], 2), "E-NO-KEY");
    let found = site.ctl(&["check", "--json"]);
    assert_eq!(found.code, Some(1), "{found}");
    let found: serde_json::Value = serde_json::from_str(&found.out).unwrap();
    let first = &found["findings"][0];
    assert_eq!(
        (&first["severity"], &first["code"]),
        (&"error".into(), &"E-NO-VALID-KEY".into())
    );
    assert!(first["hint"].as_str().unwrap().contains("key add"));
    std::fs::write(site.config(), "nonsense").unwrap();
    let found = site.ctl(&["check", "--json"]);
    assert_eq!(found.code, Some(3), "{found}");
    assert!(found.out.contains("\"code\":\"E-CONFIG\""), "{found}");
}
