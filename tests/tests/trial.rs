//! `oneknockctl enable`, `confirm` and `disable`: the guard goes up on trial, and stays up
//! only on the word of a session that a knock has let in since.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::control::socket;
use oneknock_tests::host::Done;
use oneknock_tests::wire::{self, Probe};
use oneknock_tests::{Running, Site, binaries, wait};
use std::time::Duration;

/// A site whose daemon runs, and has nothing shut yet.
fn on_trial(site: &Site) -> Running {
    site.laptop_key();
    let daemon = waiting(site);
    assert_eq!(stranger(site), Probe::Open);
    daemon
}

/// A daemon that is to shut nothing before it is told to.
fn waiting(site: &Site) -> Running {
    let mut daemon = site.daemon_unready();
    daemon.expect("not-enforcing");
    daemon.expect("ready");
    daemon
}

fn stranger(site: &Site) -> Probe {
    let [v4, v6] = site.lab.server.addresses();
    let seen = site.probe(&site.lab.stranger, v4);
    assert_eq!(site.probe(&site.lab.stranger, v6), seen);
    seen
}

fn enable(site: &Site, time: &str) {
    let said = site.ctl(&["enable", "--confirm", time]);
    assert_eq!(said.code, Some(0), "{said}");
    assert!(said.err.contains("self-test passed"), "{said}");
    assert!(said.err.contains("enforcing on trial for"), "{said}");
    assert_eq!(stranger(site), Probe::Silent);
}

fn until_open(site: &Site) {
    for to in site.lab.server.addresses() {
        wire::until_open(&site.lab.stranger, to, 22);
    }
}

fn confirm(site: &Site) -> String {
    let (ctl, dir) = (binaries!().oneknockctl, site.dir.display());
    format!("{ctl} --config {dir} confirm")
}

/// `confirm`, called within a session that a knock has let in.
fn confirm_in_a_session(site: &Site) -> Done {
    site.oneknock_ssh(&confirm(site))
}

#[test]
fn a_trial_that_nobody_confirms_ends_by_itself_also_with_the_daemon_dead() {
    let site = Site::not_enabled(binaries!());
    let mut daemon = on_trial(&site);
    let mut session = site.session(&["ssh", "server.lab"]);
    enable(&site, "10s");
    session.say("older than the trial");
    session.expect("got older than the trial");
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    assert_eq!(stranger(&site), Probe::Silent);
    until_open(&site);
    session.say("still");
    session.expect("got still");
    // One that starts then, as at the machine's next start, shuts nothing.
    let mut daemon = site.daemon_unready();
    daemon.expect("not-enforcing");
    daemon.expect("ready");
    assert_eq!(stranger(&site), Probe::Open);
    let said = confirm_in_a_session(&site);
    assert!(said.err.contains("or it has ended"), "{said}");
    site.ctl(&["status"]).fails(7);
    let said = site.ctl(&["check"]);
    assert!(said.out.contains("not enforcing"), "{said}");
    // And again, as often as it takes.
    enable(&site, "10s");
    daemon.expect("the trial has ended without a confirmation");
    until_open(&site);
}

#[test]
fn a_trial_goes_on_through_a_restart_a_reload_and_a_flush_and_ends_on_time() {
    for guard in ["exclusive", "monitored"] {
        let site = Site::not_enabled(binaries!());
        site.set(&site.config(), "guard", &format!("\"{guard}\""));
        let mut daemon = on_trial(&site);
        enable(&site, "20s");
        daemon.signal(Signal::SIGKILL);
        daemon.end();
        let mut daemon = site.daemon_unready();
        daemon.expect("on-trial seconds=");
        daemon.expect("ready");
        site.ctl(&["reload"]).ok();
        assert_eq!(stranger(&site), Probe::Silent, "{guard}");
        if guard == "monitored" {
            site.lab.server.nft("flush ruleset");
            daemon.expect("guard-repaired");
            assert_eq!(stranger(&site), Probe::Silent, "{guard}");
        }
        until_open(&site);
        daemon.expect("the trial has ended");
    }
}

