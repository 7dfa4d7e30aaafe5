//! A key whose file is invalid: it is skipped, and what becomes of the others.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::site::PORT;
use oneknock_tests::wire::{self, Key, Probe};
use oneknock_tests::{Running, Site, binaries};
use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;

fn server(site: &Site) -> IpAddr {
    site.lab.server.v4.into()
}

fn stop(mut daemon: Running) {
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.end().code(), Some(0));
}

/// Spoils a key's file, which has this text.
type Spoil = fn(&Site, &str);

const SPOILS: [Spoil; 6] = [
    |site, text| fs::write(site.key_file("phone"), &text[..text.len() / 2]).unwrap(),
    |site, _| fs::write(site.key_file("phone"), "").unwrap(),
    |site, _| {
        let mode = Permissions::from_mode(0o644);
        fs::set_permissions(site.key_file("phone"), mode).unwrap();
    },
    |site, text| fs::write(site.key_file("phone"), text.replace("\"ssh\"", "\"web\"")).unwrap(),
    |site, _| {
        // A mere copy of another key: that one is in force.
        let file = site.key_file("phone");
        fs::remove_file(&file).unwrap();
        fs::copy(site.key_file("laptop"), &file).unwrap();
    },
    |site, text| {
        let file = site.key_file("phone");
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        fs::write(file.join("phone.toml"), text).unwrap();
    },
];

#[test]
fn an_invalid_key_is_skipped_and_every_other_gets_in() {
    for spoil in SPOILS {
        let site = Site::new(binaries!());
        let [laptop, phone] = ["laptop", "phone"].map(|name| site.key(name, &["ssh"]));
        let (at_home, abroad) = (&site.lab.laptop, &site.lab.stranger);
        let is_in = || [at_home, abroad].map(|host| site.admits("ssh", host.v4.into()));
        let mut daemon = site.daemon();
        laptop.opens(&mut daemon, at_home, server(&site));
        phone.opens(&mut daemon, abroad, server(&site));
        let file = site.key_file("phone");
        let good = fs::read_to_string(&file).unwrap();
        spoil(&site, &good);
        let warning =
            "keys do not work after a reload or a restart until their files are fixed: phone.toml";
        for ask in [&["check"][..], &["doctor"]] {
            let said = site.ctl(ask);
            assert!(said.out.contains(warning), "{said}");
        }
        // Nobody has told the daemon.
        phone.opens(&mut daemon, abroad, server(&site));
        let said = site.ctl(&["reload"]);
        assert!(said.err.contains("services 1, keys 1"), "{said}");
        is_skipped(&said.fails(3));
        // What it has opened is closed, and it opens nothing.
        let is_out = |daemon: &mut Running| {
            assert_eq!(is_in(), [true, false]);
            phone.knock(abroad, server(&site), &wire::open(Some("ssh"), 60));
            laptop.opens(daemon, at_home, server(&site));
            assert_eq!(is_in(), [true, false]);
            is_skipped(&site.ctl(&["status"]).ok());
        };
        is_out(&mut daemon);
        stop(daemon);
        let mut daemon = site.daemon();
        daemon.expect("their files are invalid: phone.toml");
        assert!(daemon.count("keys=1") > 0);
        is_out(&mut daemon);

        if file.is_dir() {
            fs::remove_dir_all(&file).unwrap();
        }
        fs::write(&file, &good).unwrap();
        let [of, like] = [&file, &site.key_file("laptop")].map(|path| path.display().to_string());
        for change in ["chmod", "chown"] {
            let reference = format!("--reference={like}");
            site.lab.server.run(&[change, &reference, &of]).ok();
        }
        let said = site.ctl(&["doctor"]);
        is_skipped(&said.out);
        site.ctl(&["reload"]).ok();
        phone.opens(&mut daemon, abroad, server(&site));
        assert!(!site.ctl(&["status"]).ok().contains("are invalid"));
    }
}

fn is_skipped(said: &str) {
    let want = "keys are not loaded, since their files are invalid: phone.toml";
    assert!(said.contains(want), "{said}");
}

