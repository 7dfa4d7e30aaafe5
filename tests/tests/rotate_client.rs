//! `oneknock rotate`: the laptop's rotation over the ssh that the door gives.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::{Done, Running, Site, binaries, wait};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// Runs oneknockctl for this site, and goes wrong once where a file `plan` beside it says.
/// It takes the server's own process of the connection down, as a cut line would.
const SCRIPT: &str = r#"#!/bin/sh
ctl() { @CTL@ --config @DIR@ "$@"; }
plan=$(cat @PLAN@ 2>/dev/null)
lose() {
    pid=$PPID
    while [ "$(cat /proc/$pid/comm)" != sshd ]; do
        pid=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$pid/status)
    done
    kill -9 "$pid"
    sleep 9
}
case "$plan" in
"$2"-*) rm @PLAN@ ;;
*) plan= ;;
esac
case "$plan" in
*-before) lose ;;
*-refused) echo "no" >&2; exit 1 ;;
*-silent) ctl "$@" >/dev/null; lose ;;
*-half) ctl "$@" | head -c 60; lose ;;
*-garbage) ctl "$@" | tr a-m n-z ;;
*-after) ctl "$@"; lose ;;
*) ctl "$@" ;;
esac
"#;

struct Fixture {
    script: PathBuf,
    plan: PathBuf,
    daemon: Running,
    site: Site,
}

impl Fixture {
    fn new() -> Self {
        let site = Site::new(binaries!());
        site.laptop_key();
        let home = &site.lab.server.home;
        let (script, plan) = (home.join("ctl"), home.join("plan"));
        let text = SCRIPT
            .replace("@CTL@", binaries!().oneknockctl)
            .replace("@DIR@", site.dir.to_str().unwrap())
            .replace("@PLAN@", plan.to_str().unwrap());
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
        let daemon = site.daemon();
        Self {
            script,
            plan,
            daemon,
            site,
        }
    }

    fn rotate(&self) -> Done {
        let command = ["--command", self.script.to_str().unwrap()];
        let ssh = ["--", "-F", self.site.sshd.config()];
        let call = [&["rotate", "home", "--user", "root"][..], &command, &ssh];
        self.site.oneknock(&call.concat())
    }

    /// The door's file.
    fn door(&self) -> String {
        fs::read_to_string(doors(&self.site).join("home.toml")).unwrap()
    }

    /// A fresh knock of the door opens it.
    fn opens(&self) {
        self.site.ctl(&["revoke", "--all"]).ok();
        assert_eq!(self.site.guests("ssh"), []);
        self.site.oneknock(&["open", "home"]).ok();
        assert!(!self.site.guests("ssh").is_empty());
    }

    /// Numbers of the generations that work.
    fn working(&self) -> Vec<u64> {
        let shown = self.site.ctl(&["key", "show", "laptop", "--json"]).ok();
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let all = shown["generations"].as_array().unwrap().iter();
        let working = all.filter(|g| g["state"] == "active" || g["state"] == "retiring");
        working.map(|g| g["number"].as_u64().unwrap()).collect()
    }

    /// The rotation is complete: one generation, here and there.
    fn is_complete(&self, number: u64) {
        assert_eq!(self.working(), [number]);
        let door = self.door();
        assert!(door.contains(&format!("generation = {number}\n")), "{door}");
        assert!(!door.contains("next ="), "{door}");
        self.opens();
    }
}

fn doors(site: &Site) -> PathBuf {
    site.lab.laptop.home.join(".config/oneknock/doors")
}

#[test]
fn one_command_rotates_a_doors_key_and_the_old_secret_is_gone() {
    let mut lab = Fixture::new();
    let old = lab.door();
    let done = lab.rotate();
    assert!(
        done.err.contains("has a new secret, generation 2"),
        "{done}"
    );
    assert!(!done.to_string().contains("oneknock1:"), "{done}");
    done.ok();
    lab.is_complete(2);
    // The old secret opens nothing, and the log says whose it is.
    fs::write(doors(&lab.site).join("home.toml"), old).unwrap();
    lab.site.ctl(&["revoke", "--all"]).ok();
    lab.site
        .oneknock(&["open", "home", "--timeout", "1s"])
        .fails(1);
    lab.daemon.expect("key=laptop service=ssh reason=expired");
}