#[test]
fn a_session_that_a_knock_has_let_in_keeps_the_guard_up() {
    let site = Site::not_enabled(binaries!());
    let mut daemon = on_trial(&site);
    enable(&site, "20s");
    let said = confirm_in_a_session(&site);
    assert_eq!(said.code, Some(0), "{said}");
    assert!(said.err.contains("confirmed by a session from"), "{said}");
    let again = site.ctl(&["confirm"]);
    assert!(again.err.contains("confirmed already"), "{again}");
    again.ok();
    let elements = ["nft", "list", "set", "inet", "oneknock", "trial"];
    assert_ne!(site.lab.server.run(&elements).code, Some(0));
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    assert_eq!(stranger(&site), Probe::Silent);
    let _daemon = site.daemon();
    assert_eq!(stranger(&site), Probe::Silent);
    assert_eq!(site.oneknock_ssh("echo in").ok(), "in\n");
    let said = site.ctl(&["enable", "--confirm", "1m"]).fails(5);
    assert!(said.contains("enforces already"), "{said}");
}

#[test]
fn a_session_through_a_guarded_port_that_is_redirected_confirms() {
    let site = Site::with_services(binaries!(), &["ssh=tcp/2022"]);
    std::fs::remove_file(site.enabled()).unwrap();
    site.laptop_key();
    site.lab.server.nft(
        "table inet nat { chain prerouting { type nat hook prerouting priority dstnat
            tcp dport 2022 redirect to :22
        }
        }",
    );
    let _daemon = waiting(&site);
    site.ctl(&["enable", "--confirm", "5m"]).ok();
    for to in site.lab.server.addresses() {
        assert_eq!(wire::probe(&site.lab.stranger, to, 2022), Probe::Silent);
    }
    // Beside it the same sshd is reached without a knock.
    let ssh = ["ssh", "server.lab", "-F", site.sshd.config()];
    let said = site
        .lab
        .laptop
        .run(&[&ssh[..], &[&confirm(&site)]].concat());
    let said = said.fails(5);
    assert!(said.contains("no session through a guarded port"), "{said}");
    let said = confirm_in_a_session(&site);
    assert_eq!(said.code, Some(0), "{said}");
    assert!(site.enabled().exists());
}

#[test]
fn what_a_daemon_that_cannot_be_asked_keeps_on_trial_is_not_confirmed() {
    for guard in ["exclusive", "monitored"] {
        let site = Site::not_enabled(binaries!());
        site.set(&site.config(), "guard", &format!("\"{guard}\""));
        let mut daemon = on_trial(&site);
        enable(&site, "20s");
        std::fs::remove_file(socket(&site)).unwrap();
        let said = confirm_in_a_session(&site).fails(1);
        assert!(said.contains("still on trial"), "{guard}: {said}");
        assert!(said.contains("restart oneknockd"), "{guard}: {said}");
        assert!(!site.enabled().exists());
        if guard == "exclusive" {
            let said = site.ctl(&["debug", "boot-guard"]).fails(6);
            assert!(said.contains("the guarded ports open again in"), "{said}");
        }
        daemon.expect("the trial has ended");
        until_open(&site);
        if guard == "exclusive" {
            let said = site.ctl(&["debug", "boot-guard"]).fails(7);
            assert!(said.contains("not enforcing"), "{said}");
            // As a call leaves it that was killed over it.
            std::fs::write(site.enabled(), "").unwrap();
            let said = site.ctl(&["debug", "boot-guard"]).fails(1);
            assert!(said.contains("still on trial"), "{said}");
        }
    }
}

#[test]
fn a_confirmation_that_was_killed_is_completed_by_the_next_call() {
    let site = Site::not_enabled(binaries!());
    let _daemon = on_trial(&site);
    // As a call leaves it that was killed before it could tell the daemon.
    enable(&site, "10s");
    std::fs::write(site.enabled(), "").unwrap();
    until_open(&site);
    let said = site.ctl(&["status"]);
    assert!(
        said.err.contains("after a restart the daemon enforces"),
        "{said}"
    );
    said.fails(7);
    enable(&site, "20s");
    let said = confirm_in_a_session(&site);
    assert_eq!(said.code, Some(0), "{said}");
    site.ctl(&["confirm"]).ok();
    let said = site.ctl(&["enable"]);
    assert!(said.err.contains("enforces already"), "{said}");
    assert_eq!(stranger(&site), Probe::Silent);
}

