//! A key whose file has a mistake: what a start makes of it, and of the others.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::wire;
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
        // One secret under two names: the first is in force.
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
fn a_key_with_a_mistake_is_left_out_by_a_start_and_every_other_gets_in() {
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
        let warning = "the next start of oneknockd leaves these keys out";
        for ask in [&["check"][..], &["reload"], &["doctor"]] {
            let said = site.ctl(ask);
            assert!(said.err.contains(warning), "{said}");
            assert!(said.err.contains("phone.toml"), "{said}");
        }
        // As long as the daemon runs nothing has changed.
        phone.opens(&mut daemon, abroad, server(&site));
        assert!(!site.ctl(&["status"]).ok().contains("left out"));
        stop(daemon);

        let mut daemon = site.daemon();
        assert_eq!(
            daemon.count("left out, and nobody gets in by them: phone.toml"),
            1
        );
        assert!(daemon.count("keys/phone.toml") > 0);
        assert!(daemon.count("keys=1") > 0);
        // What it has opened is closed, and it opens nothing.
        assert_eq!(is_in(), [true, false]);
        phone.knock(abroad, server(&site), &wire::open(Some("ssh"), 60));
        laptop.opens(&mut daemon, at_home, server(&site));
        assert_eq!(is_in(), [true, false]);
        let said = site.ctl(&["status"]).ok();
        assert!(
            said.contains("left out") && said.contains("phone.toml"),
            "{said}"
        );

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
        assert!(
            said.out
                .contains("nobody gets in by the keys of phone.toml"),
            "{said}"
        );
        site.ctl(&["reload"]).ok();
        phone.opens(&mut daemon, abroad, server(&site));
        assert!(!site.ctl(&["status"]).ok().contains("left out"));
    }
}

#[test]
fn beside_a_mistake_in_the_main_file_too_a_key_with_one_is_left_out() {
    let site = Site::new(binaries!());
    let laptop = site.key("laptop", &["ssh"]);
    site.key("phone", &["ssh"]);
    stop(site.daemon());
    fs::write(site.key_file("phone"), "").unwrap();
    site.set(&site.config(), "mistake", "1");
    let mut daemon = site.daemon();
    assert_eq!(daemon.count("in force stays what was before"), 1);
    assert_eq!(
        daemon.count("left out, and nobody gets in by them: phone.toml"),
        1
    );
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
            said.err.contains("the next start of oneknockd fails"),
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
    mode(0o770);
    refuses();
    mode(0o750);
    stop(site.daemon());
    for name in names {
        site.set(&site.key_file(name), "mistake", "1");
    }
    refuses();
}