#[test]
fn a_start_with_an_invalid_main_file_skips_an_invalid_key_too() {
    let site = Site::new(binaries!());
    let laptop = site.key("laptop", &["ssh"]);
    let phone = site.key("phone", &["ssh"]);
    let good = fs::read_to_string(site.key_file("phone")).unwrap();
    stop(site.daemon());
    fs::write(site.key_file("phone"), "").unwrap();
    site.set(&site.config(), "skew", "1");
    let mut daemon = site.daemon();
    assert_eq!(daemon.count("using-last-good"), 1);
    daemon.expect("their files are invalid: phone.toml");
    laptop.opens(&mut daemon, &site.lab.laptop, server(&site));
    // Nothing is reloaded with it, and a key is loaded by itself all the same.
    fs::write(site.key_file("phone"), good).unwrap();
    let err = site.ctl(&["reload"]).fails(3);
    assert!(err.contains("oneknockd.toml:"), "{err}");
    is_skipped(&site.ctl(&["status"]).ok());
    let line = site.ctl(&["key", "rotate", "phone", "--now"]);
    assert!(line.err.contains("the daemon has reloaded"), "{line}");
    assert!(!site.ctl(&["status"]).ok().contains("phone.toml"));
    drop(phone);
}

/// Copies a key's file under a name that comes before it.
fn copy_before(site: &Site) {
    let [from, to] = ["laptop", "a-copy"].map(|name| site.key_file(name).display().to_string());
    site.lab.server.run(&["cp", "-a", &from, &to]).ok();
}

/// A knock of the first key, which opens nothing: one of the second does, that came after it.
fn is_shut(site: &Site, daemon: &mut Running, key: &Key, other: &Key) {
    let before = daemon.count("granted ");
    key.knock(
        &site.lab.stranger,
        server(site),
        &wire::open(Some("ssh"), 60),
    );
    other.opens(daemon, &site.lab.laptop, server(site));
    assert_eq!(daemon.count("granted "), before + 1);
}

#[test]
fn of_two_files_with_one_secret_that_differ_none_is_in_force_in_whatever_order() {
    for (name, line) in [
        ("laptop", "not_after = 2020-01-01T00:00:00Z"),
        ("a-copy", "made = 2020-01-01T00:00:00Z"),
    ] {
        let site = Site::new(binaries!());
        let [laptop, phone] = ["laptop", "phone"].map(|name| site.key(name, &["ssh"]));
        copy_before(&site);
        let file = site.key_file(name);
        let text = fs::read_to_string(&file).unwrap();
        let text: Vec<&str> = text.lines().filter(|l| !l.starts_with("made")).collect();
        fs::write(&file, format!("{}\n{line}\n", text.join("\n"))).unwrap();
        let mut daemon = site.daemon();
        daemon.expect("their files are invalid: a-copy.toml, laptop.toml");
        is_shut(&site, &mut daemon, &laptop, &phone);
        // A secret that is gone from one of them is gone: nobody says that all is well.
        let said = site.ctl(&["key", "remove", "laptop", "--force"]);
        assert!(said.err.contains("key remove a-copy"), "{said}");
    }
}