#[test]
fn wherever_enable_is_killed_the_next_one_puts_the_guard_up_and_leaves_no_key_of_its_own() {
    let site = Site::not_enabled(binaries!());
    let dir = site.dir.to_str().unwrap();
    let started = || {
        let words = ["oneknockctl", "--config", dir, "enable"];
        Running::start("enable", site.lab.server.command(&words))
    };
    let key = site.key_file("oneknockctl-enable");
    let mut daemon = on_trial(&site);
    // In vain, so that it is surely at it.
    site.lab.server.nft(
        "table inet other { chain input { type filter hook input priority 0; udp dport 45123 drop; }; }",
    );
    let mut killed = started();
    wait::until_true("its key", || key.exists());
    killed.signal(Signal::SIGHUP);
    killed.end();
    assert!(std::fs::read_to_string(&key).unwrap().contains("not_after"));
    site.lab.server.nft("delete table inet other");
    // It is no key that anybody could come in by.
    site.ctl(&["key", "remove", "laptop", "--force"]).ok();
    let said = site.ctl(&["enable"]).fails(5);
    assert!(said.contains("there is no valid key"), "{said}");
    assert!(!key.exists());
    site.key("another", &["ssh"]);
    for step in 0..10 {
        let mut killed = started();
        // How far it comes by then matters to no assertion.
        std::thread::sleep(Duration::from_millis(20 * step));
        killed.signal(Signal::SIGKILL);
        killed.end();
        site.ctl(&["enable"]).ok();
        assert!(!key.exists() && site.enabled().exists());
        assert!(!site.ctl(&["key", "list"]).ok().contains("enable"));
        assert_eq!(stranger(&site), Probe::Silent, "{step}");
        site.ctl(&["disable"]).ok();
        assert!(!site.enabled().exists());
        daemon.end();
        daemon = waiting(&site);
    }
}

#[test]
fn no_other_session_can_confirm() {
    let site = Site::not_enabled(binaries!());
    let _daemon = on_trial(&site);
    let dir = site.dir.to_str().unwrap();
    let confirm = confirm(&site);
    let script = format!("echo in; read line; {confirm} 2>&1; read line");
    let ssh = ["ssh", "server.lab", "-F", site.sshd.config(), &script];
    let mut old = Running::start("old", site.lab.laptop.command(&ssh));
    old.expect("in");
    // Admitted before, and for longer than the trial.
    site.oneknock(&["open", "home", "--for", "1m"]).ok();
    enable(&site, "40s");
    assert!(!site.admits("ssh", site.lab.laptop.v4.into()));
    let said = site.ctl(&["confirm"]).fails(5);
    assert!(
        said.contains("is no session through a guarded port"),
        "{said}"
    );
    old.say("now");
    old.expect("older than the trial");
    // Not even with the variables of a session that would be right.
    let laptop = site.lab.laptop.v4;
    let forged = format!("SSH_CONNECTION={laptop} 40000 {} 22", site.lab.server.v4);
    let said = ["env", &forged, "oneknockctl", "--config", dir, "confirm"];
    site.lab.server.run(&said).fails(5);
    assert_eq!(stranger(&site), Probe::Silent);

    // Who needs no knock proves nothing about knocks.
    let trusted = format!("[\"{laptop}/32\"]");
    site.set(&site.config(), "trusted_networks", &trusted);
    site.ctl(&["reload"]).ok();
    let ssh = ["ssh", "server.lab", "-F", site.sshd.config(), &confirm];
    let said = site.lab.laptop.run(&ssh).fails(5);
    assert!(said.contains("never needs to knock"), "{said}");
}

