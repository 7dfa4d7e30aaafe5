//! What a change to a key's file ends, also where the daemon does not take it, where none
//! runs, and where nobody reads what is said.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::sequence::{STEPS, configure};
use oneknock_tests::wire::{self, Key, until_open};
use oneknock_tests::{Host, Running, Site, binaries, wait};
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

/// A file among the keys that keeps the daemon from taking anything.
fn mistake(site: &Site) -> std::path::PathBuf {
    let file = site.key_file("note");
    fs::write(&file, "x").unwrap();
    file
}

#[test]
fn to_retire_again_tells_the_daemon_what_it_has_not_taken() {
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
    let mistake = mistake(&site);
    let retire = ["key", "retire", "laptop"];
    let err = site.ctl(&retire).fails(1);
    assert!(err.contains("the daemon has not taken it"), "{err}");
    // As long as it has not, the second call does not say that all is well.
    let err = site.ctl(&retire).fails(1);
    assert!(err.contains("the daemon has not taken it"), "{err}");
    // Where there is nothing to end nothing is ended.
    site.ctl(&["key", "retire", "phone"]).fails(1);
    assert!(site.admits("ssh", stranger.v4.into()));
    fs::remove_file(mistake).unwrap();
    let done = site.ctl(&retire);
    for part in ["nothing to do", "the daemon has taken it"] {
        assert!(done.err.contains(part), "{done}");
    }
    done.ok();
    is_refused(&site, &mut daemon, &old, &new);
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
    ctl_into(&site, "key rotate laptop --now --cut", into).fails(1);
    assert_eq!(site.guests("ssh"), []);
    assert_ne!(in_session.end().code(), Some(0));
    is_refused(&site, &mut daemon, &leaked, &other);
    // And where what is said does, it says how to have the invitation.
    for call in ["key add tablet", "key rotate laptop"] {
        let done = ctl_into(&site, call, ">/dev/full");
        for part in ["the daemon has taken it", "cannot write", "key invite"] {
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
fn a_mistake_elsewhere_keeps_a_key_in_force_and_not_what_it_has_opened() {
    let calls: [&[&str]; 3] = [
        &["key", "rotate", "laptop", "--now", "--cut"],
        &["key", "remove", "laptop", "--force", "--cut"],
        &[
            "key",
            "retire",
            "laptop",
            "--generation",
            "1",
            "--force",
            "--cut",
        ],
    ];
    for call in calls {
        let site = Site::new(binaries!());
        let leaked = site.key("laptop", &["ssh"]);
        let other = site.key("phone", &["ssh"]);
        let mut daemon = site.daemon();
        let [laptop, stranger] = [&site.lab.laptop, &site.lab.stranger];
        leaked.opens(&mut daemon, stranger, server(&site));
        let mut of_leaked = session(&site, stranger);
        other.opens(&mut daemon, laptop, server(&site));
        let mut of_other = session(&site, laptop);
        let mistake = mistake(&site);
        let done = site.ctl(call);
        for part in [
            "note.toml",
            "has not taken it",
            "closed: 1",
            "key laptop opens as before",
            "reload",
            "revoke laptop --cut",
        ] {
            assert!(done.err.contains(part), "{part}: {done}");
        }
        done.fails(1);
        assert_ne!(of_leaked.end().code(), Some(0));
        lives(&mut of_other);
        let guests = site.guests("ssh");
        assert_eq!(guests.len(), 1, "{guests:?}");
        assert_eq!(guests[0].comment, "phone");
        // It is as was said.
        leaked.opens(&mut daemon, stranger, server(&site));
        fs::remove_file(mistake).unwrap();
        site.ctl(&["reload"]).ok();
        assert_eq!(site.guests("ssh").len(), 1);
        is_refused(&site, &mut daemon, &leaked, &other);
    }
}

#[test]
fn a_mistake_in_the_main_file_keeps_no_leaked_key_in_force() {
    let calls: [(&[&str], i32); 3] = [
        (&["key", "remove", "laptop", "--force"], 0),
        (
            &["key", "retire", "laptop", "--generation", "1", "--force"],
            0,
        ),
        // It is in force as said, and its invitation waits for the mistake.
        (&["key", "rotate", "laptop", "--now"], 1),
    ];
    for (call, code) in calls {
        let site = Site::new(binaries!());
        let leaked = site.key("laptop", &["ssh"]);
        let other = site.key("phone", &["ssh"]);
        let mut daemon = site.daemon();
        let stranger = &site.lab.stranger;
        leaked.opens(&mut daemon, stranger, server(&site));
        let good = fs::read_to_string(site.config()).unwrap();
        fs::write(site.config(), format!("{good}\nskew = = 3\n")).unwrap();
        let done = site.ctl(call);
        for part in [
            "oneknockd.toml:",
            "the daemon has taken it",
            "nothing of oneknockd.toml",
        ] {
            assert!(done.err.contains(part), "{part}: {done}");
        }
        assert_eq!((done.code, &*done.out), (Some(code), ""), "{done}");
        assert_eq!(site.guests("ssh"), []);
        is_refused(&site, &mut daemon, &leaked, &other);
        // Of the main file all is as it was, and it is said as long as it is so.
        let status = site.ctl(&["status"]);
        assert!(
            status.out.contains("in force is what was before"),
            "{status}"
        );
        let done = site.ctl(&["reload"]);
        assert!(done.err.contains("the keys are reloaded"), "{done}");
        done.fails(1);
        // SIGHUP takes a key that was removed by hand.
        fs::remove_file(site.key_file("phone")).unwrap();
        daemon.signal(Signal::SIGHUP);
        wait::until_true("it is taken", || site.guests("ssh").is_empty());
        fs::write(site.config(), good).unwrap();
        site.ctl(&["reload"]).ok();
        let status = site.ctl(&["status"]);
        assert!(
            !status.out.contains("in force is what was before"),
            "{status}"
        );
    }
}

#[test]
fn a_key_of_a_service_that_is_not_in_force_is_not_taken_beside_a_mistake_in_the_main_file() {
    let site = Site::new(binaries!());
    let laptop = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let text = fs::read_to_string(site.config()).unwrap();
    fs::write(site.config(), format!("{text}\nskew = = 3\n")).unwrap();
    let key = fs::read_to_string(site.key_file("laptop")).unwrap();
    let of_web = key.replace("[\"ssh\"]", "[\"web\"]");
    assert_ne!(key, of_web);
    fs::write(site.key_file("laptop"), of_web).unwrap();
    let done = site.ctl(&["reload"]);
    assert!(!done.err.contains("the keys are reloaded"), "{done}");
    done.fails(1);
    laptop.opens(&mut daemon, &site.lab.laptop, server(&site));
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
    let rolling = "\n[sequence]\nservice = \"ssh\"\nrolling = \"60s\"\n";
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
    assert!(done.err.contains("three minutes at the most"), "{done}");
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
    assert!(said.contains("the daemon has taken it"), "{said}");
    assert_eq!(site.guests("ssh"), []);
}
