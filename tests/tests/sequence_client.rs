//! The client walks sequences: as the fallback of a door, and for knocking servers that
//! are not ours.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::capture::Capture;
use oneknock_tests::process::Running;
use oneknock_tests::sequence::{STEPS, configure, is_open};
use oneknock_tests::weather::Weather;
use oneknock_tests::wire::{Probe, banner, probe, until_open};
use oneknock_tests::{Done, Site, binaries, figure, wait};
use std::fs;

const TCP: [&str; 4] = ["tcp/7000", "tcp/8000", "tcp/300", "tcp/9000"];

/// A site with a sequence and a door for it on the laptop.
fn site(steps: &[&str]) -> (Site, Running) {
    let site = Site::new(binaries!());
    configure(&site, steps, "duration = \"1m\"");
    site.laptop_key();
    let daemon = site.daemon();
    (site, daemon)
}

fn kill(daemon: &mut Running) {
    daemon.signal(Signal::SIGKILL);
    daemon.end();
}

#[test]
fn the_sequence_opens_on_demand_and_says_what_it_is() {
    let (site, mut daemon) = site(&STEPS);
    kill(&mut daemon);
    let opened = site.oneknock(&["open", "home", "--via", "sequence"]);
    let said = "warning: home: sending the port sequence (an eavesdropper can replay it)\n";
    assert_eq!(opened.err, said);
    opened.ok();
    // Over every address, whichever was quicker.
    for from in site.lab.laptop.addresses() {
        wait::until_true("it opens", || is_open(&site, from));
    }
    let said = site.lab.laptop.run(&[
        "oneknock",
        "ssh",
        "--via",
        "sequence",
        "home",
        "-F",
        site.sshd.config(),
        "echo in",
    ]);
    assert_eq!(said.ok(), "in\n");
}

const WEAK: &str = "warning: home: no response to the knock; trying the port sequence (an eavesdropper can replay it)";

/// Lets the laptop's profile fall back to its fixed sequence.
fn falls_back(site: &Site) {
    let profile = site
        .lab
        .laptop
        .home
        .join(".config/oneknock/profiles/home.toml");
    site.set(&profile, "fallback", "\"sequence\"");
}

#[test]
fn a_fixed_sequence_is_never_sent_unasked() {
    let (site, mut daemon) = site(&TCP);
    kill(&mut daemon);
    let mut capture = Capture::start(&site.lab.server, "tcp");
    let said = site.oneknock(&["open", "home", "--timeout", "6s"]);
    assert!(!said.err.contains("sequence"), "{said}");
    let _ = said.fails(1);
    capture.expect(".22: Flags [S]");
    for step in TCP {
        let port = step.split_once('/').unwrap().1;
        assert_eq!(capture.count(&format!(".{port}: ")), 0);
    }
}

#[test]
fn where_udp_is_swallowed_the_sequence_comes_after_the_packet_and_says_so() {
    let (site, _daemon) = site(&TCP);
    falls_back(&site);
    site.lab.net.nft(
        "table inet swallow {
            chain forward {
                type filter hook forward priority 0;
                meta l4proto udp drop
            }
        }",
    );
    let opened = site.oneknock(&["open", "home"]);
    assert_eq!(opened.err.matches(WEAK).count(), 1, "{opened}");
    opened.ok();
    assert_eq!(site.guests("ssh"), []);
}

#[test]
fn where_the_daemon_is_dead_plain_ssh_gets_in_by_the_sequence() {
    let plain = |site: &Site| {
        let printed = site.oneknock(&["ssh-config", "home"]).ok();
        let config = site.lab.laptop.home.join("ssh_config");
        let rest = fs::read_to_string(&site.sshd.config).unwrap();
        fs::write(&config, format!("{printed}\n{rest}")).unwrap();
        let ssh = ["ssh", "-F", config.to_str().unwrap(), "home", "echo in"];
        site.lab.laptop.run(&ssh)
    };
    let ours = |site: &Site| site.oneknock_ssh("echo in");
    let ways: [&dyn Fn(&Site) -> Done; 2] = [&plain, &ours];
    for way in ways {
        let (site, mut daemon) = site(&STEPS);
        falls_back(&site);
        kill(&mut daemon);
        let said = way(&site);
        assert_eq!(said.err.matches(WEAK).count(), 1, "{said}");
        assert_eq!(said.ok(), "in\n");
    }
}

