//! The control socket, and peers that mean no good.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::control::{connect, say, socket, status};
use oneknock_tests::wire::{self, Key};
use oneknock_tests::{Done, Running, Site, binaries, wait};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The daemon serves: it answers, and a knock opens.
fn serves(site: &Site, key: &Key, daemon: &mut Running) {
    assert_eq!(status(site)["keys"], 1);
    let server: IpAddr = site.lab.server.v4.into();
    key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 0));
    daemon.expect("granted address=198.51.100.7 key=laptop service=ssh");
}

#[test]
fn what_is_no_command_is_answered_with_why_and_does_nothing() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let bad: [(&[u8], &str); 8] = [
        (b"\n", "not a JSON object"),
        (b"hello\n", "not a JSON object"),
        (b"\xff\xfe\n", "not a JSON object"),
        (b"{\"v\":2,\"command\":\"status\"}\n", "v must be 1"),
        (b"{\"v\":1,\"command\":\"open\"}\n", "unknown variant"),
        (b"{\"v\":1,\"command\":\"revoke\"}\n", "missing field"),
        (
            b"{\"v\":1,\"command\":\"revoke\",\"args\":{\"of\":\"all\",\"disconnect\":false,\"soon\":true}}\n",
            "unknown field",
        ),
        (&[b'['; 5000], "longer than 4096 bytes"),
    ];
    for (bytes, want) in bad {
        let line = say(&site, bytes);
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(answer["v"], 1);
        assert!(
            answer["error"]["message"].as_str().unwrap().contains(want),
            "{line}"
        );
    }
    // One line is one command; what follows is not looked at.
    let two = b"{\"v\":1,\"command\":\"status\"}\n{\"v\":1,\"command\":\"teardown\"}\n";
    assert!(say(&site, two).contains("\"ok\""));
    serves(&site, &key, &mut daemon);
}

#[test]
fn ten_megabytes_without_an_end_are_cut_off() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let line = say(&site, &vec![b'x'; 10 << 20]);
    assert!(line.contains("longer than 4096 bytes"), "{line}");
    serves(&site, &key, &mut daemon);
}

#[test]
fn a_watcher_that_never_reads_holds_nothing_up_and_learns_what_it_missed() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let mut stream = connect(&site);
    stream
        .write_all(b"{\"v\":1,\"command\":\"watch\"}\n")
        .unwrap();
    let server: IpAddr = site.lab.server.v4.into();
    let packet = key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 60));
    daemon.expect("granted");
    let to = (server, key.invitation.port).into();
    let seen = || status(&site)["counters"]["ignored"]["replayed"].as_u64();
    // More than the daemon keeps for it and the kernel does together.
    wait::until_true("many replays were seen", || {
        for _ in 0..500 {
            wire::send(&site.lab.stranger, to, &packet);
        }
        seen() > Some(4000)
    });
    serves(&site, &key, &mut daemon);
    let total = seen().unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains("\"ok\""));
    let (mut events, mut lost) = (0, 0);
    for line in lines.by_ref() {
        let line: Value = serde_json::from_str(&line).unwrap();
        match line["dropped"].as_u64() {
            Some(number) => lost += number,
            None => events += 1,
        }
        if lost > 0 {
            break;
        }
        // What was kept is read: room for the note, which the next event brings.
        if events % 500 == 0 {
            wire::send(&site.lab.stranger, to, &packet);
        }
        if events > 300 {
            wire::send(&site.lab.stranger, to, &packet);
        }
    }
    assert!(lost > 0 && events < total, "{lost} of {total}");
}

