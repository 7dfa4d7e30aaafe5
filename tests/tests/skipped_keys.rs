//! A key whose file has a mistake: what a start makes of it, and of the others.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::site::PORT;
use oneknock_tests::wire::{self, Key, Probe};
use oneknock_tests::{Running, Site, binaries};
use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;

const SKIPPED: &str = "keys are not loaded, since their files are invalid: phone.toml";

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
fn key_with_an_invalid_file_is_skipped_by_start_and_reload_and_every_other_gets_in() {
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
        for ask in ["check", "doctor"] {
            let said = site.ctl(&[ask]);
            assert!(said.out.contains(warning), "{said}");
        }
        assert_eq!(is_in(), [true, true]);
        // A reload and a start go by the same rule.
        let said = site.ctl(&["reload"]).fails(3);
        assert!(said.contains(SKIPPED), "{said}");
        assert_eq!(is_in(), [true, false]);
        stop(daemon);

        let mut daemon = site.daemon();
        daemon.expect("their files are invalid: phone.toml");
        assert!(daemon.count("keys/phone.toml") > 0);
        assert!(daemon.count("keys=1") > 0);
        // What it has opened is closed, and it opens nothing.
        assert_eq!(is_in(), [true, false]);
        phone.knock(abroad, server(&site), &wire::open(Some("ssh"), 60));
        laptop.opens(&mut daemon, at_home, server(&site));
        assert_eq!(is_in(), [true, false]);
        let said = site.ctl(&["status"]).ok();
        assert!(said.contains(SKIPPED), "{said}");

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
        assert!(said.out.contains(SKIPPED), "{said}");
        site.ctl(&["reload"]).ok();
        phone.opens(&mut daemon, abroad, server(&site));
        assert!(!site.ctl(&["status"]).ok().contains("are invalid"));
    }
}

#[test]
fn key_with_an_invalid_file_is_skipped_beside_an_invalid_main_file_too() {
    let site = Site::new(binaries!());
    let laptop = site.key("laptop", &["ssh"]);
    let phone = site.key("phone", &["ssh"]);
    let good = fs::read_to_string(site.key_file("phone")).unwrap();
    stop(site.daemon());
    fs::write(site.key_file("phone"), "").unwrap();
    site.set(&site.config(), "mistake", "1");
    let mut daemon = site.daemon();
    assert_eq!(daemon.count("using-last-good"), 1);
    daemon.expect("their files are invalid: phone.toml");
    laptop.opens(&mut daemon, &site.lab.laptop, server(&site));
    // With an invalid main file nothing is reloaded, and a start has the key.
    fs::write(site.key_file("phone"), good).unwrap();
    let err = site.ctl(&["reload"]).fails(3);
    assert!(err.contains("oneknockd.toml:"), "{err}");
    stop(daemon);
    let mut daemon = site.daemon();
    phone.opens(&mut daemon, &site.lab.stranger, server(&site));
    assert!(!site.ctl(&["status"]).ok().contains("phone.toml"));
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
fn skipped_key_hinders_no_change_of_another_nor_its_own_repair() {
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
    assert!(
        listed.err.contains("invalid: phone.toml, tablet.toml"),
        "{listed}"
    );
    // One of them is mended.
    fs::write(site.key_file("phone"), &good).unwrap();
    let said = site.ctl(&["key", "list", "--json"]);
    assert!(said.out.contains("\"in_force\":false"), "{said}");
    let said = site.ctl(&["log", "--denied", "phone"]);
    assert!(
        said.err.contains("invalid: phone.toml, tablet.toml"),
        "{said}"
    );
    let said = site.ctl(&["reload"]).fails(3);
    assert!(said.contains("reloaded: services 1, keys 2"), "{said}");
    assert!(said.contains("invalid: tablet.toml"), "{said}");
    let status = site.ctl(&["status"]).ok();
    assert!(status.contains("invalid: tablet.toml"), "{status}");
    phone.opens(&mut daemon, &site.lab.stranger, server(&site));
    // A secret that has leaked ends at once.
    let line = site.ctl(&["key", "rotate", "laptop", "--now"]).ok();
    let invitation = line.parse().unwrap();
    let new = Key { line, invitation };
    is_shut(&site, &mut daemon, &laptop, &new);
    is_shut(&site, &mut daemon, &tablet, &new);
    // So it does whatever else has become invalid, and that changes nothing by the way.
    fs::write(site.key_file("phone"), "").unwrap();
    let said = site.ctl(&["key", "rotate", "laptop", "--now"]);
    assert!(said.err.contains("the daemon has reloaded it"), "{said}");
    said.ok();
    assert!(site.admits("ssh", site.lab.stranger.v4.into()));
    // Without the one that is left nobody gets in.
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
    let always = format!("\n[always]\nnetworks = [\"{}/32\"]\n", stranger.v4);
    let (main, services) = text.split_once("[[service]]").unwrap();
    let first = services.split_once("[[service]]").unwrap().0;
    fs::write(site.config(), format!("{text}{always}")).unwrap();
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
fn what_a_skipped_key_has_sent_before_the_state_was_lost_is_worth_nothing_later() {
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
fn a_file_of_nothing_but_mistakes_holds_no_start_up() {
    let site = Site::new(binaries!());
    let laptop = site.key("laptop", &["ssh"]);
    site.key("phone", &["ssh"]);
    let lines = (0..20_000).map(|number| format!("a{number} = 1\n"));
    fs::write(site.key_file("phone"), lines.collect::<String>()).unwrap();
    let mut daemon = site.daemon();
    assert!(daemon.count("keys/phone.toml") <= 101);
    assert_eq!(daemon.count("more is wrong"), 1);
    laptop.opens(&mut daemon, &site.lab.laptop, server(&site));
}

#[test]
fn where_no_key_would_be_left_or_their_folder_is_open_to_others_no_daemon_starts() {
    let site = Site::new(binaries!());
    let names = ["laptop", "phone"];
    for name in names {
        site.key(name, &["ssh"]);
    }
    stop(site.daemon());
    let refuses = || {
        let mut daemon = site.daemon_unready();
        assert_eq!(daemon.end().code(), Some(2), "{:?}", daemon.lines());
        let said = site.ctl(&["check"]);
        assert!(
            said.out
                .contains("oneknockd does not start until that is fixed"),
            "{said}"
        );
        // The guard is up all the same.
        site.lab
            .server
            .run(&["nft", "list", "table", "inet", "oneknock"])
            .ok();
    };
    let folder = site.dir.join("keys");
    let mode = |mode| fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
    for written_by_others in [0o770, 0o757] {
        mode(written_by_others);
        refuses();
    }
    // Who can list it, and no more, could not have put anything there.
    mode(0o755);
    let said = site.ctl(&["check"]);
    assert_eq!(said.code, Some(3), "{said}");
    assert!(said.out.contains("/keys"), "{said}");
    assert!(!said.out.contains("does not start"), "{said}");
    stop(site.daemon());
    mode(0o750);
    stop(site.daemon());
    for name in names {
        site.set(&site.key_file(name), "mistake", "1");
    }
    refuses();
}