#[test]
fn a_skipped_key_hinders_no_change_of_any_key() {
    let site = Site::new(binaries!());
    let [laptop, phone, tablet] =
        ["laptop", "phone", "tablet"].map(|name| site.key(name, &["ssh"]));
    let good = fs::read_to_string(site.key_file("phone")).unwrap();
    for name in ["phone", "tablet"] {
        fs::write(site.key_file(name), "").unwrap();
    }
    let mut daemon = site.daemon();
    // What has nothing to do with keys is asked as ever.
    site.ctl(&["log"]).ok();
    let said = site.ctl(&["confirm"]);
    assert!(said.err.contains("confirmed already"), "{said}");
    let listed = site.ctl(&["key", "list"]);
    let both = "invalid: phone.toml, tablet.toml";
    assert!(listed.err.contains(both), "{listed}");
    // One of them is fixed.
    fs::write(site.key_file("phone"), &good).unwrap();
    let said = site.ctl(&["key", "list", "--json"]);
    assert!(said.out.contains("\"in_force\":false"), "{said}");
    let said = site.ctl(&["log", "--denied", "phone"]);
    assert!(said.err.contains(both), "{said}");
    let said = site.ctl(&["reload"]);
    assert!(said.err.contains("reloaded: services 1, keys 2"), "{said}");
    let said = said.fails(3);
    assert!(said.contains("invalid: tablet.toml"), "{said}");
    phone.opens(&mut daemon, &site.lab.stranger, server(&site));
    // A secret that has leaked ends at once.
    let rotate = ["key", "rotate", "laptop", "--now"];
    let line = site.ctl(&rotate).ok();
    let invitation = line.parse().unwrap();
    let new = Key { line, invitation };
    is_shut(&site, &mut daemon, &laptop, &new);
    is_shut(&site, &mut daemon, &tablet, &new);
    // Another error than the daemon knows of hinders nothing either.
    fs::write(site.key_file("phone"), "").unwrap();
    site.ctl(&rotate).ok();
    phone.opens(&mut daemon, &site.lab.stranger, server(&site));
    // Without the one that is left nobody gets in after the next start.
    let said = site.ctl(&["key", "remove", "laptop", "--force"]);
    assert!(said.err.contains("no one can knock any more"), "{said}");
}

#[test]
fn a_main_file_that_is_right_is_in_force_whatever_a_key_names() {
    let site = Site::with_services(binaries!(), &["ssh=tcp/22", "web=tcp/8080"]);
    let laptop = site.key("laptop", &["ssh"]);
    site.key("phone", &["web"]);
    let stranger = &site.lab.stranger;
    let text = fs::read_to_string(site.config()).unwrap();
    let trusted = format!("[\"{}/32\"]", stranger.v4);
    let (main, services) = text.split_once("[[service]]").unwrap();
    let first = services.split_once("[[service]]").unwrap().0;
    site.set(&site.config(), "trusted_networks", &trusted);
    stop(site.daemon());
    // Neither the network nor the service is to be any more.
    fs::write(site.config(), format!("{main}[[service]]{first}")).unwrap();
    let mut daemon = site.daemon();
    assert_eq!(daemon.count("using-last-good"), 0);
    daemon.expect("their files are invalid: phone.toml");
    assert_eq!(site.probe(stranger, server(&site)), Probe::Silent);
    laptop.opens(&mut daemon, &site.lab.laptop, server(&site));
}

#[test]
fn a_skipped_keys_packet_from_before_a_lost_state_is_refused() {
    let site = Site::new(binaries!());
    site.set(&site.config(), "skew", "\"20s\"");
    let [_, phone] = ["laptop", "phone"].map(|name| site.key(name, &["ssh"]));
    let good = fs::read_to_string(site.key_file("phone")).unwrap();
    let mut daemon = site.daemon();
    let mut knock = wire::open(Some("ssh"), 60);
    knock.timestamp.0 += 19_000;
    let packet = phone.knock(&site.lab.laptop, server(&site), &knock);
    daemon.expect("granted address=");
    stop(daemon);
    fs::remove_dir_all(site.state()).unwrap();
    fs::write(site.key_file("phone"), "").unwrap();
    site.ctl(&["debug", "reset-state"]).ok();
    let mut daemon = site.daemon();
    fs::write(site.key_file("phone"), &good).unwrap();
    site.ctl(&["reload"]).ok();
    wire::send(&site.lab.stranger, (server(&site), PORT).into(), &packet);
    daemon.expect("key=phone reason=replay-floor");
    assert_eq!(daemon.count("granted "), 0);
    // Nor after a kill.
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    let mut daemon = site.daemon();
    wire::send(&site.lab.stranger, (server(&site), PORT).into(), &packet);
    daemon.expect("key=phone reason=replay-floor");
}

