//! `oneknockctl enable` and `disable` where systemd runs the machine.

use crate::home::{DAEMON, GUARD, Home};
use oneknock_tests::wire::{self, Probe};
use oneknock_tests::{Lab, binaries, wait};

fn is_enabled(home: &Home<'_>, unit: &str) -> bool {
    let done = home.machine.run(&["systemctl", "is-enabled", unit]);
    done.out.trim() == "enabled"
}

fn is_open(home: &Home<'_>) {
    for to in home.lab.server.addresses() {
        assert_eq!(wire::probe(&home.lab.stranger, to, 22), Probe::Open);
    }
}

fn is_disabled(home: &Home<'_>) {
    is_open(home);
    assert!(!is_enabled(home, DAEMON) && !is_enabled(home, GUARD));
    assert_eq!(home.machine.property(DAEMON, "ActiveState"), "inactive");
}

#[test]
fn enabled_on_trial_it_is_off_after_the_next_start_and_enabled_it_is_on() {
    let lab = Lab::new(binaries!());
    let mut home = Home::new(&lab);
    let enable = ["oneknockctl", "enable"];
    let on_trial = [&enable[..], &["--confirm", "1h"]].concat();
    home.machine.run(&on_trial).ok();
    assert_eq!(home.machine.property(DAEMON, "ActiveState"), "active");
    home.is_shut();
    home.gets_in();
    assert!(!is_enabled(&home, DAEMON));
    // Also where the units were enabled before.
    home.systemctl(&["enable", DAEMON]);
    home.machine.switch_off();
    home.machine.boot();
    is_open(&home);
    home.machine.until_logged(DAEMON, "not-enforcing", 1);
    home.machine.until_logged(GUARD, "not enforcing", 1);
    assert_eq!(home.machine.property(GUARD, "ExecMainStatus"), "7");

    home.machine.run(&enable).ok();
    home.is_shut();
    assert!(is_enabled(&home, DAEMON) && is_enabled(&home, GUARD));
    home.machine.switch_off();
    home.machine.boot();
    home.is_shut();
    home.machine.until_started();
    home.gets_in();

    home.machine.run(&["oneknockctl", "disable"]).ok();
    is_disabled(&home);
    home.machine.switch_off();
    home.machine.boot();
    is_open(&home);
}

#[test]
fn where_enable_fails_a_machine_that_was_guarded_is_guarded_after_its_next_start() {
    let lab = Lab::new(binaries!());
    let mut home = Home::new(&lab);
    home.machine.run(&["oneknockctl", "enable"]).ok();
    home.is_shut();
    home.systemctl(&["stop", DAEMON]);
    // The guard is up, and what lets people in is not.
    home.machine.run(&["oneknockctl", "enable"]).ok();
    home.gets_in();
    home.systemctl(&["stop", DAEMON]);
    home.machine
        .run(&["oneknockctl", "disable", "--until-reboot"])
        .ok();
    is_open(&home);
    // The unit can be started again.
    assert_eq!(home.machine.property(GUARD, "ActiveState"), "inactive");
    home.systemctl(&["start", GUARD]);
    home.is_shut();
    home.machine
        .run(&["oneknockctl", "disable", "--until-reboot"])
        .ok();
    is_open(&home);
    let in_vain = "table inet other { chain input { type filter hook input priority 0; udp dport 45123 drop; }; }";
    lab.server.nft(in_vain);
    let said = home.machine.run(&["oneknockctl", "enable"]).fails(1);
    assert!(said.contains("no grant appeared"), "{said}");
    // As it was before the call.
    is_open(&home);
    home.machine.switch_off();
    home.machine.boot();
    home.is_shut();
    home.gets_in();
}

#[test]
fn where_enable_is_killed_a_machine_that_was_guarded_is_guarded_after_its_next_start() {
    let lab = Lab::new(binaries!());
    let mut home = Home::new(&lab);
    home.machine.run(&["oneknockctl", "enable"]).ok();
    home.machine
        .run(&["oneknockctl", "disable", "--until-reboot"])
        .ok();
    // In vain, so that it is surely at it.
    let in_vain = "table inet other { chain input { type filter hook input priority 0; udp dport 45123 drop; }; }";
    lab.server.nft(in_vain);
    // Twice: the second finds what the first has left.
    for _ in 0..2 {
        let enable = "echo $$ > /root/pid; exec oneknockctl enable";
        let _killed = home.machine.start(&["sh", "-c", enable]);
        let key = home
            .machine
            .file("/etc/oneknock/keys/oneknockctl-enable.toml");
        wait::until_true("its key", || key.exists());
        let kill = "kill -KILL $(cat /root/pid)";
        home.machine.run(&["sh", "-c", kill]).ok();
        std::fs::remove_file(key).unwrap();
        // It is enabled as it was.
        home.systemctl(&["restart", DAEMON]);
        home.is_shut();
        home.machine
            .run(&["oneknockctl", "disable", "--until-reboot"])
            .ok();
    }
    home.machine.switch_off();
    home.machine.boot();
    home.is_shut();
    home.gets_in();
}

#[test]
fn a_guard_whose_daemon_hangs_is_disabled_all_the_same() {
    let lab = Lab::new(binaries!());
    let home = Home::new(&lab);
    home.machine.run(&["oneknockctl", "enable"]).ok();
    home.is_shut();
    home.systemctl(&["kill", "--signal=STOP", DAEMON]);
    home.machine.run(&["oneknockctl", "disable"]).ok();
    is_disabled(&home);
}
