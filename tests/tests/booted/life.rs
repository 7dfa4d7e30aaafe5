//! The daemon's life under systemd: from enabling it to stopping it.

use crate::home::{CONFIG, DAEMON, GUARD, Home};
use oneknock_tests::ssh::UNGUARDED;
use oneknock_tests::wire::{self, Probe};
use oneknock_tests::{Lab, binaries, wait};
use std::fs;

#[test]
fn installed_enabled_knocked_at_reloaded_and_stopped() {
    let lab = Lab::new(binaries!());
    let home = Home::new(&lab);
    let machine = &home.machine;
    home.enable();
    assert_eq!(machine.property(DAEMON, "ActiveState"), "active");
    assert_eq!(machine.property(GUARD, "ActiveState"), "active");
    home.is_shut();
    home.gets_in();
    home.has_the_grant();

    // One user, one capability, and no way to more.
    let pid = machine.main_pid(DAEMON);
    let status = fs::read_to_string(machine.file(&format!("/proc/{pid}/status"))).unwrap();
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} in {status}")).trim()
    };
    let id = machine.run(&["id", "-u", "oneknock"]).ok();
    assert_eq!(line("Uid:"), [id.trim(); 4].join("\t"));
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(line(set), "0000000000001000", "{set}");
    }
    assert_eq!(line("NoNewPrivs:"), "1");
    assert_eq!(line("Seccomp:"), "2");
    let may = ["(", "-user", "oneknock", "-o", "-perm", "/022", ")"];
    let find = [&["find", "/etc/oneknock"][..], &may].concat();
    assert_eq!(machine.run(&find).ok(), "");

    let right = fs::read_to_string(machine.file(CONFIG)).unwrap();
    machine.write(CONFIG, format!("{right}\nmistake = 1\n"), 0o640);
    assert_ne!(machine.run(&["systemctl", "reload", DAEMON]).code, Some(0));
    machine.until_logged(DAEMON, "mistake", 1);
    // It is seen to run by whoever does not find its socket.
    let [socket, aside] = ["control", "aside"].map(|name| format!("/run/oneknock/{name}"));
    machine.run(&["mv", &socket, &aside]).ok();
    let done = machine.run(&["oneknockctl", "revoke", "--all"]);
    assert!(
        done.err.contains("oneknockd runs, and does not answer"),
        "{done}"
    );
    machine.run(&["mv", &aside, &socket]).ok();
    let more = format!(
        "{right}\n[[service]]\nname = \"more\"\nports = [\"tcp/{UNGUARDED}\"]\ndefault_duration = \"30s\"\nmax_duration = \"8h\"\n"
    );
    let v4 = lab.server.v4.into();
    for (text, probe) in [(&more, Probe::Silent), (&right, Probe::Open)] {
        machine.write(CONFIG, text, 0o640);
        home.systemctl(&["reload", DAEMON]);
        assert_eq!(wire::probe(&lab.stranger, v4, UNGUARDED), probe);
    }
    assert_eq!(machine.main_pid(DAEMON), pid);

    home.systemctl(&["stop", DAEMON]);
    machine.until_logged(DAEMON, "stopped", 1);
    assert_eq!(machine.property(DAEMON, "Result"), "success");
    home.is_shut();
    // The grant is the kernel's.
    assert_eq!(wire::probe(&lab.laptop, v4, 22), Probe::Open);
    home.systemctl(&["start", DAEMON]);
    home.has_the_grant();
}

#[test]
fn after_a_kill_it_is_back_with_its_grants() {
    let lab = Lab::new(binaries!());
    let home = Home::new(&lab);
    home.enable();
    home.gets_in();
    let machine = &home.machine;
    let pid = machine.main_pid(DAEMON);
    machine.run(&["kill", "-KILL", &pid.to_string()]).ok();
    home.is_shut();
    home.until_another_than(pid);
    home.has_the_grant();
    lab.laptop.run(&["oneknock", "close", "home"]).ok();
    home.is_shut();
    home.gets_in();
}

