//! The units themselves, as systemd's own tools judge them.

use crate::home::{DAEMON, GUARD, Home, dist};
use oneknock_tests::{Lab, binaries};
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
fn systemd_finds_no_mistake_in_a_unit() {
    let lab = Lab::new(binaries!());
    let home = Home::new(&lab);
    for unit in [DAEMON, GUARD] {
        let unit = format!("/usr/lib/systemd/system/{unit}");
        let verify = ["systemd-analyze", "verify", "--man=no", &unit];
        let done = home.machine.run(&verify);
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{done}");
    }
}
