//! The daemon's own life: what it needs, what it says when it lacks that, its end; and
//! the administration beside it.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oneknock_tests::sequence;
use oneknock_tests::wire::{self, Probe, until_open, until_silent};
use oneknock_tests::{Running, Site, binaries, wait};
use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

fn has_table(site: &Site) -> bool {
    let tables = site.lab.server.run(&["nft", "list", "tables"]).ok();
    tables.contains("inet oneknock")
}

/// Starts the daemon in a way in which it cannot work; gives what it said.
fn fails_to_start(site: &Site, before: &[&str]) -> String {
    let command = [before, &site.daemon_command()].concat();
    let command = site.lab.server.command(&command);
    let mut daemon = Running::start("oneknockd", command);
    let status = daemon.end();
    let said = daemon.lines().join("\n");
    assert!(!status.success(), "{said}");
    assert_eq!(daemon.count("ready"), 0, "{said}");
    said
}

#[test]
fn without_the_capability_it_says_so_and_is_not_ready() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    // Still uid 0: it is the capability that counts.
    let without = [
        "setpriv",
        "--bounding-set",
        "-net_admin",
        "--inh-caps",
        "-net_admin",
    ];
    let said = fails_to_start(&site, &without);
    assert!(said.contains("CAP_NET_ADMIN"), "{said}");
    assert!(!has_table(&site));
}

/// Whether the daemon starts, and a knock opens, with this program in nft's place.
fn works_with_nft(script: Option<&str>) {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let bin = site.lab.dir().join("fake");
    fs::create_dir(&bin).unwrap();
    if let Some(script) = script {
        let nft = bin.join("nft");
        fs::write(&nft, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&nft, fs::Permissions::from_mode(0o755)).unwrap();
    }
    // No other program is to be found either.
    let path = format!("PATH={}:{}/bin", bin.display(), site.lab.dir().display());
    let command = [&["env", &path][..], &site.daemon_command()].concat();
    let mut daemon = Running::start("oneknockd", site.lab.server.command(&command));
    daemon.expect("ready");
    let server = site.lab.server.v4.into();
    assert_eq!(site.probe(&site.lab.stranger, server), Probe::Silent);
    key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 0));
    daemon.expect("granted address=198.51.100.7");
    assert!(site.admits("ssh", site.lab.laptop.v4.into()));
    daemon.signal(Signal::SIGHUP);
    daemon.expect("reloaded");
}

#[test]
fn without_nft_it_starts_opens_and_reloads() {
    works_with_nft(None);
}

#[test]
fn nft_that_crashes_holds_up_neither_start_nor_knock() {
    works_with_nft(Some("kill -SEGV $$"));
}

#[test]
fn nft_that_hangs_holds_up_neither_start_nor_knock() {
    works_with_nft(Some("exec sleep 3600"));
}

#[test]
fn a_taken_port_is_named_with_its_address() {
    for (taken, named) in [
        ("0.0.0.0:45123", "0.0.0.0:45123"),
        ("[2001:db8:0:1::10]:45123", "[::]:45123"),
    ] {
        let site = Site::new(binaries!());
        let _socket = site.lab.server.enter(|| UdpSocket::bind(taken).unwrap());
        let said = fails_to_start(&site, &[]);
        assert!(said.contains(named), "{said}");
    }
}

#[test]
fn a_second_daemon_does_not_disturb_the_first() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let server = site.lab.server.v4.into();
    key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 0));
    daemon.expect("granted address=198.51.100.7");
    fails_to_start(&site, &[]);
    assert!(site.admits("ssh", site.lab.laptop.v4.into()));
    key.knock(
        &site.lab.laptop,
        site.lab.server.v6.into(),
        &wire::open(Some("ssh"), 0),
    );
    daemon.expect("granted address=2001:db8:0:2::7");
    assert_eq!(site.probe(&site.lab.stranger, server), Probe::Silent);
}

#[test]
fn ready_tells_what_it_listens_on_and_guards() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon_unready();
    let line = daemon.expect("ready");
    let wanted = "oneknockd: ready listen=0.0.0.0:45123,[::]:45123 services=ssh keys=1 guard=exclusive enforcing=true";
    assert_eq!(line, wanted);
}