#[test]
fn where_a_knock_of_the_machine_itself_is_in_vain_nothing_is_shut() {
    let site = Site::not_enabled(binaries!());
    let _daemon = on_trial(&site);
    site.lab.server.nft(
        "table inet other { chain input { type filter hook input priority 0; udp dport 45123 drop; }; }",
    );
    for args in [&["enable"][..], &["enable", "--confirm", "1m"]] {
        let said = site.ctl(args).fails(1);
        assert!(said.contains("no grant appeared"), "{said}");
        assert_eq!(stranger(&site), Probe::Open);
    }
    let keys = site.ctl(&["key", "list"]).ok();
    assert!(!keys.contains("enable"), "{keys}");
    site.lab.server.nft("delete table inet other");
    site.ctl(&["enable"]).ok();
    assert_eq!(stranger(&site), Probe::Silent);
    assert_eq!(site.guests("ssh").len(), 0);
    let said = site.ctl(&["enable"]);
    assert!(said.err.contains("enforces already"), "{said}");
}

#[test]
fn disabled_means_open_and_gone_until_it_is_enabled() {
    let site = Site::not_enabled(binaries!());
    let mut daemon = on_trial(&site);
    enable(&site, "1m");
    let said = site.ctl(&["disable"]);
    assert_eq!(said.code, Some(0), "{said}");
    assert_eq!(daemon.end().code(), Some(0));
    assert_eq!(stranger(&site), Probe::Open);
    let tables = site.lab.server.run(&["nft", "list", "tables"]).ok();
    assert_eq!(tables, "");
    // A daemon that is started by hand shuts nothing either.
    let _daemon = waiting(&site);
    assert_eq!(stranger(&site), Probe::Open);
}

#[test]
fn a_guard_that_is_up_without_a_daemon_is_not_enabled() {
    let site = Site::new(binaries!());
    site.laptop_key();
    site.ctl(&["debug", "boot-guard"]).ok();
    let said = site.ctl(&["enable"]).fails(4);
    let want = "oneknockd is not running";
    assert!(
        said.contains(want) && said.contains("hint: oneknockd --config"),
        "{said}"
    );
    let _daemon = site.daemon();
    site.ctl(&["enable"]).ok();
}

#[test]
fn nobody_is_locked_in_without_a_key_or_by_a_wrong_time() {
    let site = Site::not_enabled(binaries!());
    let said = site.ctl(&["enable", "--confirm", "1m"]).fails(5);
    assert!(said.contains("there is no valid key"), "{said}");
    for time in ["9s", "2h", "60", "10500ms"] {
        site.ctl(&["enable", "--confirm", time]).fails(2);
    }
    let said = site.ctl(&["enable", "--confirm", "5"]).fails(2);
    assert!(said.contains("it needs a unit: 5m or 5s"), "{said}");
    let said = site.ctl(&["confirm"]).fails(1);
    assert!(said.contains("there is no trial"), "{said}");
    assert!(!site.enabled().exists());
    assert_eq!(stranger(&site), Probe::Open);
    site.laptop_key();
    let said = site.ctl(&["enable", "--confirm", "1m"]).fails(4);
    assert!(said.contains("start oneknockd"), "{said}");
}

/// What `status` says by its exit status, its first line and its JSON, and what `metrics` does.
fn state(site: &Site) -> (i32, String, bool, String) {
    let status = site.ctl(&["status"]);
    let json = site.ctl(&["status", "--json"]);
    assert_eq!(json.code, status.code);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    let metrics = site.ctl(&["metrics"]).ok();
    let metric = metrics
        .lines()
        .find(|line| line.starts_with("oneknock_enforcing "));
    let first = status.out.split([':', '\n']).next().unwrap();
    (
        status.code.unwrap(),
        first.into(),
        json["enforcing"].as_bool().unwrap(),
        metric.unwrap().into(),
    )
}

