//! What a change to a key's file ends, also where the daemon does not take it, where none
//! runs, and where nobody reads what is said.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::sequence::{STEPS, configure};
use oneknock_tests::wire::{self, Key, until_open};
use oneknock_tests::{Host, Running, Site, binaries};
use std::fs;
use std::net::IpAddr;

fn server(site: &Site) -> IpAddr {
    site.lab.server.v4.into()
}

/// A knock of this key is not accepted; that of the other is, which came after it.
fn is_refused(site: &Site, daemon: &mut Running, key: &Key, other: &Key) {
    let before = daemon.count("granted ");
    let knock = wire::open(Some("ssh"), 600);
    key.knock(&site.lab.laptop, server(site), &knock);
    other.opens(daemon, &site.lab.laptop, server(site));
    assert_eq!(daemon.count("granted "), before + 1);
}

/// A session of ssh through the door.
fn session(site: &Site, host: &Host) -> Running {
    until_open(host, server(site), 22);
    let echo = "echo in; while read line; do echo got $line; done";
    let ssh = ["ssh", "-4", "-F", site.sshd.config(), "server.lab", echo];
    let mut session = Running::start("session", host.command(&ssh));
    session.expect("in");
    session
}

fn lives(session: &mut Running) {
    session.say("still there");
    session.expect("got still there");
}

/// Runs `oneknockctl` by a shell that sends its output elsewhere.
fn ctl_into(site: &Site, args: &str, into: &str) -> oneknock_tests::Done {
    let dir = site.dir.display();
    let line = format!("oneknockctl --config {dir} {args} {into}");
    site.lab.server.run(&["sh", "-c", &line])
}

/// What is wrong elsewhere: with the main file, and with another key's.
fn spoil(site: &Site) {
    fs::write(site.key_file("note"), "x").unwrap();
    let good = fs::read_to_string(site.config()).unwrap();
    fs::write(site.config(), format!("{good}\nskew = = 3\n")).unwrap();
}

#[test]
fn to_retire_again_tells_the_daemon_what_nobody_has_told_it() {
    let site = Site::new(binaries!());
    let old = site.key("laptop", &["ssh"]);
    let phone = site.key("phone", &["ssh"]);
    let mut daemon = site.daemon();
    let stranger = &site.lab.stranger;
    phone.opens(&mut daemon, stranger, server(&site));
    old.opens(&mut daemon, &site.lab.laptop, server(&site));
    let line = site.ctl(&["key", "rotate", "laptop"]).ok();
    let invitation = line.parse().unwrap();
    let new = Key { line, invitation };
    new.opens(&mut daemon, &site.lab.laptop, server(&site));
    let before = fs::read_to_string(site.key_file("laptop")).unwrap();
    let retire = ["key", "retire", "laptop"];
    site.ctl(&retire).ok();
    let after = fs::read_to_string(site.key_file("laptop")).unwrap();
    // As a call leaves it that was killed in its middle.
    fs::write(site.key_file("laptop"), before).unwrap();
    site.ctl(&["reload"]).ok();
    old.opens(&mut daemon, &site.lab.laptop, server(&site));
    fs::write(site.key_file("laptop"), after).unwrap();
    let done = site.ctl(&retire);
    for part in ["nothing to do", "the daemon has reloaded it"] {
        assert!(done.err.contains(part), "{done}");
    }
    done.ok();
    is_refused(&site, &mut daemon, &old, &new);
    // Where there is nothing to end nothing is ended.
    site.ctl(&["key", "retire", "phone"]).ok();
    assert!(site.admits("ssh", stranger.v4.into()));
}

#[test]
fn a_reader_who_is_gone_keeps_no_leaked_secret_in_force() {
    let site = Site::new(binaries!());
    let leaked = site.key("laptop", &["ssh"]);
    let other = site.key("phone", &["ssh"]);
    let mut daemon = site.daemon();
    let stranger = &site.lab.stranger;
    leaked.opens(&mut daemon, stranger, server(&site));
    let mut in_session = session(&site, stranger);
    // Neither the invitation nor what is said reaches anybody.
    let into = ">/dev/full 2>/dev/full";
    ctl_into(&site, "key rotate laptop --now --disconnect", into).fails(1);
    assert_eq!(site.guests("ssh"), []);
    assert_ne!(in_session.end().code(), Some(0));
    is_refused(&site, &mut daemon, &leaked, &other);
    // And where what is said does, it says how to have the invitation.
    for call in ["key add tablet", "key rotate laptop"] {
        let done = ctl_into(&site, call, ">/dev/full");
        for part in ["the daemon has reloaded it", "cannot write", "key invite"] {
            assert!(done.err.contains(part), "{done}");
        }
        done.fails(1);
    }
    let line = site.ctl(&["key", "invite", "tablet"]).ok();
    let invitation = line.parse().unwrap();
    let tablet = Key { line, invitation };
    tablet.opens(&mut daemon, &site.lab.laptop, server(&site));
}

