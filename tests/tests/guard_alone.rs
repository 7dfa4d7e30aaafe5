//! `oneknockctl debug boot-guard`: the guard without the daemon.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::control::socket;
use oneknock_tests::wire::Probe;
use oneknock_tests::{Running, Site, binaries};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[test]
fn the_guard_alone_shuts_the_port_and_keeps_grants_and_sessions() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let server = site.lab.server.v4.into();
    let mut session = site.session(&["ssh", "server.lab"]);
    let said = site.ctl(&["debug", "boot-guard"]);
    assert_eq!(said.code, Some(0), "{said}");
    assert!(said.err.contains("installed the guard"), "{said}");
    assert_eq!(site.probe(&site.lab.stranger, server), Probe::Silent);
    session.say("older than the guard");
    session.expect("got older than the guard");

    let mut daemon = site.daemon();
    site.oneknock(&["open", "home"]).ok();
    // The daemon knows best.
    let said = site.ctl(&["debug", "boot-guard"]);
    assert!(
        said.err.contains("oneknockd is running: enforcing"),
        "{said}"
    );
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    let said = site.ctl(&["debug", "boot-guard"]);
    assert!(
        said.err.contains("installed the guard: enforcing"),
        "{said}"
    );
    assert!(site.admits("ssh", site.lab.laptop.v4.into()));
    assert_eq!(site.probe(&site.lab.stranger, server), Probe::Silent);
}

#[test]
fn a_hung_daemons_guard_is_its_own() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let daemon = site.daemon();
    std::fs::remove_file(socket(&site)).unwrap();
    let said = site.ctl(&["debug", "boot-guard"]);
    assert_eq!(said.code, Some(0), "{said}");
    assert!(
        said.err.contains("oneknockd is running: enforcing"),
        "{said}"
    );
    drop(daemon);
}

#[test]
fn a_key_with_a_mistake_hinders_no_guard_and_a_configuration_with_one_does() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    site.set(&site.key_file("laptop"), "mistake", "1");
    let server = site.lab.server.v4.into();
    site.set(&site.config(), "mistake", "1");
    let said = site.ctl(&["debug", "boot-guard"]).fails(3);
    assert!(said.contains("mistake"), "{said}");
    assert_eq!(site.probe(&site.lab.stranger, server), Probe::Open);
    let text = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), text.replace("mistake = 1\n", "")).unwrap();
    site.ctl(&["debug", "boot-guard"]).ok();
    assert_eq!(site.probe(&site.lab.stranger, server), Probe::Silent);

    let (config, setpriv) = (site.dir.to_str().unwrap(), "--bounding-set=-net_admin");
    let without = [
        "setpriv",
        setpriv,
        "oneknockctl",
        "debug",
        "boot-guard",
        "--config",
    ];
    let without = [&without[..], &[config]].concat();
    let said = site.lab.server.run(&without).fails(1);
    assert!(said.contains("only root can"), "{said}");
}

#[test]
fn what_the_guards_user_cannot_read_leaves_nothing_open() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let server = site.lab.server.v4.into();
    let mut daemon = site.daemon();
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    };
    let guard = |status| {
        let delete = ["nft", "delete", "table", "inet", "oneknock"];
        site.lab.server.run(&delete).ok();
        // As the unit runs it: to such a root a mode is a mode.
        let caps = "--bounding-set=-dac_override,-dac_read_search";
        let config = site.dir.to_str().unwrap();
        let guard = [
            "setpriv",
            caps,
            "oneknockctl",
            "debug",
            "boot-guard",
            "--config",
            config,
        ];
        let said = site.lab.server.run(&guard);
        assert_eq!(said.code, Some(status), "{said}");
        assert_eq!(site.probe(&site.lab.stranger, server), Probe::Silent);
        said.err
    };
    // The keys are nothing to it.
    mode(&site.dir.join("keys"), 0o000);
    guard(0);
    mode(&site.config(), 0o200);
    let said = guard(0);
    assert!(said.contains("cannot be read"), "{said}");
    assert!(said.contains("check\" says what to do"), "{said}");
}