#[test]
fn connections_that_say_nothing_are_let_go_and_too_many_are_turned_away() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let mut idle: Vec<UnixStream> = (0..12).map(|_| connect(&site)).collect();
    wait::until_true("a further one is turned away", || {
        let line = say(&site, b"{\"v\":1,\"command\":\"status\"}\n");
        line.contains("too many connections")
    });
    let server: IpAddr = site.lab.server.v4.into();
    key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 0));
    daemon.expect("granted address=198.51.100.7");
    wait::until_true("the idle ones are gone", || {
        site.ctl(&["status"]).code == Some(0)
    });
    // The end, not an answer.
    assert_eq!(idle[0].read(&mut [0; 1]).unwrap(), 0);
    drop(idle);
    serves(&site, &key, &mut daemon);
}

fn may_pass(folders: &[&Path]) {
    for folder in folders {
        fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    }
}

/// Runs `oneknockctl` as another user and group.
fn ctl_as(site: &Site, user: &str, group: &str, args: &[&str]) -> Done {
    let program = site.lab.dir().join("program");
    if !program.exists() {
        fs::copy(binaries!().oneknockctl, &program).unwrap();
    }
    may_pass(&[site.lab.dir(), &site.lab.server.home, &site.dir]);
    let (user, group) = (format!("--reuid={user}"), format!("--regid={group}"));
    let setpriv = ["setpriv", &user, &group, "--clear-groups"];
    let call = [
        program.to_str().unwrap(),
        "--config",
        site.dir.to_str().unwrap(),
    ];
    site.lab.server.run(&[&setpriv, &call[..], args].concat())
}

#[test]
fn another_user_is_turned_away_also_where_the_mode_would_let_him_in() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&socket(&site)), 0o600);
    let err = ctl_as(&site, "65534", "65534", &["status"]).fails(1);
    assert!(
        err.contains("Permission denied") && err.contains("sudo oneknockctl"),
        "{err}"
    );
    fs::set_permissions(socket(&site), Permissions::from_mode(0o666)).unwrap();
    for ask in [
        &["status"][..],
        &["disable", "--until-reboot"],
        &["revoke", "--all"],
    ] {
        let err = ctl_as(&site, "65534", "65534", ask).fails(1);
        assert!(err.contains("may not use the control socket"), "{err}");
    }
    daemon.expect("control-rejected uid=65534");
    serves(&site, &key, &mut daemon);
}

#[test]
fn a_group_that_is_named_may_ask_and_no_other() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    site.set(&site.config(), "control_group", "\"nonesuch\"");
    let said = site.ctl(&["check"]);
    assert!(said.out.contains("there is no group nonesuch"), "{said}");
    site.set(&site.config(), "control_group", "\"daemon\"");
    fs::set_permissions(site.config(), Permissions::from_mode(0o644)).unwrap();
    let mut daemon = site.daemon();
    let group = nix::unistd::Group::from_name("daemon").unwrap().unwrap();
    let gid = group.gid.to_string();
    let answer = ctl_as(&site, "65534", &gid, &["status"]).ok();
    assert!(answer.contains("active grants 0"), "{answer}");
    let err = ctl_as(&site, "65534", "65534", &["status"]).fails(1);
    assert!(err.contains("Permission denied"), "{err}");
    fs::set_permissions(socket(&site), Permissions::from_mode(0o666)).unwrap();
    let err = ctl_as(&site, "65534", "65534", &["status"]).fails(1);
    assert!(err.contains("may not use the control socket"), "{err}");
    serves(&site, &key, &mut daemon);
}

#[test]
fn what_a_killed_daemon_left_is_replaced() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    assert!(socket(&site).exists());
    let err = site.ctl(&["status"]).fails(4);
    assert!(err.contains("oneknockd is not running"), "{err}");
    let _daemon = site.daemon();
    assert_eq!(status(&site)["keys"], 1);
}

#[test]
fn a_second_daemon_does_not_take_the_socket() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    let _daemon = site.daemon();
    let pid = status(&site)["pid"].clone();
    let mut second = site.daemon_unready();
    assert_eq!(second.end().code(), Some(1));
    assert_eq!(second.count("another oneknockd has it"), 1);
    assert_eq!(status(&site)["pid"], pid);
}
