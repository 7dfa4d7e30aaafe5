//! What drives ssh, and ssh as people set it up: it knocks all the same, and says why where it
//! does not get in.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::{Site, binaries};
use std::fs;

fn site() -> Site {
    let site = Site::new(binaries!());
    site.laptop_key();
    site
}

/// The printed block before the lab's own configuration; its path.
fn configuration(site: &Site) -> String {
    let printed = site.oneknock(&["ssh-config", "home"]).ok();
    let rest = fs::read_to_string(&site.sshd.config).unwrap();
    let config = site.lab.laptop.home.join("ssh_config");
    fs::write(&config, format!("{printed}\n{rest}")).unwrap();
    config.to_str().unwrap().into()
}

#[test]
fn s5_oneknock_ssh_stands_in_for_ssh_before_git() {
    let site = site();
    let _daemon = site.daemon();
    let (laptop, server) = (&site.lab.laptop, &site.lab.server);
    let at_server = server.home.join("repo.git");
    let git = |args: &[&str]| {
        let mut all = vec!["git", "-c", "user.name=n", "-c", "user.email=n@example.org"];
        all.extend(args);
        laptop.run(&all)
    };
    let repo = at_server.to_str().unwrap();
    server.run(&["git", "init", "-q", "--bare", repo]).ok();
    git(&["init", "-q", "work"]).ok();
    let commit = ["-C", "work", "commit", "-q", "--allow-empty", "-m", "one"];
    git(&commit).ok();
    let ssh = format!("core.sshCommand=oneknock ssh -F {}", site.sshd.config());
    let url = format!("home:{repo}");
    // By the host's own name too, as remotes have it.
    let by_host = format!("ssh://root@server.lab{repo}");
    let push = ["-C", "work", "-c", &ssh, "push", "-q", &url, "HEAD:main"];
    git(&push).ok();
    git(&["-c", &ssh, "clone", "-q", "-b", "main", &by_host, "copy"]).ok();
    let log = git(&["-C", "copy", "log", "--format=%s"]).ok();
    assert_eq!(log, "one\n");
}

#[test]
fn s5_options_before_the_name_are_ssh_s() {
    let site = site();
    let _daemon = site.daemon();
    let config = site.sshd.config();
    let args = [
        "ssh", "-n", "-F", config, "-l", "root", "home", "echo", "in",
    ];
    assert_eq!(site.oneknock(&args).ok(), "in\n");
    // The family goes to the knock as well.
    for (family, address) in ["-4", "-6"].iter().zip(site.lab.laptop.addresses()) {
        let args = ["ssh", family, "-F", config, "home", "echo $SSH_CONNECTION"];
        let said = site.oneknock(&args).ok();
        assert!(said.starts_with(&format!("{address} ")), "{said}");
    }
}

#[test]
fn s1_with_control_persist_the_reason_reaches_the_terminal_and_doctor() {
    let site = site();
    let mut daemon = site.daemon();
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    let config = configuration(&site);
    let master = [
        "-o",
        "ControlMaster=auto",
        "-o",
        "ControlPath=control",
        "-o",
        "ControlPersist=60",
    ];
    let ssh = [&["ssh", "-F", &config][..], &master, &["home", "true"]].concat();
    let said = site.lab.laptop.run(&ssh);
    assert_eq!(said.code, Some(255), "{said}");
    // This is how it is hidden.
    assert!(!said.err.contains("still unreachable"), "{said}");
    let doctor = site.oneknock(&["doctor", "home"]).out;
    assert!(
        doctor.contains("home: tcp/22 still unreachable"),
        "{doctor}"
    );
    let line = ["script", "-qec", &ssh.join(" "), "/dev/null"];
    let shown = site.lab.laptop.run(&line).out;
    assert!(
        shown.contains("error: home: tcp/22 still unreachable"),
        "{shown}"
    );
    assert!(shown.contains("hint: "), "{shown}");
    // What works again is no error any more.
    let _daemon = site.daemon();
    site.lab.laptop.run(&ssh).ok();
    let doctor = site.oneknock(&["doctor", "home"]).out;
    assert!(!doctor.contains("still unreachable"), "{doctor}");
}

#[test]
fn s2_the_printed_block_works_without_the_shells_path() {
    let site = site();
    let _daemon = site.daemon();
    let config = configuration(&site);
    let text = fs::read_to_string(&config).unwrap();
    // By the link that was called, and not by what it leads to.
    let program = site.lab.dir().join("bin/oneknock");
    let line = format!("ProxyCommand {} proxy home", program.display());
    assert!(text.contains(&line), "{text}");
    let ssh = [
        "env",
        "PATH=/usr/bin:/bin",
        "ssh",
        "-F",
        &config,
        "home",
        "echo in",
    ];
    assert_eq!(site.lab.laptop.run(&ssh).ok(), "in\n");
}