#[test]
fn a_rotation_that_breaks_off_at_any_step_leaves_a_door_that_opens_and_is_completed() {
    for (plan, number) in [
        ("rotate-refused", 2),
        ("rotate-before", 2),
        ("rotate-silent", 3),
        ("rotate-half", 3),
        ("rotate-garbage", 3),
        ("rotate-after", 3),
        ("retire-refused", 2),
        ("retire-before", 2),
        ("retire-silent", 2),
        ("retire-after", 2),
    ] {
        let lab = Fixture::new();
        fs::write(&lab.plan, plan).unwrap();
        let done = lab.rotate();
        assert_ne!(done.code, Some(0), "{plan}: {done}");
        assert!(!lab.plan.exists(), "{plan}: {done}");
        assert!(
            done.err.contains("run it again") || plan == "rotate-garbage",
            "{plan}: {done}"
        );
        lab.opens();
        let is_stored = plan.starts_with("retire");
        assert_eq!(lab.door().contains("next ="), is_stored, "{plan}");
        if is_stored {
            let listed = lab.site.oneknock(&["list"]);
            assert!(listed.err.contains("under way"), "{listed}");
        }
        let again = lab.rotate();
        assert_eq!(again.code, Some(0), "{plan}: {again}");
        lab.is_complete(number);
    }
}

#[test]
fn a_rotation_that_is_killed_here_is_completed_by_the_next() {
    let lab = Fixture::new();
    let command = ["--command", lab.script.to_str().unwrap()];
    let ssh = ["--", "-F", lab.site.sshd.config()];
    let call = [
        &["oneknock", "rotate", "home", "--user", "root"][..],
        &command,
        &ssh,
    ]
    .concat();
    for delay in [50, 150, 250, 350, 450, 550, 650, 800] {
        let mut rotate = Running::start("rotate", lab.site.lab.laptop.command(&call));
        // Wherever in its work it is by then.
        std::thread::sleep(std::time::Duration::from_millis(delay));
        rotate.signal(nix::sys::signal::Signal::SIGKILL);
        rotate.end();
        lab.opens();
    }
    // What a killed one has asked for may reach the server still, and begin another.
    wait::until_true("a rotation is complete", || {
        lab.rotate().code == Some(0) && lab.working().len() == 1
    });
    assert!(!lab.door().contains("next ="));
    lab.opens();
}

#[test]
fn the_door_opens_all_the_while_its_key_is_rotated() {
    let lab = Fixture::new();
    let opened = |end: &AtomicBool| {
        let mut opened = 0;
        while !end.load(Ordering::Relaxed) {
            lab.site.oneknock(&["open", "home"]).ok();
            opened += 1;
        }
        opened
    };
    let (opened, ()) = wait::meanwhile(opened, || {
        for _ in 0..5 {
            lab.rotate().ok();
        }
    });
    assert!(opened > 5, "{opened}");
    lab.is_complete(6);
}

#[test]
fn a_next_generation_that_the_server_does_not_know_any_more_is_replaced() {
    let lab = Fixture::new();
    fs::write(&lab.plan, "retire-before").unwrap();
    lab.rotate().fails(1);
    // Another rotation takes its place before it was used.
    let retire = ["key", "retire", "laptop", "--generation", "2", "--force"];
    lab.site.ctl(&retire).ok();
    lab.opens();
    let done = lab.rotate();
    assert!(done.err.contains("asking for another one"), "{done}");
    done.ok();
    lab.is_complete(3);
}

/// A file system of its own, gone with the test.
struct Mounted(PathBuf);

impl Mounted {
    fn small(at: &Path) -> Self {
        let mount = ["-t", "tmpfs", "-o", "size=64k,mode=0700", "lab"];
        let status = Command::new("mount").args(mount).arg(at).status();
        assert!(status.unwrap().success());
        Self(at.into())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn on_a_full_disk_the_door_stays_as_it_was() {
    let lab = Fixture::new();
    let (folder, door) = (doors(&lab.site), lab.door());
    let _mounted = Mounted::small(&folder);
    fs::write(folder.join("home.toml"), &door).unwrap();
    fs::set_permissions(folder.join("home.toml"), Permissions::from_mode(0o600)).unwrap();
    fs::write(folder.join(".home.lock"), "").unwrap();
    let filler = folder.join("filler");
    let _ = lab
        .site
        .lab
        .laptop
        .run(&["cp", "/dev/zero", filler.to_str().unwrap()]);
    let done = lab.rotate();
    assert!(done.err.contains("cannot write"), "{done}");
    assert_ne!(done.code, Some(0));
    assert_eq!(lab.door(), door);
    lab.opens();
    fs::remove_file(&filler).unwrap();
    lab.rotate().ok();
    lab.is_complete(3);
}

#[test]
fn list_tells_how_old_a_key_is_and_warns_of_its_end() {
    let site = Site::new(binaries!());
    let line = site
        .ctl(&["key", "add", "laptop", "--not-after", "3d"])
        .ok();
    site.lab
        .laptop
        .run_with(&["oneknock", "import"], &line)
        .ok();
    let listed = site.oneknock(&["list"]);
    assert!(listed.out.contains("less than a day old"), "{listed}");
    assert!(
        listed.err.contains("the key of door home ends in 2 days"),
        "{listed}"
    );
    assert!(listed.err.contains("hint: "), "{listed}");
    assert!(site.oneknock(&["show", "home"]).ok().contains("\nends "));
}
