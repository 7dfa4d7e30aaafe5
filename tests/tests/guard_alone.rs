//! `oneknockctl debug boot-guard`: the guard without the daemon.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::control::socket;
use oneknock_tests::wire::Probe;
use oneknock_tests::{Running, Site, binaries, figure};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

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

/// How many processes and threads a command makes, itself among them: in a namespace of
/// process ids that nothing else is in, the kernel counts them.
fn tasks(site: &Site, command: &str) -> String {
    let last = "/proc/sys/kernel/ns_last_pid";
    let script = format!(
        "read before < {last}; {command} || exit; read after < {last}; echo $((after - before))"
    );
    let alone = ["unshare", "--pid", "--fork", "--mount-proc"];
    let alone = [&alone[..], &["sh", "-c", &script]].concat();
    site.lab.server.run(&alone).ok().trim().to_owned()
}

#[test]
fn guard_at_boot_is_one_process_and_no_thread() {
    const RUNS: usize = 20;
    let site = Site::new(binaries!());
    site.laptop_key();
    assert_eq!(tasks(&site, "sh -c 'true & wait'"), "2");
    let guard = format!(
        "oneknockctl debug boot-guard --config {}",
        site.dir.display()
    );
    assert_eq!(tasks(&site, &guard), "1");
    let server = &site.lab.server;
    assert_eq!(
        site.probe(&site.lab.stranger, server.v4.into()),
        Probe::Silent
    );
    let mut times = server.enter(|| {
        let time = |_| {
            let delete = ["delete", "table", "inet", "oneknock"];
            assert!(Command::new("nft").args(delete).status().unwrap().success());
            let mut guard = Command::new(binaries!().oneknockctl);
            guard
                .args(["debug", "boot-guard", "--config"])
                .arg(&site.dir);
            let start = Instant::now();
            assert!(guard.output().unwrap().status.success());
            start.elapsed()
        };
        (0..RUNS).map(time).collect::<Vec<_>>()
    });
    times.sort_unstable();
    let (least, median) = (times[0], times[RUNS / 2]);
    figure(format_args!(
        "guard at boot, from its start to its end: min {least:?} median {median:?} of {RUNS}"
    ));
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
    std::fs::write(site.key_file("laptop"), "").unwrap();
    let server = site.lab.server.v4.into();
    site.set(&site.config(), "history", "1");
    let said = site.ctl(&["debug", "boot-guard"]).fails(3);
    assert!(said.contains("history"), "{said}");
    assert_eq!(site.probe(&site.lab.stranger, server), Probe::Open);
    let text = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), text.replace("history = 1\n", "")).unwrap();
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
fn the_last_good_copy_is_found_whatever_the_main_file_is() {
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
    assert!(said.out.contains("init --restore"), "{said}");
    let said = site.ctl(&["init", "--restore"]);
    assert_eq!(said.out, good, "{said}");
    said.ok();
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
fn with_an_invalid_main_file_a_start_runs_on_the_last_good_one() {
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
    for bad in [
        &good[..good.len() / 2],
        &good.replace("udp/", "tcp/").replace("port = ", "port = 0"),
    ] {
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
    // Nor does it enforce, as the old one did.
    site.ctl(&["debug", "boot-guard"]).fails(7);
    std::fs::write(site.enabled(), "").unwrap();
    site.ctl(&["debug", "boot-guard"]).ok();
    put_down();
    site.ctl(&["disable"]).ok();
    site.ctl(&["debug", "boot-guard"]).fails(3);
    assert_eq!(site.probe(&site.lab.stranger, server), Probe::Open);
    assert_eq!(site.daemon_unready().end().code(), Some(2));
}