#[test]
fn whatever_else_is_invalid_a_leaked_key_ends_at_once() {
    let calls: [(&[&str], i32); 3] = [
        (&["key", "remove", "laptop", "--force", "--disconnect"], 0),
        (
            &[
                "key",
                "retire",
                "laptop",
                "--generation",
                "1",
                "--force",
                "--disconnect",
            ],
            0,
        ),
        // It ends as said, and the new one's invitation waits for the main file.
        (&["key", "rotate", "laptop", "--now", "--disconnect"], 1),
    ];
    for (call, code) in calls {
        let site = Site::new(binaries!());
        let leaked = site.key("laptop", &["ssh"]);
        let other = site.key("phone", &["ssh"]);
        let mut daemon = site.daemon();
        let [laptop, stranger] = [&site.lab.laptop, &site.lab.stranger];
        leaked.opens(&mut daemon, stranger, server(&site));
        let mut of_leaked = session(&site, stranger);
        other.opens(&mut daemon, laptop, server(&site));
        let mut of_other = session(&site, laptop);
        let good = fs::read_to_string(site.config()).unwrap();
        spoil(&site);
        let done = site.ctl(call);
        for part in ["oneknockd.toml:", "the daemon has reloaded it"] {
            assert!(done.err.contains(part), "{part}: {done}");
        }
        assert_eq!((done.code, &*done.out), (Some(code), ""), "{done}");
        assert_ne!(of_leaked.end().code(), Some(0));
        lives(&mut of_other);
        let guests = site.guests("ssh");
        assert_eq!(guests.len(), 1, "{guests:?}");
        assert_eq!(guests[0].comment, "phone");
        is_refused(&site, &mut daemon, &leaked, &other);
        // Of the main file all is as it was.
        let done = site.ctl(&["reload"]);
        assert!(done.err.contains("not reloaded"), "{done}");
        done.fails(3);
        other.opens(&mut daemon, laptop, server(&site));
        fs::write(site.config(), good).unwrap();
        fs::remove_file(site.key_file("note")).unwrap();
        site.ctl(&["reload"]).ok();
        is_refused(&site, &mut daemon, &leaked, &other);
    }
}

#[test]
fn an_invalid_main_file_changes_nothing_and_a_key_that_was_removed_by_hand_waits_for_it() {
    let site = Site::new(binaries!());
    let laptop = site.key("laptop", &["ssh"]);
    let phone = site.key("phone", &["ssh"]);
    let mut daemon = site.daemon();
    let good = fs::read_to_string(site.config()).unwrap();
    spoil(&site);
    fs::remove_file(site.key_file("phone")).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.expect("not-reloaded");
    phone.opens(&mut daemon, &site.lab.laptop, server(&site));
    let listed = site.ctl(&["status"]);
    assert!(!listed.out.contains("invalid"), "{listed}");
    // With a valid one it goes, and the other invalid file is named still.
    fs::write(site.config(), good).unwrap();
    site.ctl(&["reload"]).fails(3);
    assert_eq!(site.guests("ssh"), []);
    is_refused(&site, &mut daemon, &phone, &laptop);
}

