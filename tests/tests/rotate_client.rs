//! `oneknock rotate`: the laptop's rotation over the ssh that the door gives.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
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
*-wait) ctl "$@"; touch @PLAN@.hangs; while [ -e @PLAN@.hangs ]; do sleep .05; done ;;
*-hang) touch @PLAN@.hangs; sleep 9 ;;
*-late) ctl "$@" >/dev/null; touch @PLAN@.hangs; sleep 9 ;;
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
        self.rotate_with(self.site.sshd.config())
    }

    /// By another configuration of ssh.
    fn rotate_with(&self, config: &str) -> Done {
        self.site.lab.laptop.run(&self.call(config))
    }

    fn call<'f>(&'f self, config: &'f str) -> Vec<&'f str> {
        let rotate = ["oneknock", "rotate", "home", "--user", "root", "--command"];
        let rest = [self.script.to_str().unwrap(), "--", "-F", config];
        [&rotate[..], &rest].concat()
    }

    /// It is there while the server's command hangs.
    fn hangs(&self) -> PathBuf {
        self.plan.with_extension("hangs")
    }

    /// The next call of that command goes wrong so.
    fn plan(&self, plan: &str) {
        fs::write(&self.plan, plan).unwrap();
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
        for left in ["next =", "rotation_begun"] {
            assert!(!door.contains(left), "{door}");
        }
        assert_eq!(self.site.oneknock(&["list"]).err, "");
        self.opens();
    }
}

fn doors(site: &Site) -> PathBuf {
    site.lab.laptop.home.join(".config/oneknock/profiles")
}

#[test]
fn one_command_rotates_a_doors_key_and_the_old_secret_is_gone() {
    let mut lab = Fixture::new();
    let old = lab.door();
    let done = lab.rotate();
    assert!(
        done.err
            .contains("rotated the key of profile home to generation 2"),
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
        lab.plan(plan);
        let done = lab.rotate();
        assert_ne!(done.code, Some(0), "{plan}: {done}");
        assert!(!lab.plan.exists(), "{plan}: {done}");
        assert!(done.err.contains("run it again"), "{plan}: {done}");
        lab.opens();
        let is_stored = plan.starts_with("retire");
        assert_eq!(lab.door().contains("next ="), is_stored, "{plan}");
        // The old one may have an end by then, and that is not kept for oneself.
        let listed = lab.site.oneknock(&["list"]);
        let said = if is_stored {
            "in progress"
        } else {
            "was begun at"
        };
        assert!(listed.err.contains(said), "{plan}: {listed}");
        assert!(listed.err.contains("oneknock rotate home"), "{listed}");
        let again = lab.rotate();
        assert_eq!(again.code, Some(0), "{plan}: {again}");
        lab.is_complete(number);
    }
}

