//! `oneknock doctor`: against a silent server, each cause produced for real.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::{Site, binaries, wait};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A site with a door on the laptop, whose clock says this of itself.
fn site(clock: &str) -> Site {
    let site = Site::new(binaries!());
    site.laptop_key();
    let program = site.lab.dir().join("bin/timedatectl");
    fs::write(&program, format!("#!/bin/sh\necho {clock}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    site
}

/// What is said to be most likely.
fn likely(site: &Site) -> String {
    let said = site.oneknock(&["doctor", "home"]);
    assert_eq!(said.code, Some(1), "{said}");
    let line = said
        .out
        .lines()
        .find_map(|line| line.strip_prefix("likely"));
    line.unwrap_or_else(|| panic!("{said}")).trim().to_owned()
}

#[test]
fn a_door_that_opens_has_nothing_the_matter() {
    let site = site("yes");
    let _daemon = site.daemon();
    let said = site.oneknock(&["doctor", "home"]).ok();
    assert!(
        said.contains("the port opens") && !said.contains("likely"),
        "{said}"
    );
    assert!(said.contains("192.0.2.10 from 198.51.100.7"), "{said}");
    // And while it is open.
    let said = site.oneknock(&["doctor", "home"]);
    assert!(said.out.contains("answers without one"), "{said}");
}

#[test]
fn a_clock_that_nobody_answers_for_is_not_waited_for() {
    let site = site("yes; exec sleep 600");
    let _daemon = site.daemon();
    let said = site.oneknock(&["doctor", "home"]).ok();
    for part in ["the port opens", "nobody here can say"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn the_likely_cause_is_the_one_that_was_made() {
    let site = site("yes");
    site.ctl(&["debug", "boot-guard"]).ok();
    // Nobody listens, and the server's machine says so.
    assert!(likely(&site).contains("oneknockd is not running"));
    let server = &site.lab.server;
    server.nft(
        "table inet mine { chain input { type filter hook input priority 0
            udp dport 45123 drop
        }
        }",
    );
    assert!(likely(&site).contains("does not arrive"));
    site.lab.laptop.nft(
        "table inet own { chain output { type filter hook output priority 0
            udp dport 45123 drop
        }
        }",
    );
    assert!(likely(&site).contains("a firewall on this computer"));
    site.lab.laptop.nft("delete table inet own");
    site.lab.laptop.ip_batch("link set eth0 down\n");
    assert!(likely(&site).contains("not online"));
}

#[test]
fn what_rejects_a_knock_is_told_from_what_drops_it_over_either_family() {
    let site = site("yes");
    let _daemon = site.daemon();
    site.lab.server.nft(
        "table inet mine { chain input { type filter hook input priority 0
            udp dport 45123 reject with icmpx admin-prohibited
        }
        }",
    );
    for to in site.lab.server.addresses() {
        site.lab.name_server(&site.lab.laptop, &[to]);
        let said = site.oneknock(&["doctor", "home"]).out;
        let seen = format!("knock    {to}: a firewall on the way rejects udp/45123");
        assert!(said.contains(&seen), "{said}");
        assert!(likely(&site).contains("a firewall rejects udp/45123"));
    }
}

#[test]
fn a_name_that_has_no_address_is_told_and_so_is_all_else() {
    let site = site("no");
    site.lab.name_server(&site.lab.laptop, &[]);
    let said = site.oneknock(&["doctor", "home"]);
    assert!(said.out.contains("address  none of server.lab: "), "{said}");
    for line in ["profile  home", "not synchronized"] {
        assert!(said.out.contains(line), "{said}");
    }
    assert!(likely(&site).contains("the server's name has no address"));
    site.lab.laptop.ip_batch("link set eth0 down\n");
    assert!(likely(&site).contains("not online"));
}

#[test]
fn of_several_addresses_each_is_tried_and_told_of() {
    let site = site("yes");
    let _daemon = site.daemon();
    let v4 = site.lab.server.v4.into();
    let nobody = "192.0.2.99".parse().unwrap();
    site.lab.name_server(&site.lab.laptop, &[v4, nobody]);
    let said = site.oneknock(&["doctor", "home"]).ok();
    for line in [
        "knock    192.0.2.10: the port opens",
        "knock    192.0.2.99",
        "address  none of IPv6",
        "likely   the port opens, but not at every address",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[test]
fn behind_a_nat_it_says_so_and_what_a_server_that_wants_the_address_makes_of_it() {
    let site = site("yes");
    let _daemon = site.daemon();
    let lab = &site.lab;
    lab.name_server(&lab.laptop, &[lab.server.v4.into()]);
    lab.net.ip_batch(
        "addr add 192.168.7.1/24 dev laptop\n\
         addr add 192.0.2.77/32 dev br0\n",
    );
    lab.net.nft(
        "table ip nat { chain out { type nat hook postrouting priority srcnat
            oifname br0 ip saddr 192.168.7.0/24 snat to 192.0.2.77
        }
        }",
    );
    lab.laptop.ip_batch(
        "addr del 198.51.100.7/24 dev eth0\n\
         addr add 192.168.7.2/24 dev eth0\n\
         route replace default via 192.168.7.1\n",
    );
    let said = site.oneknock(&["doctor", "home"]).ok();
    let seen = "192.0.2.10 from 192.168.7.2, a private address: there is a NAT on the way";
    assert!(
        said.contains(seen) && said.contains("the port opens"),
        "{said}"
    );
    site.ctl(&["revoke", "--all"]).ok();
    site.set(&site.key_file("laptop"), "require_signed_address", "true");
    site.ctl(&["reload", "--yes"]).ok();
    let line = site.ctl(&["key", "invite", "laptop"]).ok();
    let import = ["oneknock", "import", "--name", "strict"];
    lab.laptop.run_with(&import, &line).ok();
    let said = site.oneknock(&["doctor", "strict"]);
    assert_eq!(said.code, Some(1), "{said}");
    let cause = "likely   the server demands this computer's address in the packet";
    assert!(said.out.contains(cause), "{said}");
}

#[test]
fn for_udp_alone_it_knocks_and_says_that_nothing_can_be_seen() {
    let site = Site::with_services(binaries!(), &["game=udp/5000"]);
    let key = site.key("laptop", &["game"]);
    site.import(&site.lab.laptop, &key, "home");
    let _daemon = site.daemon();
    let said = site.oneknock(&["doctor", "home"]).ok();
    assert!(said.contains("192.0.2.10: sent (UDP only"), "{said}");
    assert!(!said.contains("likely"), "{said}");
    let laptop = site.lab.laptop.v4.into();
    wait::until_true("the grant", || site.admits("game", laptop));
    site.lab.laptop.ip_batch("link set eth0 down\n");
    assert!(likely(&site).contains("not online"));
}

#[test]
fn a_clock_that_is_wrong_and_a_service_that_is_down_are_told_apart() {
    let mut site = site("no");
    let _daemon = site.daemon();
    let signal = nix::sys::signal::Signal::SIGTERM;
    site.sshd.running.signal(signal);
    site.sshd.running.end();
    // The knock is taken all the same.
    let said = site.oneknock(&["doctor", "home"]);
    assert!(said.out.contains("not synchronized"), "{said}");
    assert!(
        said.out
            .contains("the service behind the port does not run"),
        "{said}"
    );
    site.lab.server.nft(
        "table inet mine { chain input { type filter hook input priority 0
            udp dport 45123 drop
        }
        }",
    );
    site.ctl(&["revoke", "--all"]).ok();
    assert!(likely(&site).contains("clock is wrong"));
}
