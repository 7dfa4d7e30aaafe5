//! The state: a full disk, a lost or damaged one, the history, two keys across a restart.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::process::Running;
use oneknock_tests::site::PORT;
use oneknock_tests::wire::{self, send};
use oneknock_tests::{Site, binaries, wait};
use oneknock_tests::{rolling, sequence};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn state(site: &Site) -> PathBuf {
    site.dir.join("state")
}

/// The daemon, asking the folder's `timedatectl` whether the clock is synchronised.
fn daemon_that_asks(site: &Site, folder: &Path) -> Running {
    let path = format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", folder.display());
    let daemon = site.lab.server.run(&["which", "oneknockd"]).ok();
    let command = ["env", &path, daemon.trim(), "--config"];
    let command = [&command[..], &[site.dir.to_str().unwrap()]].concat();
    let mut daemon = Running::start("oneknockd", site.lab.server.command(&command));
    daemon.expect("oneknockd: ready ");
    daemon
}

/// A `timedatectl` that says what stands in the file that is returned.
fn timedatectl(site: &Site) -> (PathBuf, PathBuf) {
    let folder = site.lab.server.home.join("bin");
    let (program, says) = (folder.join("timedatectl"), folder.join("says"));
    fs::create_dir_all(&folder).unwrap();
    fs::write(&says, "no\n").unwrap();
    fs::write(&program, format!("#!/bin/sh\ncat {}\n", says.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    (folder, says)
}

/// How many seconds a knock is refused for, from a log line that says it.
fn seconds(line: &str) -> u64 {
    let word = line.split("seconds=").nth(1).unwrap();
    word.split(' ').next().unwrap().parse().unwrap()
}

/// Removes the files of the state whose names end so.
fn lose(site: &Site, ending: &str) {
    for file in fs::read_dir(state(site)).unwrap() {
        let path = file.unwrap().path();
        if path.to_str().unwrap().ends_with(ending) {
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn a_lost_state_waits_for_the_clock_and_then_refuses_what_was_made_before() {
    for (lost, said) in [("log", "the log is missing"), ("mark", "mark is missing")] {
        let site = Site::new(binaries!());
        site.set(&site.config(), "skew", "\"2s\"");
        let key = site.key("laptop", &["ssh"]);
        let server: IpAddr = site.lab.server.v4.into();
        let mut daemon = site.daemon();
        let packet = key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 1));
        daemon.expect("granted address=");
        daemon.signal(Signal::SIGTERM);
        daemon.end();
        lose(&site, lost);
        let (folder, says) = timedatectl(&site);
        let mut daemon = daemon_that_asks(&site, &folder);
        let lines = daemon.lines();
        let mut lost = lines.iter().filter(|line| line.contains("state-lost"));
        assert!(lost.any(|line| line.contains(said)), "{lines:?}");
        key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 1));
        for ask in [&["status"][..], &["log", "--denied"]] {
            let done = site.ctl(ask);
            let said = format!("{}{}", done.out, done.err);
            for part in [
                "all knocks are rejected",
                "timedatectl",
                "debug reset-state",
            ] {
                assert!(said.contains(part), "{done}");
            }
        }
        wait::until_true("the knock is counted", || {
            let words = site.ctl(&["status"]).ok();
            words.contains("packets not examined: 1")
        });
        // With a daemon there it is said what to do first.
        let err = site.ctl(&["debug", "reset-state"]).fails(1);
        assert!(err.contains("hint: stop oneknockd"), "{err}");
        // Killed in this state it is no wiser afterwards.
        daemon.signal(Signal::SIGKILL);
        daemon.end();
        let mut daemon = daemon_that_asks(&site, &folder);
        daemon.expect("awaiting-clock");
        assert_eq!(daemon.count("granted"), 0);
        fs::write(&says, "yes\n").unwrap();
        let line = daemon.expect("replay-floor seconds=");
        assert!((1..=2).contains(&seconds(&line)), "{line}");
        send(&site.lab.stranger, (server, PORT).into(), &packet);
        wait::until_true("a fresh knock opens", || {
            key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 1));
            daemon.count("granted") > 0
        });
        assert!(!site.admits("ssh", site.lab.stranger.v4.into()));
    }
}

#[test]
fn while_the_state_is_lost_nobody_walks_a_rolling_sequence() {
    let site = Site::new(binaries!());
    rolling::configure(&site, "");
    let key = site.key("laptop", &["ssh"]);
    let (folder, says) = timedatectl(&site);
    let walks = |number| {
        let from = sequence::somebody(number, false);
        rolling::walk(&site, from, &rolling::steps(&key, 0));
        from
    };
    let mut daemon = site.daemon();
    rolling::early_in_a_minute();
    let first = walks(1);
    wait::until_true("it opens", || sequence::is_open(&site, first));
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    lose(&site, "mark");
    let mut daemon = daemon_that_asks(&site, &folder);
    // What it opened before is closed, and what were steps a moment ago are missteps.
    assert!(!sequence::is_open(&site, first));
    let second = walks(2);
    let penalty = || site.guests("penalty_v").into_iter();
    wait::until_true("it is judged", || {
        penalty().any(|guest| guest.address == second)
    });
    assert!(!sequence::is_open(&site, second));
    fs::write(&says, "yes\n").unwrap();
    daemon.expect("replay-floor seconds=");
    wait::until_true("it opens", || sequence::is_open(&site, walks(3)));
}

