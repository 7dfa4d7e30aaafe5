//! The units themselves, as systemd's own tools judge them.

use crate::home::{DAEMON, GUARD, Home, dist};
use oneknock_tests::{Lab, binaries};
use std::fs;
use std::process::Command;

/// In tenths, as `--threshold` takes it.
const MOST_EXPOSURE: &str = "15";

#[test]
fn each_unit_has_an_exposure_of_one_and_a_half_at_most() {
    for unit in [DAEMON, GUARD] {
        let threshold = format!("--threshold={MOST_EXPOSURE}");
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--no-pager", "--offline=true", &threshold]);
        let done = command.arg(dist(unit)).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "{unit}: {said}");
        // Without a figure it has looked at nothing.
        assert!(said.contains("Overall exposure level"), "{unit}: {said}");
    }
}

#[test]
fn whatever_costs_exposure_has_its_reason_beside_it() {
    for unit in [DAEMON, GUARD] {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--no-pager", "--offline=true", "--json=short"]);
        let done = command.arg(dist(unit)).output().unwrap();
        let found: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        let text = fs::read_to_string(dist(unit)).unwrap();
        let comments = text.lines().filter(|line| line.starts_with("# - "));
        let reasons: Vec<&str> = comments
            .filter_map(|line| line.split_once(": "))
            .map(|r| r.0)
            .collect();
        let reasons = reasons.concat();
        let mut costs = 0;
        for one in found.as_array().unwrap() {
            let is_free = |v: &serde_json::Value| v.as_str().is_none_or(|e| e.parse() == Ok(0.0));
            if is_free(&one["exposure"]) {
                continue;
            }
            costs += 1;
            // Such as "RestrictAddressFamilies=~AF_NETLINK" and "RootDirectory=/RootImage=".
            let name = one["name"].as_str().unwrap();
            let (setting, _) = name.split_once('=').unwrap();
            assert!(reasons.contains(setting), "{unit}: {name} has no reason");
        }
        assert!(costs > 0, "{unit}: {found}");
    }
}

#[test]
fn systemd_finds_no_mistake_in_a_unit() {
    let lab = Lab::new(binaries!());
    let home = Home::new(&lab);
    // The last has a drop-in of ours.
    for unit in [DAEMON, GUARD, "nftables.service"] {
        let unit = format!("/usr/lib/systemd/system/{unit}");
        let verify = ["systemd-analyze", "verify", "--man=no", &unit];
        let done = home.machine.run(&verify);
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{done}");
    }
}