#[test]
fn what_was_last_in_force_is_found_whatever_became_of_the_main_file() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let server = site.lab.server.v4.into();
    let config = site.config();
    let good = std::fs::read_to_string(&config).unwrap();
    let stop = |mut daemon: Running| {
        daemon.signal(Signal::SIGTERM);
        daemon.end();
        let delete = ["nft", "delete", "table", "inet", "oneknock"];
        site.lab.server.run(&delete).ok();
    };
    stop(site.daemon());
    let unclosed = || {
        let text = good.replace("host = \"server.lab\"", "host = \"server");
        assert_ne!(text, good);
        std::fs::write(&config, text).unwrap();
    };
    let others_write = || {
        std::fs::write(&config, &good).unwrap();
        std::fs::set_permissions(&config, Permissions::from_mode(0o660)).unwrap();
    };
    let removed = || std::fs::remove_file(&config).unwrap();
    let mistakes: [&dyn Fn(); 3] = [&unclosed, &others_write, &removed];
    for make in mistakes {
        make();
        let said = site.ctl(&["debug", "boot-guard"]);
        assert!(
            said.err.contains("error: ") && said.err.contains("oneknockd.toml:"),
            "{said}"
        );
        said.ok();
        assert_eq!(site.probe(&site.lab.stranger, server), Probe::Silent);
        let mut daemon = site.daemon_unready();
        daemon.expect("using-last-good");
        daemon.expect("ready");
        assert_eq!(site.oneknock_ssh("echo in").ok(), "in\n");
        // It is asked where it is.
        let status = site.ctl(&["status"]).ok();
        assert!(
            status.contains("running on the last good configuration"),
            "{status}"
        );
        stop(daemon);
    }
    // As it is said.
    let said = site.ctl(&["check"]);
    assert_eq!(said.code, Some(3), "{said}");
    let (_, mend) = said.out.split_once("last in force with: ").unwrap();
    let mend = mend.lines().next().unwrap();
    site.lab.server.run(&["sh", "-c", mend]).ok();
    assert_eq!(std::fs::read_to_string(&config).unwrap(), good);
    site.ctl(&["check"]).ok();
    // Without the keys it is a server that nobody has made yet.
    removed();
    let [keys, aside] = ["keys", "aside"].map(|name| site.dir.join(name));
    std::fs::rename(&keys, &aside).unwrap();
    let said = site.ctl(&["debug", "boot-guard"]).fails(3);
    assert!(said.contains("init --host"), "{said}");
    std::fs::rename(&aside, &keys).unwrap();
    site.ctl(&["disable"]).ok();
    site.ctl(&["debug", "boot-guard"]).fails(3);
    assert_eq!(site.probe(&site.lab.stranger, server), Probe::Open);
}

#[test]
fn with_a_mistake_in_the_configuration_what_was_last_in_force_is_so_through_a_restart() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let server = site.lab.server.v4.into();
    let good = std::fs::read_to_string(site.config()).unwrap();
    let put_down = || {
        let delete = ["nft", "delete", "table", "inet", "oneknock"];
        site.lab.server.run(&delete).ok();
        assert_eq!(site.probe(&site.lab.stranger, server), Probe::Open);
    };
    let stop = |mut daemon: Running| {
        daemon.signal(Signal::SIGTERM);
        daemon.end();
        put_down();
    };
    stop(site.daemon());
    for bad in [&good[..good.len() / 2], &format!("mistake = 1\n{good}")] {
        std::fs::write(site.config(), bad).unwrap();
        let said = site.ctl(&["debug", "boot-guard"]);
        for part in [
            "oneknockd.toml:",
            "the guard is that of the last good configuration",
        ] {
            assert!(said.err.contains(part), "{said}");
        }
        said.ok();
        assert_eq!(site.probe(&site.lab.stranger, server), Probe::Silent);
        put_down();
        let mut daemon = site.daemon_unready();
        daemon.expect("oneknockd.toml:");
        daemon.expect("using-last-good");
        daemon.expect("ready");
        assert_eq!(site.probe(&site.lab.stranger, server), Probe::Silent);
        assert_eq!(site.oneknock_ssh("echo in").ok(), "in\n");
        let said = site.ctl(&["debug", "boot-guard"]);
        assert!(
            said.err.contains("oneknockd is running: enforcing"),
            "{said}"
        );
        said.ok();
        let status = || site.ctl(&["status"]).ok();
        assert!(status().contains("running on the last good configuration"));
        std::fs::write(site.config(), &good).unwrap();
        site.ctl(&["reload"]).ok();
        assert!(!status().contains("running on the last good configuration"));
        stop(daemon);
    }
    std::fs::write(site.config(), &good[..good.len() / 2]).unwrap();
    let kept = site.state().join("last-good.toml");
    // What others could have written was in force nowhere.
    let mode = |mode| std::fs::set_permissions(&kept, Permissions::from_mode(mode)).unwrap();
    mode(0o660);
    site.ctl(&["debug", "boot-guard"]).fails(3);
    mode(0o600);
    // A new server begins with nothing of the old one's.
    let [config, aside] = [site.config(), site.dir.join("aside")];
    std::fs::rename(&config, &aside).unwrap();
    let copy = std::fs::read(&kept).unwrap();
    site.ctl(&["init", "--host", "server.lab"]).ok();
    assert!(!kept.exists());
    std::fs::rename(&aside, &config).unwrap();
    std::fs::write(&kept, copy).unwrap();
    mode(0o600);
    site.ctl(&["debug", "boot-guard"]).ok();
    put_down();
    site.ctl(&["disable"]).ok();
    site.ctl(&["debug", "boot-guard"]).fails(3);
    assert_eq!(site.probe(&site.lab.stranger, server), Probe::Open);
    assert_eq!(site.daemon_unready().end().code(), Some(2));
}
