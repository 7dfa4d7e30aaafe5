//! Key files: changed entirely or not at all, one change at a time, and by nobody else.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::wire;
use oneknock_tests::{Running, Site, binaries};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;

fn rotate(site: &Site, more: &[&str]) {
    site.ctl(&[&["key", "rotate", "laptop"], more].concat())
        .ok();
}

/// State and number of each generation.
fn states(site: &Site) -> Vec<(u64, String)> {
    let shown = site.ctl(&["key", "show", "laptop", "--json"]).json();
    let generations = shown["generations"].as_array().unwrap().iter();
    let state = |g: &Value| {
        let state = g["state"].as_str().unwrap();
        (g["number"].as_u64().unwrap(), state.to_owned())
    };
    generations.map(state).collect()
}

#[test]
fn concurrent_calls_lose_no_update() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    let _daemon = site.daemon();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (site, name) = (&site, format!("key{number}"));
            scope.spawn(move || {
                rotate(site, &["--overlap", "300d"]);
                site.ctl(&["key", "add", &name]).ok();
                site.ctl(&["key", "rotate", &name]).ok();
            });
        }
    });
    // Eight rotations, of which each dropped the one before, that nobody had used.
    assert_eq!(
        states(&site),
        [(1, "retiring".into()), (9, "active".into())]
    );
    let status = site.ctl(&["status", "--json"]).json();
    assert_eq!(status["keys"], 9);
}

#[test]
fn a_rewrite_that_is_killed_leaves_the_old_key_or_the_new_one() {
    let site = Site::new(binaries!());
    let first = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let server = site.lab.server.v4.into();
    let dir = site.dir.to_str().unwrap();
    let call = ["oneknockctl", "--config", dir, "key", "rotate", "laptop"];
    // As it is about to make each of the calls by which it changes anything, and as it is
    // about to tell the daemon.
    let mut kills = 0;
    for syscall in ["flock", "fchmod", "write", "fsync", "/^rename", "connect"] {
        for which in 1.. {
            let inject = format!("inject={syscall}:signal=SIGKILL:when={which}");
            let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &inject];
            let done = site.lab.server.run(&[&strace[..], &call].concat());
            site.ctl(&["check"]).ok();
            let states = states(&site);
            let is_old = states == [(1, "active".into())];
            let is_new = states.len() == 2 && states[0] == (1, "retiring".into());
            assert!(is_old || is_new, "{syscall} {which}: {states:?}");
            if done.code == Some(0) {
                break;
            }
            kills += 1;
        }
    }
    assert!(kills > 8, "{kills}");
    site.ctl(&["reload"]).ok();
    first.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 0));
    daemon.expect("granted address=198.51.100.7 key=laptop");
    // What the killed ones left, secrets among it, goes with the next change.
    rotate(&site, &[]);
    let left = fs::read_dir(site.dir.join("keys")).unwrap();
    assert_eq!(left.count(), 1);
}

#[test]
fn a_change_that_the_daemon_was_not_told_of_is_said_by_the_list() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    site.key("phone", &["ssh"]);
    let _daemon = site.daemon();
    site.ctl(&["key", "add", "laptop"]).fails(5);
    assert_eq!(site.ctl(&["key", "list"]).err, "");
    let dir = site.dir.to_str().unwrap();
    // Killed as it is about to sync the folder: the file has its name, or has none any more.
    for (call, which, said) in [
        (
            &["key", "rotate", "laptop", "--now"][..],
            2,
            "as their files are now: laptop",
        ),
        (&["key", "remove", "phone"], 1, "no file any more: phone"),
    ] {
        let inject = format!("inject=fsync:signal=SIGKILL:when={which}");
        let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &inject];
        let ctl = [&["oneknockctl", "--config", dir], call].concat();
        let done = site.lab.server.run(&[&strace[..], &ctl].concat());
        assert_ne!(done.code, Some(0), "{done}");
        let listed = site.ctl(&["key", "list"]);
        for part in [said, "reload"] {
            assert!(listed.err.contains(part), "{listed}");
        }
        site.ctl(&["reload"]).ok();
        assert_eq!(site.ctl(&["key", "list"]).err, "");
    }
}

#[test]
fn a_key_file_that_is_not_safe_is_not_rewritten() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    let file = site.key_file("laptop");
    let access = |path| {
        let meta = fs::metadata(path).unwrap();
        (meta.mode(), meta.uid(), meta.gid())
    };
    let before = access(&file);
    rotate(&site, &[]);
    assert_eq!(access(&file), before);
    let retire = ["key", "retire", "laptop", "--force"];
    site.ctl(&retire).ok();
    assert_eq!(access(&file), before);
    let real = site.dir.join("elsewhere");
    fs::rename(&file, &real).unwrap();
    std::os::unix::fs::symlink(&real, &file).unwrap();
    let text = fs::read(&real).unwrap();
    for call in [
        &["rotate", "laptop"][..],
        &["retire", "laptop"],
        &["show", "laptop"],
    ] {
        let err = site.ctl(&[&["key"], call].concat()).fails(3);
        assert!(err.contains("not a plain file"), "{err}");
    }
    assert!(file.symlink_metadata().unwrap().is_symlink());
    assert_eq!(fs::read(&real).unwrap(), text);
}

#[test]
fn on_a_full_disk_a_key_stays_as_it_was() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let knock = |daemon: &mut Running| {
        let server = site.lab.server.v4.into();
        key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 0));
        daemon.expect("granted address=198.51.100.7 key=laptop");
    };
    knock(&mut daemon);
    let (file, keys) = (site.key_file("laptop"), site.dir.join("keys"));
    let text = fs::read(&file).unwrap();
    let server = &site.lab.server;
    // In a view of the file system of its own, gone with the call.
    let full = |call: &str| {
        let (keys, dir) = (keys.display(), site.dir.display());
        let line = format!(
            "cp -a {keys} {keys}.copy && mount -t tmpfs -o size=16k,mode=0750 lab {keys} &&
             cp -a {keys}.copy/. {keys} && {{ cat /dev/zero >{keys}/.filler 2>/dev/null; true; }} &&
             {{ oneknockctl --config {dir} {call}; status=$?; }}
             cmp {keys}/laptop.toml {keys}.copy/laptop.toml || status=9
             ls -A {keys}; rm -r {keys}.copy; exit $status"
        );
        server.run(&["unshare", "--mount", "sh", "-c", &line])
    };
    for call in [
        "key rotate laptop",
        "key retire laptop --force --generation 1",
        "key add phone",
    ] {
        let done = full(call);
        assert!(done.err.contains("No space left"), "{done}");
        assert!(!done.out.contains("oneknock1:"), "{done}");
        assert!(
            !done.out.contains("phone") && !done.out.contains(".new-"),
            "{done}"
        );
        done.fails(1);
    }
    assert_eq!(fs::read(&file).unwrap(), text);
    knock(&mut daemon);
}

#[test]
fn no_key_has_the_name_by_which_enable_knocks() {
    let site = Site::new(binaries!());
    let done = site.ctl(&["key", "add", "oneknockctl-enable"]);
    assert!(done.err.contains("by which \"enable\" knocks"), "{done}");
    done.fails(2);
    assert!(!site.key_file("oneknockctl-enable").exists());
}
