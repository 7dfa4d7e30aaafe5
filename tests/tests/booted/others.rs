//! What others on the same machine do: nftables.service, the clock's service, a group.

use crate::home::{CONFIG, DAEMON, GUARD, Home};
use crate::packages;
use oneknock_tests::{Lab, binaries, wait};
use std::fs;

#[test]
fn nftables_service_begins_anew_and_the_guard_is_there() {
    let lab = Lab::new(binaries!());
    let home = Home::new(&lab);
    home.systemctl(&["enable", "--now", "nftables"]);
    home.enable();
    home.gets_in();
    let flushes = [["reload", "nftables"], ["restart", "nftables"]];
    for flush in flushes {
        home.systemctl(&flush);
        home.is_shut();
        home.has_the_grant();
        home.gets_in();
    }
    // The daemon is dead: nobody owns the guard, and these take it down for a moment.
    home.systemctl(&["kill", "--signal=KILL", DAEMON]);
    home.systemctl(&["stop", DAEMON]);
    for flush in flushes {
        home.systemctl(&flush);
        home.until_shut();
    }
    home.systemctl(&["stop", "nftables"]);
    home.systemctl(&["start", "nftables"]);
    home.until_shut();
    home.systemctl(&["start", DAEMON]);
    home.gets_in();
}

impl Home<'_> {
    /// Does this to a service that may flush every ruleset; whether it fails or not, the guard's
    /// table stands afterwards, and its unit is active.
    pub fn guard_outlives(&self, change: &str, service: &str) {
        // systemd refuses many starts in a short time.
        let _ = self.machine.run(&["systemctl", "reset-failed", service]);
        let _ = self.machine.run(&["systemctl", change, service]);
        let list = ["nft", "list", "table", "inet", "oneknock"];
        let what = format!("the guard after {change} of {service}");
        wait::until_true(&what, || self.machine.run(&list).code == Some(0));
        self.machine.until(GUARD, "ActiveState", "active");
    }
}

#[test]
fn whatever_becomes_of_nftables_service_the_guards_unit_is_active_and_its_table_stands() {
    let lab = Lab::new(binaries!());
    let home = Home::new(&lab);
    home.systemctl(&["enable", "--now", "nftables"]);
    home.enable();
    let file = "/etc/nftables.conf";
    let good = fs::read(home.machine.file(file)).unwrap();
    for daemon in [None, Some("stop"), Some("mask")] {
        if let Some(daemon) = daemon {
            home.systemctl(&[daemon, DAEMON]);
        }
        for change in ["restart", "reload", "stop", "start"] {
            home.guard_outlives(change, "nftables");
        }
        home.machine.write(file, "this is no rule\n", 0o755);
        for change in ["reload", "restart", "start"] {
            home.guard_outlives(change, "nftables");
        }
        assert_eq!(home.machine.property("nftables", "ActiveState"), "failed");
        home.machine.write(file, &good, 0o755);
        home.guard_outlives("start", "nftables");
        home.is_shut();
    }
}

#[test]
fn netfilter_persistent_loads_its_rules_and_the_guard_is_there_from_the_start() {
    let lab = Lab::new(binaries!());
    let mut home = Home::bare_with(&lab, &["iptables-persistent"]);
    home.install(&packages::server("1.0-1"));
    home.configure();
    let rules = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp --dport 81 -j DROP\nCOMMIT\n";
    home.machine.write("/etc/iptables/rules.v4", rules, 0o644);
    home.systemctl(&["enable", "--now", "netfilter-persistent"]);
    home.enable();
    home.gets_in();
    // The daemon is dead: nobody owns the guard.
    home.systemctl(&["mask", "--now", DAEMON]);
    for change in ["restart", "stop", "start"] {
        home.guard_outlives(change, "netfilter-persistent");
    }
    let broken = "this is no rule\n";
    home.machine.write("/etc/iptables/rules.v4", broken, 0o644);
    home.guard_outlives("restart", "netfilter-persistent");
    home.machine.write("/etc/iptables/rules.v4", rules, 0o644);
    home.is_shut();
    home.machine.switch_off();
    home.machine.boot();
    let loaded = home.machine.run(&["iptables-save"]).ok();
    assert!(loaded.contains("--dport 81"), "{loaded}");
    home.is_shut();
}

#[test]
fn a_watched_guard_is_back_after_nftables_service_has_reloaded() {
    let lab = Lab::new(binaries!());
    let home = Home::new(&lab);
    home.systemctl(&["enable", "--now", "nftables"]);
    let text = fs::read_to_string(home.machine.file(CONFIG)).unwrap();
    let watched = text.replace("guard = \"exclusive\"", "guard = \"monitored\"");
    assert_ne!(text, watched);
    home.machine.write(CONFIG, watched, 0o640);
    home.enable();
    home.gets_in();
    home.systemctl(&["reload", "nftables"]);
    let log = "guard-repaired";
    home.machine.until_logged(DAEMON, log, 1);
    home.is_shut();
    home.has_the_grant();
}

#[test]
fn with_its_state_lost_it_asks_whether_the_clock_is_right_also_from_its_sandbox() {
    let lab = Lab::new(binaries!());
    let home = Home::new(&lab);
    let machine = &home.machine;
    home.enable();
    home.systemctl(&["stop", DAEMON]);
    machine.run(&["rm", "-r", "/var/lib/oneknock"]).ok();
    home.systemctl(&["start", DAEMON]);
    machine.until_logged(DAEMON, "awaiting-clock", 1);
    // timedated is started by the question, and only by it.
    machine.until("systemd-timedated", "ActiveState", "active");
    assert!(!machine.log(DAEMON).contains("cannot ask"));
    let status = machine.run(&["oneknockctl", "status"]).ok();
    assert!(status.contains("clock"), "{status}");
    home.is_shut();

    // Whose clock is right says so, as root; the state is the daemon's all the same.
    home.systemctl(&["stop", DAEMON]);
    machine.run(&["rm", "-r", "/var/lib/oneknock"]).ok();
    machine.run(&["oneknockctl", "debug", "reset-state"]).ok();
    home.systemctl(&["start", DAEMON]);
    assert!(!machine.log(DAEMON).contains("Permission denied"));
    home.has_no_state_but_its_own();
}

#[test]
fn a_group_that_is_let_in_may_ask() {
    let lab = Lab::new(binaries!());
    let home = Home::new(&lab);
    let machine = &home.machine;
    home.enable();
    home.systemctl(&["stop", DAEMON]);
    let text = fs::read_to_string(machine.file(CONFIG)).unwrap();
    let text = format!("control_group = \"users\"\n{text}");
    machine.write(CONFIG, text, 0o640);
    assert_ne!(machine.run(&["systemctl", "start", DAEMON]).code, Some(0));
    machine.until_logged(DAEMON, "SupplementaryGroups=GROUP", 1);
    home.is_shut();
    // No restart with the old settings is under way.
    home.systemctl(&["stop", DAEMON]);
    let drop_in = "/etc/systemd/system/oneknockd.service.d/group.conf";
    let lines = "[Service]\nSupplementaryGroups=users\nSystemCallFilter=@chown\n";
    machine.write(drop_in, lines, 0o644);
    home.systemctl(&["daemon-reload"]);
    home.systemctl(&["start", DAEMON]);
    let ask = [
        "setpriv",
        "--reuid=nobody",
        "--regid=users",
        "--clear-groups",
    ];
    let ask = [&ask[..], &["oneknockctl", "status"]].concat();
    assert!(machine.run(&ask).ok().contains("45123"));
}