#[test]
fn where_nobody_can_be_asked_about_the_clock_the_owner_can_vouch_for_it() {
    let site = Site::new(binaries!());
    site.set(&site.config(), "skew", "\"1s\"");
    let key = site.key("laptop", &["ssh"]);
    fs::write(state(&site).join("mark"), "scribble").unwrap();
    site.ctl(&["debug", "reset-state"]).ok();
    let mut daemon = site.daemon();
    let server: IpAddr = site.lab.server.v4.into();
    wait::until_true("a fresh knock opens", || {
        key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 1));
        daemon.count("granted") > 0
    });
    assert!(daemon.is_alive());
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    let error = site.ctl(&["debug", "reset-state"]).fails(1);
    assert!(error.contains("is intact: nothing was changed"), "{error}");
}

#[test]
fn journal_damaged_under_the_daemon_opens_nothing_and_is_made_again() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let server: IpAddr = site.lab.server.v4.into();
    let mut daemon = site.daemon();
    let packet = key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 300));
    daemon.expect("granted address=");
    wait::until_true("it is in the history", || {
        site.ctl(&["log"]).ok().contains("laptop")
    });
    for file in ["journal.db", "journal.db-wal"] {
        let path = state(&site).join(file);
        let length = fs::metadata(&path).unwrap().len();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let noise = vec![0x55; usize::try_from(length).unwrap()];
        std::os::unix::fs::FileExt::write_all_at(&file, &noise, 0).unwrap();
    }
    // Knocks do not wait for it, and nothing is accepted twice.
    key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 300));
    daemon.expect("granted address=");
    send(&site.lab.laptop, (server, PORT).into(), &packet);
    daemon.expect("ignored source=");
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    let mut daemon = site.daemon();
    send(&site.lab.laptop, (server, PORT).into(), &packet);
    daemon.expect("ignored source=");
    // There is none for a moment, while the damaged one is moved aside.
    wait::until_true("the history is there again", || {
        let shown = site.ctl(&["log"]);
        shown.code == Some(0) && shown.out.contains("laptop")
    });
}

#[test]
fn full_disk_keeps_no_knock_out_while_the_log_has_room() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let server: IpAddr = site.lab.server.v4.into();
    let small = state(&site);
    let kept = site.lab.server.home.join("kept");
    site.lab
        .server
        .run(&["cp", "-a", small.to_str().unwrap(), kept.to_str().unwrap()])
        .ok();
    let _mounted = Mounted::small(&small);
    for file in fs::read_dir(&kept).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), small.join(file.file_name())).unwrap();
    }
    let mut daemon = site.daemon();
    key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 1));
    daemon.expect("granted address=");
    let filler = small.join("filler");
    // To the last byte: cp stops where there is no room.
    let _ = site
        .lab
        .server
        .run(&["cp", "/dev/zero", filler.to_str().unwrap()]);
    wait::until_true("earlier grants end", || site.guests("ssh").is_empty());
    let packet = key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 30));
    daemon.expect("granted address=");
    assert!(site.admits("ssh", site.lab.laptop.v4.into()));
    // Accepted once, also where the daemon is killed now and the disk has room again.
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    fs::remove_file(&filler).unwrap();
    let mut daemon = site.daemon();
    send(&site.lab.stranger, (server, PORT).into(), &packet);
    daemon.expect("reason=replayed");
}

/// A file system of 16 mebibytes, gone with the test.
struct Mounted(PathBuf);

impl Mounted {
    fn small(at: &Path) -> Self {
        let mount = [
            "-t",
            "tmpfs",
            "-o",
            "size=16m,mode=0700",
            "lab",
            at.to_str().unwrap(),
        ];
        let done = std::process::Command::new("mount").args(mount).status();
        assert!(done.unwrap().success());
        Self(at.into())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
    }
}