#[test]
fn a_rotation_that_is_killed_here_is_completed_by_the_next() {
    let lab = Fixture::new();
    let call = lab.call(lab.site.sshd.config());
    for delay in [50, 150, 250, 350, 450, 550, 650, 800] {
        let mut rotate = Running::start("rotate", lab.site.lab.laptop.command(&call));
        // Wherever in its work it is by then.
        std::thread::sleep(std::time::Duration::from_millis(delay));
        rotate.signal(Signal::SIGKILL);
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

/// The ssh that a program runs.
fn ssh_of(program: &Running) -> Pid {
    let children = |pid: i32| {
        let all =
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        all.split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect::<Vec<i32>>()
    };
    let name = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let mut below = vec![program.pid().as_raw()];
    while let Some(pid) = below.pop() {
        if name(pid).trim() == "ssh" {
            return Pid::from_raw(pid);
        }
        below.extend(children(pid));
    }
    panic!("it runs no ssh");
}

#[test]
fn a_rotation_whose_ssh_is_killed_leaves_a_door_that_opens_and_is_completed() {
    for (plan, number) in [
        ("rotate-hang", 2),
        ("rotate-late", 3),
        ("retire-hang", 2),
        ("retire-late", 2),
    ] {
        let lab = Fixture::new();
        lab.plan(plan);
        let call = lab.call(lab.site.sshd.config());
        let mut rotate = Running::start("rotate", lab.site.lab.laptop.command(&call));
        wait::until_true("the server's command hangs", || lab.hangs().exists());
        kill(ssh_of(&rotate), Signal::SIGKILL).unwrap();
        assert_eq!(rotate.end().code(), Some(1), "{plan}");
        lab.opens();
        lab.rotate().ok();
        lab.is_complete(number);
    }
}

#[test]
fn what_is_stored_and_opens_is_not_given_up_because_the_line_is_down() {
    let lab = Fixture::new();
    lab.plan("retire-after");
    lab.rotate().fails(1);
    // The old one has ended: what is stored is the only one that opens.
    assert_eq!(lab.working(), [2]);
    let door = lab.door();
    for plan in ["retire-before", "retire-refused"] {
        lab.plan(plan);
        let done = lab.rotate();
        assert!(!done.err.contains("asking for another"), "{done}");
        done.fails(1);
        assert_eq!((lab.door(), lab.working()), (door.clone(), vec![2]));
        lab.opens();
    }
    lab.rotate().ok();
    lab.is_complete(2);
}

#[test]
fn what_a_person_has_configured_for_sessions_is_not_in_its_way() {
    let lab = Fixture::new();
    let text = fs::read_to_string(lab.site.sshd.config()).unwrap();
    let own = "Host home\n    RemoteCommand echo hello\n    RequestTTY force\n";
    let config = lab.site.lab.laptop.home.join("ssh_config");
    fs::write(&config, format!("{own}{text}")).unwrap();
    lab.rotate_with(config.to_str().unwrap()).ok();
    lab.is_complete(2);
}

#[test]
fn the_servers_command_is_oneknockctl_or_what_was_said_with_its_own_arguments() {
    let lab = Fixture::new();
    let bin = lab.site.sshd.bin();
    std::os::unix::fs::symlink(&lab.script, bin.join("oneknockctl")).unwrap();
    let ssh = ["--", "-F", lab.site.sshd.config()];
    let rotate = ["rotate", "home", "--user", "root"];
    lab.site.oneknock(&[&rotate[..], &ssh].concat()).ok();
    lab.is_complete(2);
    // As sudo is.
    let command = ["--command", "env -u NOTHING oneknockctl"];
    lab.site
        .oneknock(&[&rotate[..], &command, &ssh].concat())
        .ok();
    lab.is_complete(3);
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
    lab.plan("retire-before");
    lab.rotate().fails(1);
    // Another rotation takes its place before it was used.
    let retire = ["key", "retire", "laptop", "--generation", "2", "--force"];
    lab.site.ctl(&retire).ok();
    lab.opens();
    let done = lab.rotate();
    assert!(done.err.contains("asking for another generation"), "{done}");
    done.ok();
    lab.is_complete(3);
}

#[test]
fn a_door_whose_secret_has_ended_at_the_server_says_the_way_that_works() {
    let lab = Fixture::new();
    let line = lab.site.ctl(&["key", "rotate", "laptop", "--now"]).ok();
    let done = lab.rotate();
    assert!(!done.err.contains("opens as before"), "{done}");
    let hint = "bring over what \"oneknockctl key invite\" prints on the server, and run: oneknock import --replace";
    assert!(done.fails(1).contains(hint));
    let laptop = &lab.site.lab.laptop;
    let refused = laptop.run_with(&["oneknock", "import"], &line);
    assert!(refused.fails(2).contains("hint: use --replace"));
    let replaced = laptop.run_with(&["oneknock", "import", "--replace"], &line);
    replaced.ok();
    lab.is_complete(2);
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
    let laptop = &lab.site.lab.laptop;
    let fill = || {
        let _ = laptop.run(&["cp", "/dev/zero", filler.to_str().unwrap()]);
    };
    fill();
    let done = lab.rotate();
    assert!(done.err.contains("cannot write"), "{done}");
    assert_ne!(done.code, Some(0));
    assert_eq!(lab.door(), door);
    lab.opens();
    fs::remove_file(&filler).unwrap();
    // Full when the server had made the new one, and when it had ended the old one.
    for (plan, working) in [("rotate-wait", vec![1, 2]), ("retire-wait", vec![3])] {
        lab.plan(plan);
        let call = lab.call(lab.site.sshd.config());
        let mut rotate = Running::start("rotate", laptop.command(&call));
        wait::until_true("the server has done it", || lab.hangs().exists());
        fill();
        fs::remove_file(lab.hangs()).unwrap();
        rotate.expect("cannot write");
        assert_ne!(rotate.end().code(), Some(0));
        assert_eq!(lab.working(), working, "{plan}");
        lab.opens();
        fs::remove_file(&filler).unwrap();
    }
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
    assert!(listed.out.contains("less than a day"), "{listed}");
    assert!(
        listed.err.contains("home: the key expires in 2 days"),
        "{listed}"
    );
    assert!(listed.err.contains("hint: "), "{listed}");
    assert!(site.oneknock(&["show", "home"]).ok().contains("\nexpires "));
}