#[test]
fn a_file_of_nothing_but_errors_holds_no_start_up() {
    let site = Site::new(binaries!());
    let laptop = site.key("laptop", &["ssh"]);
    site.key("phone", &["ssh"]);
    let lines = (0..20_000).map(|number| format!("a{number} = 1\n"));
    fs::write(site.key_file("phone"), lines.collect::<String>()).unwrap();
    let mut daemon = site.daemon();
    assert!((1..=202).contains(&daemon.count("keys/phone.toml")));
    assert!(daemon.count("more is wrong") <= 2);
    laptop.opens(&mut daemon, &site.lab.laptop, server(&site));
}

#[test]
fn without_a_valid_key_the_daemon_starts_guards_and_says_so() {
    let site = Site::new(binaries!());
    let names = ["laptop", "phone"];
    let keys = names.map(|name| site.key(name, &["ssh"]));
    let good = names.map(|name| fs::read_to_string(site.key_file(name)).unwrap());
    stop(site.daemon());
    let stranger = &site.lab.stranger;
    let guards = |daemon: &mut Running| {
        daemon.expect("there is no valid key: nobody new gets in");
        assert_eq!(site.probe(stranger, server(&site)), Probe::Silent);
        let said = site.ctl(&["check"]);
        assert!(
            said.out.contains("oneknockd starts without any key"),
            "{said}"
        );
    };
    for name in names {
        fs::write(site.key_file(name), "").unwrap();
    }
    let mut daemon = site.daemon();
    guards(&mut daemon);
    for (name, good) in names.iter().zip(good) {
        fs::write(site.key_file(name), good).unwrap();
    }
    site.ctl(&["reload"]).ok();
    keys[0].opens(&mut daemon, &site.lab.laptop, server(&site));
    // What others could have written is no key: a start has none, and a reload keeps those that
    // it has.
    let directory = site.dir.join("keys");
    let mode = |mode| fs::set_permissions(&directory, Permissions::from_mode(mode)).unwrap();
    for written_by_others in [0o770, 0o757] {
        mode(written_by_others);
        let said = site.ctl(&["reload"]).fails(3);
        assert!(said.contains("chmod go-w"), "{said}");
        keys[1].opens(&mut daemon, &site.lab.laptop, server(&site));
        stop(daemon);
        daemon = site.daemon();
        guards(&mut daemon);
        mode(0o750);
        site.ctl(&["reload"]).ok();
    }
    // Who can list it, and no more, could not have put anything there.
    mode(0o755);
    let said = site.ctl(&["check"]);
    assert_eq!(said.code, Some(3), "{said}");
    assert!(said.out.contains("/keys"), "{said}");
    assert!(!said.out.contains("without any key"), "{said}");
    stop(daemon);
    let mut daemon = site.daemon();
    keys[0].opens(&mut daemon, &site.lab.laptop, server(&site));
}

#[test]
fn an_unknown_name_is_a_warning_for_a_start_alone() {
    let site = Site::new(binaries!());
    let laptop = site.key("laptop", &["ssh"]);
    let good = fs::read_to_string(site.config()).unwrap();
    let of_tomorrow = || {
        site.set(&site.config(), "of_tomorrow", "1");
        site.set(&site.key_file("laptop"), "of_tomorrow", "1");
    };
    of_tomorrow();
    let said = site.ctl(&["check"]);
    assert_eq!(said.code, Some(3), "{said}");
    assert_eq!(
        said.out.matches("of_tomorrow: is unknown here").count(),
        2,
        "{said}"
    );
    // The copy of an older program's has it too.
    stop(site.daemon());
    let mut daemon = site.daemon();
    assert_eq!(daemon.count("config-warning"), 2);
    assert_eq!(daemon.count("using-last-good"), 0);
    laptop.opens(&mut daemon, &site.lab.laptop, server(&site));
    let said = site.ctl(&["debug", "boot-guard"]);
    assert_eq!(said.code, Some(0), "{said}");
    let said = site.ctl(&["reload"]).fails(3);
    assert!(said.contains("of_tomorrow"), "{said}");
    laptop.opens(&mut daemon, &site.lab.laptop, server(&site));
    fs::write(site.config(), good).unwrap();
    let said = site.ctl(&["reload"]).fails(3);
    assert!(said.contains("invalid: laptop.toml"), "{said}");
}