#[test]
fn the_history_is_shown_while_the_daemon_runs_and_after() {
    let site = Site::new(binaries!());
    let laptop = site.key("laptop", &["ssh"]);
    let phone = site.key("phone", &["ssh"]);
    let server: IpAddr = site.lab.server.v4.into();
    let none = site.ctl(&["log", "--json"]).json();
    assert_eq!(none["grants"], serde_json::json!([]));
    assert_eq!(none["denied_is_known"], false);
    let mut daemon = site.daemon();
    for key in [&laptop, &phone] {
        key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 60));
        daemon.expect("granted address=");
    }
    laptop.knock(&site.lab.laptop, server, &wire::close(None));
    daemon.expect("closed address=");
    let shown = |args: &[&str]| {
        let log = site.ctl(&[&["log", "--json"], args].concat()).json();
        let entry = |entry: &serde_json::Value| {
            let word = |name: &str| entry[name].as_str().unwrap().to_owned();
            format!(
                "{} {} {} {}",
                word("key"),
                word("how"),
                word("service"),
                word("address")
            )
        };
        let mut lines: Vec<String> = log["grants"]
            .as_array()
            .unwrap()
            .iter()
            .map(entry)
            .collect();
        lines.sort();
        lines
    };
    let all = [
        "laptop closed ssh 198.51.100.7",
        "phone open ssh 198.51.100.7",
    ];
    // The journal follows the log.
    wait::until_true("the journal has it", || shown(&[]) == all);
    assert_eq!(shown(&["phone"]), all[1..]);
    assert_eq!(shown(&["--since", "1h"]), all);
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    assert_eq!(shown(&[]), all);
    let of_address = shown(&["198.51.100.7"]);
    assert_eq!(
        (of_address, shown(&["192.0.2.99"])),
        (shown(&[]), Vec::new())
    );
    let lines = site.ctl(&["log"]).ok();
    assert_eq!(lines.lines().count(), 2, "{lines}");
    for part in [
        " granted laptop 198.51.100.7 ssh until ",
        "(closed",
        "(open",
    ] {
        assert!(lines.contains(part), "{lines}");
    }
    let error = site.ctl(&["log", "--since", "soon"]).fails(2);
    assert!(error.contains("--since"), "{error}");
}

#[test]
fn two_keys_claims_on_one_address_survive_a_kill() {
    let site = Site::new(binaries!());
    let (laptop, phone) = (site.key("laptop", &["ssh"]), site.key("phone", &["ssh"]));
    let server: IpAddr = site.lab.server.v4.into();
    let mut daemon = site.daemon();
    for key in [&laptop, &phone] {
        key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 60));
        daemon.expect("granted address=");
    }
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    let mut daemon = site.daemon();
    laptop.knock(&site.lab.laptop, server, &wire::close(None));
    daemon.expect("closed address=");
    assert!(site.admits("ssh", site.lab.laptop.v4.into()));
    phone.knock(&site.lab.laptop, server, &wire::close(None));
    daemon.expect("closed address=");
    assert_eq!(site.guests("ssh"), []);
}

#[test]
fn grants_whose_guard_was_taken_away_while_no_daemon_ran_come_back_with_it() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let server: IpAddr = site.lab.server.v4.into();
    let mut daemon = site.daemon();
    key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 600));
    daemon.expect("granted address=");
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    site.ctl(&["disable", "--until-reboot"]).ok();
    let _daemon = site.daemon();
    let guests = site.guests("ssh");
    assert_eq!(guests.len(), 1);
    assert!((500..600).contains(&guests[0].expires), "{guests:?}");
}

/// What a leaked generation has opened is known by the grant itself, not by a database.
#[test]
fn retiring_a_generation_closes_what_it_opened_also_where_the_journal_is_damaged_or_gone() {
    for (is_gone, is_killed) in [(false, false), (true, false), (false, true), (true, true)] {
        let site = Site::new(binaries!());
        let leaked = site.key("laptop", &["ssh"]);
        let server: IpAddr = site.lab.server.v4.into();
        let mut daemon = site.daemon();
        let thief = &site.lab.stranger;
        leaked.knock(thief, server, &wire::open(Some("ssh"), 600));
        daemon.expect("granted address=203.0.113.9");
        let line = site.ctl(&["key", "rotate", "laptop"]).ok();
        let invitation = line.parse().unwrap_or_else(|e| panic!("{line}: {e}"));
        let new = wire::Key { line, invitation };
        new.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 600));
        daemon.expect("granted address=198.51.100.7");
        for file in ["journal.db", "journal.db-wal", "journal.db-shm"] {
            let path = state(&site).join(file);
            if is_gone {
                let _ = fs::remove_file(&path);
            } else if let Ok(length) = fs::metadata(&path).map(|found| found.len()) {
                let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
                let noise = vec![0x55; usize::try_from(length).unwrap()];
                std::os::unix::fs::FileExt::write_all_at(&file, &noise, 0).unwrap();
            }
        }
        if is_killed {
            daemon.signal(Signal::SIGKILL);
            daemon.end();
            daemon = site.daemon();
        }
        let retire = ["key", "retire", "laptop", "--generation", "1", "--force"];
        let done = site.ctl(&retire);
        let open: Vec<IpAddr> = site.guests("ssh").iter().map(|one| one.address).collect();
        assert_eq!(open, [IpAddr::from(site.lab.laptop.v4)], "{done}");
        drop(daemon);
    }
}
