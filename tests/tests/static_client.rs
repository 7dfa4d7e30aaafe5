//! The client as the README has it for machines without a package: one file, no library.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.
#![cfg(target_arch = "x86_64")]

use oneknock_tests::{Done, Site, binaries};
use std::fs;
use std::path::Path;
use std::process::Command;

/// As the README has it.
const INSTALL: &str = "RUSTFLAGS='-C target-feature=+crt-static' cargo install --path client --target x86_64-unknown-linux-gnu";

/// Installs it as the README says, but for the time that a release takes, into `root`.
fn install(root: &Path) {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let readme = fs::read_to_string(top.join("README.md")).unwrap();
    let words: Vec<&str> = readme.split_whitespace().collect();
    assert!(words.join(" ").contains(INSTALL));
    let root = root.to_str().unwrap();
    let line = format!("{INSTALL} --debug --offline --locked --root {root}");
    let mut command = Command::new("sh");
    command.args(["-c", &line]).current_dir(top);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("static");
    let done = command.env("CARGO_TARGET_DIR", target).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
}

#[test]
fn the_client_is_installed_as_one_file_that_opens_a_door_where_there_is_no_library() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let _daemon = site.daemon();
    // A system that has nothing but it, and the names of hosts.
    let root = site.lab.dir().join("root");
    install(&root);
    fs::create_dir_all(root.join("etc")).unwrap();
    let hosts = format!("{} server.lab\n", site.lab.server.v4);
    fs::write(root.join("etc/hosts"), hosts).unwrap();
    let oneknock = |args: &[&str], input: &str| -> Done {
        let chroot = ["env", "HOME=/", "chroot", root.to_str().unwrap()];
        let words = [&chroot[..], &["/bin/oneknock"], args].concat();
        site.lab.laptop.run_with(&words, input)
    };
    oneknock(&["import"], &key.line).ok();
    oneknock(&["open", "home"], "").ok();
    assert!(site.admits("ssh", site.lab.laptop.v4.into()));
}