#[test]
fn a_stuck_daemon_is_ended_and_started_again() {
    let lab = Lab::new(binaries!());
    let home = Home::new(&lab);
    let machine = &home.machine;
    let drop_in = "/etc/systemd/system/oneknockd.service.d/test.conf";
    machine.write(drop_in, "[Service]\nWatchdogSec=3s\n", 0o644);
    home.systemctl(&["daemon-reload"]);
    home.enable();
    let pid = machine.main_pid(DAEMON);
    // As long as it turns it is left alone, for longer than the watchdog's patience.
    let heard = || {
        let at = machine.property(DAEMON, "WatchdogTimestampMonotonic");
        at.parse::<u64>().unwrap()
    };
    let first = heard();
    wait::until_true("turns for longer than that", || heard() > first + 4_000_000);
    assert_eq!(machine.main_pid(DAEMON), pid);
    machine.run(&["kill", "-STOP", &pid.to_string()]).ok();
    machine.until_logged(DAEMON, "Watchdog timeout", 1);
    home.until_another_than(pid);
    home.is_shut();
    home.gets_in();
}

#[test]
fn all_that_needs_the_kernels_leave_is_done_from_the_sandbox() {
    let lab = Lab::new(binaries!());
    let home = Home::new(&lab);
    let machine = &home.machine;
    home.enable();
    // Twice of what was asked for, as the kernel counts it, and beyond its usual limit.
    let sockets = machine
        .run(&["ss", "--listening", "--udp", "--memory"])
        .ok();
    assert_eq!(sockets.matches("rb8388608").count(), 2, "{sockets}");
    // To find connections, and to end them.
    let mut session = home.session();
    let cut = ["oneknockctl", "revoke", "laptop", "--disconnect"];
    machine.run(&cut).ok();
    machine.until_logged(DAEMON, "asked-to-revoke of=\"key laptop\"", 1);
    assert!(!machine.log(DAEMON).contains("connections=0"));
    session.end();
    home.is_shut();
    let log = machine.log(DAEMON);
    for trouble in ["denied", "not permitted", "cannot"] {
        assert!(!log.contains(trouble), "{log}");
    }
}

#[test]
fn what_root_ends_while_the_daemon_is_stopped_leaves_it_its_state() {
    let lab = Lab::new(binaries!());
    let home = Home::new(&lab);
    let machine = &home.machine;
    home.enable();
    let mut session = home.session();
    home.systemctl(&["stop", "oneknockd"]);
    // From its sandbox the daemon saw the boot that root sees.
    let boot = machine
        .run(&["cat", "/proc/sys/kernel/random/boot_id"])
        .ok();
    let digits: String = boot.trim().split('-').collect();
    let boot = u128::from_str_radix(&digits, 16).unwrap().to_be_bytes();
    let mark = fs::read(machine.file("/var/lib/oneknock/mark")).unwrap();
    assert!(mark.windows(boot.len()).any(|bytes| bytes == boot));
    let cut = ["oneknockctl", "revoke", "laptop", "--disconnect"];
    let said = machine.run(&cut);
    for part in ["revoked grants: 0", "ended connections: 0"] {
        assert!(!said.err.contains(part), "{said}");
    }
    said.ok();
    session.end();
    home.has_no_state_but_its_own();
    home.systemctl(&["start", "oneknockd"]);
    home.is_shut();
    let grants = machine.run(&["oneknockctl", "grants"]).ok();
    assert!(!grants.contains("laptop"), "{grants}");
    home.gets_in();
    let rotate = ["oneknockctl", "key", "rotate", "laptop", "--now"];
    home.systemctl(&["stop", "oneknockd"]);
    machine.run(&rotate).ok();
    home.has_no_state_but_its_own();
    home.systemctl(&["start", "oneknockd"]);
    home.is_shut();
    let log = machine.log(DAEMON);
    for trouble in ["denied", "not permitted", "cannot", "damaged"] {
        assert!(!log.contains(trouble), "{log}");
    }
}