#[test]
fn a_daemon_that_is_started_before_enable_does_not_enforce_and_every_answer_says_so() {
    let site = Site::not_enabled(binaries!());
    let not_enforcing = (
        7,
        "not enforcing".into(),
        false,
        "oneknock_enforcing 0".into(),
    );
    let mut daemon = on_trial(&site);
    assert_eq!(state(&site), not_enforcing);
    site.ctl(&["reload"]).ok();
    site.ctl(&["debug", "boot-guard"]).fails(7);
    assert_eq!(stranger(&site), Probe::Open);
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    // Nor does the guard alone.
    let said = site.ctl(&["debug", "boot-guard"]).fails(7);
    assert!(said.contains("not enforcing"), "{said}");
    assert_eq!(stranger(&site), Probe::Open);
    let _daemon = waiting(&site);
    enable(&site, "1m");
    let on_trial = (6, "on trial".into(), false, "oneknock_enforcing 0".into());
    assert_eq!(state(&site), on_trial);
    confirm_in_a_session(&site).ok();
    let enforcing = (0, "enforcing".into(), true, "oneknock_enforcing 1".into());
    assert_eq!(state(&site), enforcing);
}

#[test]
fn whatever_lies_in_the_markers_place_or_beside_it_opens_nothing() {
    let make: [fn(&Site); 3] = [
        |site| std::os::unix::fs::symlink("/nonexistent", site.enabled()).unwrap(),
        |site| std::fs::create_dir(site.enabled()).unwrap(),
        |site| {
            std::fs::write(site.enabled(), "").unwrap();
            std::fs::write(site.dir.join("on-trial"), "").unwrap();
        },
    ];
    for make in make {
        let site = Site::not_enabled(binaries!());
        site.laptop_key();
        make(&site);
        site.ctl(&["debug", "boot-guard"]).ok();
        assert_eq!(stranger(&site), Probe::Silent);
        let _daemon = site.daemon();
        assert_eq!(stranger(&site), Probe::Silent);
        site.ctl(&["status"]).ok();
    }
}

#[test]
fn a_marker_that_is_removed_opens_nothing_while_the_daemon_runs_and_is_missed() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let _daemon = site.daemon();
    std::fs::remove_file(site.enabled()).unwrap();
    site.ctl(&["reload"]).ok();
    assert_eq!(stranger(&site), Probe::Silent);
    let said = site.ctl(&["status"]);
    assert!(said.err.contains("enabled is missing"), "{said}");
    said.ok();
    let said = site.ctl(&["check"]);
    assert!(said.out.contains("warning: not enforcing"), "{said}");
    site.ctl(&["enable"]).ok();
    assert!(site.enabled().exists());
    assert_eq!(site.ctl(&["status"]).err, "");
}

#[test]
fn an_enabled_guard_that_was_taken_down_comes_up_for_good_or_not_at_all() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let mut daemon = site.daemon();
    site.ctl(&["disable", "--until-reboot"]).ok();
    daemon.end();
    let said = site.ctl(&["enable", "--confirm", "1m"]).fails(5);
    assert!(said.contains("enable --no-confirm"), "{said}");
    let said = site.ctl(&["enable"]).fails(4);
    assert!(said.contains("start oneknockd"), "{said}");
    assert_eq!(stranger(&site), Probe::Open);
    assert!(site.enabled().exists());
}

#[test]
fn calls_of_enable_at_once_all_succeed_and_leave_no_key() {
    let site = Site::not_enabled(binaries!());
    let dir = site.dir.to_str().unwrap();
    let mut daemon = on_trial(&site);
    for _ in 0..3 {
        let call = |number| {
            let words = ["oneknockctl", "--config", dir, "enable", "--no-confirm"];
            Running::start(&format!("enable {number}"), site.lab.server.command(&words))
        };
        let mut calls: Vec<Running> = (1..=4).map(call).collect();
        for call in &mut calls {
            let status = call.end();
            assert_eq!(status.code(), Some(0), "{:?}", call.lines());
        }
        assert!(!site.key_file("oneknockctl-enable").exists() && site.enabled().exists());
        assert_eq!(site.ctl(&["status", "--json"]).json()["keys"], 1);
        assert_eq!(stranger(&site), Probe::Silent);
        site.ctl(&["disable"]).ok();
        daemon.end();
        daemon = waiting(&site);
    }
}