#[test]
fn by_the_packet_the_sequence_is_not_touched_and_by_packet_alone_it_never_is() {
    let (site, mut daemon) = site(&TCP);
    let mut capture = Capture::start(&site.lab.server, "tcp");
    let opened = site.oneknock(&["open", "home"]);
    assert_eq!(opened.err, "");
    opened.ok();
    site.ctl(&["revoke", "--all"]).ok();
    kill(&mut daemon);
    let said = site.oneknock(&["open", "home", "--via", "packet", "--timeout", "3s"]);
    assert!(!said.err.contains("sequence"), "{said}");
    let _ = said.fails(1);
    let proxied = site.oneknock(&["proxy", "home", "--via", "packet"]);
    assert!(!proxied.err.contains("sequence"), "{proxied}");
    let _ = proxied.fails(1);
    let ssh = [
        "ssh",
        "--via",
        "packet",
        "home",
        "-F",
        site.sshd.config(),
        "echo in",
    ];
    let ssh = site.oneknock(&ssh);
    assert!(!ssh.err.contains("sequence"), "{ssh}");
    let _ = ssh.fails(255);
    capture.expect(".22: Flags [S]");
    for step in TCP {
        let port = step.split_once('/').unwrap().1;
        assert_eq!(capture.count(&format!(".{port}: ")), 0);
    }
}

#[test]
fn a_door_without_a_sequence_says_so_and_asks_for_a_new_invitation() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let said = site.oneknock(&["open", "home", "--via", "sequence"]);
    let said = said.fails(2);
    assert!(
        said.contains("profile home has no port sequence for ssh"),
        "{said}"
    );
    assert!(said.contains("hint: "), "{said}");
}

#[test]
fn debians_knockd_opens_for_our_client_over_both_protocols_ipv4_and_ipv6() {
    let site = Site::new(binaries!());
    let (laptop, stranger, server) = (&site.lab.laptop, &site.lab.stranger, &site.lab.server);
    server.nft(
        "table inet door {
            set in4 { type ipv4_addr; }
            set in6 { type ipv6_addr; }
            chain input {
                type filter hook input priority 0;
                ct state established accept
                tcp dport 22 ip saddr @in4 accept
                tcp dport 22 ip6 saddr @in6 accept
                tcp dport 22 drop
            }
        }",
    );
    let config = server.home.join("knockd.conf");
    let text = format!(
        "[options]\n  logfile = {}\n[open]\n  sequence = 7000:tcp,8000:udp,300:tcp,9000:udp\n  \
         seq_timeout = 10\n  tcpflags = syn\n  \
         start_command = nft add element inet door in4 {{ %IP% }}\n  \
         start_command_6 = nft add element inet door in6 {{ %IP% }}\n",
        server.home.join("knockd.log").display(),
    );
    fs::write(&config, text).unwrap();
    let knockd = ["knockd", "-v", "-i", "eth0", "-c", config.to_str().unwrap()];
    let mut knockd = Running::start("knockd", server.command(&knockd));
    knockd.expect("listening on eth0");
    let steps = ["7000", "8000/udp", "300", "9000/udp"];
    for (to, family) in server.addresses().into_iter().zip(["-4", "-6"]) {
        assert_eq!(probe(laptop, to, 22), Probe::Silent);
        let walk = ["oneknock", "sequence", family, "server.lab"];
        laptop.run(&[&walk[..], &steps].concat()).ok();
        until_open(laptop, to, 22);
        assert_eq!(banner(laptop, to, 22), "SSH-2.0-");
        assert_eq!(probe(stranger, to, 22), Probe::Silent);
    }
}

/// As people write them by hand: whoever is at a step is an element of a set.
const BY_HAND: &str = "
table inet by_hand {
    set one { type ipv4_addr; flags dynamic,timeout; timeout 5s; }
    set two { type ipv4_addr; flags dynamic,timeout; timeout 5s; }
    set in { type ipv4_addr; flags dynamic,timeout; timeout 1m; }
    set one6 { type ipv6_addr; flags dynamic,timeout; timeout 5s; }
    set two6 { type ipv6_addr; flags dynamic,timeout; timeout 5s; }
    set in6 { type ipv6_addr; flags dynamic,timeout; timeout 1m; }
    chain input {
        type filter hook input priority filter; policy drop;
        iif lo accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        ct state established,related accept
        tcp dport 22 ip saddr @in accept
        tcp dport 22 ip6 saddr @in6 accept
        udp dport 4411 ip saddr @two add @in { ip saddr }
        udp dport 4411 ip6 saddr @two6 add @in6 { ip6 saddr }
        tcp dport 1234 ip saddr @one add @two { ip saddr }
        tcp dport 1234 ip6 saddr @one6 add @two6 { ip6 saddr }
        udp dport 7070 add @one { ip saddr }
        udp dport 7070 add @one6 { ip6 saddr }
    }
}";