#[test]
fn sigterm_leaves_the_guard_up_and_teardown_takes_it_down() {
    let site = Site::new(binaries!());
    let mut daemon = site.daemon();
    daemon.signal(Signal::SIGTERM);
    daemon.expect("oneknockd: stopped");
    assert_eq!(daemon.end().code(), Some(0));
    let server: IpAddr = site.lab.server.v4.into();
    assert_eq!(site.probe(&site.lab.laptop, server), Probe::Silent);
    site.ctl(&["disable", "--until-reboot"]).ok();
    assert!(!has_table(&site));
    until_open(&site.lab.laptop, server, 22);
}

#[test]
fn rules_prints_what_the_daemon_loads() {
    let site = Site::with_services(binaries!(), &["ssh=tcp/22", "mosh=udp/60000-61000"]);
    sequence::configure(&site, &sequence::STEPS, "");
    let _daemon = site.daemon();
    let rules = site.ctl(&["debug", "rules"]).ok();
    let stranger = &site.lab.stranger;
    stranger.nft(&rules);
    let list = ["nft", "-s", "list", "table", "inet", "oneknock"];
    let printed = stranger.run(&list).ok();
    // In the first minute the daemon's own has the rules of the grace as well.
    let loaded = site.lab.server.run(&list).ok();
    for part in [
        "@th,64,64 @selectors udp length ",
        "dport 7000 goto sequence-step-1",
        "elements = { 192.0.2.1 }",
    ] {
        assert!(printed.contains(part), "{printed}");
    }
    for line in printed.lines().filter(|l| !l.trim().is_empty()) {
        assert!(loaded.contains(line), "{line}\n--- loaded:\n{loaded}");
    }
}

#[test]
fn secrets_never_reach_a_log_or_a_command_line() {
    let site = Site::new(binaries!());
    let key = site.laptop_key();
    let mut daemon = site.daemon();
    site.oneknock(&["open", "home"]).ok();
    daemon.expect("granted address=");
    let secret = key.invitation.secret.to_base64();
    let client = [
        &["list"][..],
        &["show", "home"],
        &["ssh-config", "home"],
        &["open", "home"],
    ];
    let client = client.map(|args| site.oneknock(args).to_string());
    let server = [
        &["key", "list"][..],
        &["key", "show", "laptop"],
        &["key", "show", "laptop", "--json"],
        &["check"],
        &["debug", "rules"],
    ];
    let server = server.map(|args| site.ctl(args).to_string());
    let all = [daemon.lines().join("\n"), client.concat(), server.concat()].concat();
    assert!(!all.contains(secret.trim_end_matches('=')), "{all}");
}

#[test]
fn a_log_that_nobody_reads_holds_nothing_up() {
    let site = Site::new(binaries!());
    let key = site.laptop_key();
    let mut command = site.lab.server.command(&site.daemon_command());
    let mut daemon = command.stderr(Stdio::piped()).spawn().unwrap();
    let unread = daemon.stderr.take().unwrap();
    let server: IpAddr = site.lab.server.v4.into();
    until_silent(&site.lab.stranger, server, 22);
    // Far more than a pipe holds: each reload says every mistake.
    let good = fs::read_to_string(site.config()).unwrap();
    let nonsense: Vec<String> = (0..2000).map(|n| format!("nonsense{n} = 1")).collect();
    let nonsense = nonsense.join(
        "
",
    );
    fs::write(site.config(), format!("{nonsense}\n{good}")).unwrap();
    let pid = Pid::from_raw(daemon.id().try_into().unwrap());
    kill(pid, Signal::SIGHUP).unwrap();
    wait::until_true("the laptop is a guest", || {
        key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 0));
        site.admits("ssh", site.lab.laptop.v4.into())
    });
    kill(pid, Signal::SIGTERM).unwrap();
    wait::until_true("the daemon has ended", || {
        daemon.try_wait().unwrap().is_some()
    });
    assert!(daemon.wait().unwrap().success());
    drop(unread);
}

#[test]
fn a_daemon_of_another_configuration_does_not_take_the_guards_place() {
    let site = Site::new(binaries!());
    let _daemon = site.daemon();
    let other = site.lab.server.home.join("other");
    let other = other.to_str().unwrap();
    let host = [
        "--host",
        "other.lab",
        "--port",
        "45999",
        "--service",
        "web=tcp/80",
    ];
    let init = [&["oneknockctl", "--config", other, "init"][..], &host].concat();
    site.lab.server.run(&init).ok();
    let said = site
        .lab
        .server
        .run(&["oneknockd", "--config", other])
        .fails(1);
    assert!(said.contains("another configuration"), "{said}");
    for to in site.lab.server.addresses() {
        assert_eq!(wire::probe(&site.lab.stranger, to, 22), Probe::Silent);
    }
}
