//! `oneknockctl doctor` on a whole machine: its start, and the firewalls that people have.

use crate::home::{CONFIG, DAEMON, GUARD, Home};
use crate::packages;
use oneknock_tests::{Done, Lab, binaries, wait};
use std::fs;

impl Home<'_> {
    /// The clock is right, as far as anybody can tell.
    fn set_clock_right(&self) {
        let program = "/usr/local/sbin/timedatectl";
        self.machine.write(program, "#!/bin/sh\necho yes\n", 0o755);
    }

    fn doctor(&self) -> Done {
        self.machine.run(&["oneknockctl", "doctor"])
    }

    /// Does what the doctor says, literally, until nothing is left; gives what was found
    /// first.
    fn mend(&self) -> Vec<String> {
        let said = self.doctor();
        assert_eq!(said.code, Some(1), "{said}");
        let found = said.out.lines().filter(|line| line.starts_with("error: "));
        let found = found.map(str::to_owned).collect();
        let lines: Vec<&str> = said.out.lines().collect();
        for (before, line) in lines.iter().zip(&lines[1..]) {
            if !before.starts_with("error: ") {
                continue;
            }
            if let Some(command) = line.strip_prefix("hint: ") {
                self.machine.run(&["sh", "-c", command]).ok();
            }
        }
        let said = self.doctor();
        assert_eq!(said.code, Some(0), "{said}");
        assert!(said.out.contains("errors: 0, "), "{said}");
        found
    }
}

#[test]
fn a_machine_whose_start_locks_out_or_leaves_open_is_found_and_mended() {
    let lab = Lab::new(binaries!());
    let home = Home::new(&lab);
    home.set_clock_right();
    home.enable();
    home.systemctl(&["disable", DAEMON, GUARD]);
    let found = home.mend_once("error: nothing installs the guard at boot");
    assert_eq!(found, "systemctl enable oneknock-guard");
    let found = home.mend_once("error: after the next boot the guard enforces and no");
    assert_eq!(found, "systemctl enable oneknockd");
    let said = home.doctor();
    assert_eq!(
        (said.code, said.out.as_str()),
        (Some(0), "errors: 0, warnings: 0\n"),
        "{said}"
    );
    home.systemctl(&["disable", DAEMON, GUARD]);
    home.systemctl(&["enable", "nftables"]);
    let found = home.mend_once("and nftables.service removes it");
    assert_eq!(found, "systemctl enable oneknock-guard");
    // Owned it needs no such care while the daemon runs.
    let watched = "warning: reloading nftables.service removes all rules";
    let said = home.doctor();
    assert!(!said.out.contains(watched), "{said}");
    let text = fs::read_to_string(home.machine.file(CONFIG)).unwrap();
    let text = text.replace("guard = \"exclusive\"", "guard = \"monitored\"");
    home.machine.write(CONFIG, text, 0o640);
    let said = home.doctor();
    assert!(said.out.contains(watched), "{said}");
    // The copy that a whole ruleset brings along.
    let save = "nft list ruleset >/etc/nftables.conf";
    home.machine.run(&["sh", "-c", save]).ok();
    let said = home.doctor();
    let copy = "error: /etc/nftables.conf holds a saved copy of the guard";
    assert!(said.out.contains(copy), "{said}");
}

impl Home<'_> {
    /// Looks for one finding, and does what is said about it. Gives the command.
    fn mend_once(&self, what: &str) -> String {
        let said = self.doctor();
        let (_, rest) = said
            .out
            .split_once(what)
            .unwrap_or_else(|| panic!("{said}"));
        let (_, rest) = rest.split_once("\nhint: ").unwrap();
        let command = rest.lines().next().unwrap().to_owned();
        self.machine.run(&["sh", "-c", &command]).ok();
        command
    }
}

#[test]
fn ufw_that_stops_knocks_and_ssh_is_found_and_what_mends_it_is_said() {
    let lab = Lab::new(binaries!());
    let mut home = Home::bare_with(&lab, &["ufw"]);
    home.install(&packages::server("1.0-1"));
    home.configure();
    home.set_clock_right();
    home.enable();
    home.machine.run(&["ufw", "--force", "enable"]).ok();
    let found = home.mend();
    for (what, family) in [
        ("udp/45123", "IPv4"),
        ("tcp/22", "IPv4"),
        ("udp/45123", "IPv6"),
    ] {
        let wanted = format!("(ufw) blocks {what} over {family}");
        assert!(found.iter().any(|f| f.ends_with(&wanted)), "{found:?}");
    }
    home.is_shut();
    home.gets_in();
    home.machine.switch_off();
    home.machine.boot();
    home.is_shut();
    home.gets_in();
    // It touches no table but those of iptables.
    home.systemctl(&["mask", "--now", DAEMON]);
    for change in ["restart", "stop", "start"] {
        home.guard_outlives(change, "ufw");
    }
    home.machine
        .write("/etc/ufw/before.rules", "this is no rule\n", 0o640);
    home.guard_outlives("restart", "ufw");
    home.is_shut();
}

#[test]
fn firewalld_that_stops_knocks_is_found_and_what_mends_it_is_said() {
    let lab = Lab::new(binaries!());
    let home = Home::bare_with(&lab, &["firewalld"]);
    home.install(&packages::server("1.0-1"));
    home.configure();
    home.set_clock_right();
    home.enable();
    home.systemctl(&["enable", "--now", "firewalld"]);
    wait::until_true("firewalld's rules", || {
        home.machine.run(&["firewall-cmd", "--state"]).code == Some(0)
    });
    let found = home.mend();
    let wanted = "table inet firewalld (firewalld) blocks udp/45123 over IPv4";
    assert!(found.iter().any(|f| f.ends_with(wanted)), "{found:?}");
    home.is_shut();
    home.gets_in();
}