#[test]
fn a_knocking_ruleset_written_by_hand_opens_for_our_client_over_ipv4_and_ipv6() {
    let site = Site::new(binaries!());
    let (laptop, stranger, server) = (&site.lab.laptop, &site.lab.stranger, &site.lab.server);
    server.nft(BY_HAND);
    let walk = |order: [&str; 3], family: &str| {
        let call = ["oneknock", "sequence", family, "server.lab"];
        laptop.run(&[&call[..], &order].concat()).ok();
    };
    for (to, family) in server.addresses().into_iter().zip(["-4", "-6"]) {
        walk(["1234", "7070/udp", "4411/udp"], family);
        assert_eq!(probe(laptop, to, 22), Probe::Silent);
        walk(["7070/udp", "1234", "4411/udp"], family);
        until_open(laptop, to, 22);
        assert_eq!(banner(laptop, to, 22), "SSH-2.0-");
        assert_eq!(probe(stranger, to, 22), Probe::Silent);
    }
}

#[test]
fn over_a_link_that_loses_ten_percent_and_reorders_a_walk_nearly_always_opens() {
    const ROUNDS: usize = 10;
    let (site, mut daemon) = site(&STEPS);
    let rules = site.ctl(&["debug", "rules", "--sequence-only"]).ok();
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    site.ctl(&["disable", "--until-reboot"]).ok();
    let _weather = Weather::bad(&site.lab.net, &["laptop", "br0"], 10);
    let mut opened = 0;
    for _ in 0..ROUNDS {
        // Nobody has walked yet.
        site.lab.server.nft(&rules);
        let said = site.oneknock(&["open", "home", "--via", "sequence"]);
        opened += usize::from(said.code == Some(0));
    }
    figure(format_args!(
        "loss 10 %: {opened} of {ROUNDS} walks of 4 steps opened at once"
    ));
    assert!(opened * 10 >= ROUNDS * 8, "{opened}");
}

#[test]
fn a_walk_whose_last_step_is_lost_is_completed_by_the_next() {
    let (site, mut daemon) = site(&STEPS);
    kill(&mut daemon);
    // An empty datagram has 28 bytes, and each step is sent three times.
    site.lab.net.nft(
        "table inet loses {
            chain forward {
                type filter hook forward priority 0;
                udp dport 9000 quota until 84 bytes counter drop
            }
        }",
    );
    site.oneknock(&["open", "home", "-4", "--via", "sequence"])
        .ok();
    let lost = site.lab.net.run(&["nft", "list", "ruleset"]).ok();
    assert!(lost.contains("counter packets 3 "), "{lost}");
    assert!(is_open(&site, site.lab.laptop.v4.into()));
}

#[test]
fn a_host_that_rejects_a_step_sees_the_next_one_all_the_same() {
    let site = Site::new(binaries!());
    let mut capture = Capture::start(&site.lab.server, "tcp");
    for (number, reject) in (1..).zip(["no-route", "admin-prohibited", "host-unreachable"]) {
        let port = |n: u16| (7000 + 10 * number + n).to_string();
        site.lab.server.nft(&format!(
            "table inet rejects
            delete table inet rejects
            table inet rejects {{
                chain input {{
                    type filter hook input priority 0;
                    tcp dport 7000-7999 reject with icmpx {reject}
                }}
            }}"
        ));
        for family in ["-4", "-6"] {
            let steps = [port(3), port(1), port(2)];
            let walk = ["oneknock", "sequence", family, "server.lab"].map(String::from);
            site.lab.laptop.run(&[&walk[..], &steps].concat()).ok();
            for step in steps {
                capture.expect(&format!(".{step}: Flags [S]"));
            }
        }
    }
}

#[test]
fn a_sequence_that_cannot_be_sent_anywhere_is_an_error() {
    let site = Site::new(binaries!());
    site.lab.laptop.ip_batch("link set eth0 down\n");
    let said = site.oneknock(&["sequence", "192.0.2.10", "7000", "8000/udp"]);
    assert!(said.fails(1).contains("could be sent"));
}