#[test]
fn no_command_for_a_key_applies_a_main_file_that_is_being_edited() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    let _daemon = site.daemon();
    let good = fs::read_to_string(site.config()).unwrap();
    let more = "[[service]]\nname = \"web\"\nports = [\"tcp/2222\"]\n";
    fs::write(site.config(), format!("{good}\n{more}")).unwrap();
    for call in [
        &["key", "add", "phone", "--service", "ssh"][..],
        &["key", "rotate", "laptop"],
        &["key", "retire", "laptop", "--force"],
        &["key", "remove", "phone"],
    ] {
        let done = site.ctl(call);
        assert!(done.err.contains("the daemon has reloaded it"), "{done}");
        done.ok();
        let status = site.ctl(&["status"]).ok();
        assert!(!status.contains("web"), "{status}");
    }
    // A key for what the daemon does not know yet waits for the reload.
    let done = site.ctl(&["key", "add", "tablet", "--service", "web"]);
    assert!(done.err.contains("web is not a service"), "{done}");
    done.fails(1);
    site.ctl(&["reload"]).ok();
    let status = site.ctl(&["status"]).ok();
    assert!(
        status.contains("web") && !status.contains("not loaded"),
        "{status}"
    );
}

#[test]
fn whoever_has_had_a_key_still_knows_a_fixed_sequence_and_it_is_said() {
    let said = "still knows the port sequence";
    let calls: [(&[&str], bool); 4] = [
        (&["key", "rotate", "laptop", "--now"], true),
        (&["key", "rotate", "laptop"], false),
        (&["key", "remove", "laptop"], true),
        (&["key", "remove", "web"], false),
    ];
    let services = &["ssh=tcp/22", "web=tcp/8080"];
    let site = Site::with_services(binaries!(), services);
    configure(&site, &STEPS, "");
    let mut daemon = site.daemon();
    site.key("laptop", &["ssh"]);
    // Its invitation has no sequence.
    site.key("web", &["web"]);
    for (call, is_said) in calls {
        let done = site.ctl(call);
        assert_eq!(done.err.contains(said), is_said, "{done}");
        let hint = ["[sequence]", "reload", "key invite"];
        assert!(
            !is_said || hint.iter().all(|part| done.err.contains(part)),
            "{done}"
        );
        done.ok();
    }
    // Of a key that cannot be read it may be so.
    site.key("broken", &["ssh"]);
    fs::write(site.key_file("broken"), "x").unwrap();
    let done = site.ctl(&["key", "remove", "broken", "--force"]);
    assert!(done.err.contains(said), "{done}");
    // A rolling one follows from the secret that is gone.
    let text = fs::read_to_string(site.config()).unwrap();
    let (before, _) = text.split_once("\n[sequence]").unwrap();
    let rolling = "\n[sequence]\nservice = \"ssh\"\nrolling = true\n";
    fs::write(site.config(), format!("{before}{rolling}")).unwrap();
    site.key("laptop", &["ssh"]);
    let rotate = ["key", "rotate", "laptop", "--now"];
    let done = site.ctl(&rotate);
    assert!(!done.err.contains(said), "{done}");
    done.ok();
    // Nobody takes it out of the kernel then.
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    let done = site.ctl(&["key", "remove", "laptop"]);
    assert!(!done.err.contains(said), "{done}");
    assert!(done.err.contains("in three minutes at most"), "{done}");
    done.ok();
}

#[test]
fn a_key_that_was_removed_is_gone_for_good_when_the_command_returns() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    let calls = site.lab.dir().join("calls");
    let strace = [
        "strace",
        "-f",
        "-y",
        "-e",
        "trace=unlink,unlinkat,fsync",
        "-o",
    ];
    let dir = site.dir.to_str().unwrap();
    let remove = ["oneknockctl", "--config", dir, "key", "remove", "laptop"];
    let line = [&strace[..], &[calls.to_str().unwrap()], &remove].concat();
    site.lab.server.run(&line).ok();
    let calls = fs::read_to_string(calls).unwrap();
    let removed = calls.find("laptop.toml").unwrap();
    // A name is gone on disk only when its folder was synced.
    assert!(calls[removed..].contains("/keys>)"), "{calls}");
}

#[test]
fn to_remove_again_tells_the_daemon_what_nobody_has_told_it() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let server = site.lab.server.v4.into();
    key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 600));
    daemon.expect("granted address=");
    // As a call that was killed in its middle leaves it.
    fs::remove_file(site.key_file("laptop")).unwrap();
    let said = site.ctl(&["key", "remove", "laptop", "--force"]).fails(2);
    assert!(said.contains("there is no key laptop"), "{said}");
    assert!(said.contains("the daemon has reloaded it"), "{said}");
    assert_eq!(site.guests("ssh"), []);
}
