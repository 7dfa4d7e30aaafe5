//! `oneknockctl doctor`: each finding produced for real, and recognised.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::{Done, Site, binaries};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

/// A site on a machine whose clock is right, and its key.
fn site(clock: &str) -> Site {
    let site = Site::new(binaries!());
    site.laptop_key();
    let program = site.lab.dir().join("bin/timedatectl");
    fs::write(&program, format!("#!/bin/sh\n{clock}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    site
}

fn doctor(site: &Site) -> Done {
    site.ctl(&["doctor"])
}

/// Of the findings those that are about rules.
fn about_rules(site: &Site) -> Vec<String> {
    let said = doctor(site);
    let lines = said.out.lines();
    let about = lines.filter(|line| line.contains(": table ") || line.contains("cannot be tried"));
    about.map(str::to_owned).collect()
}

#[test]
fn a_ruleset_that_stops_knocks_or_guests_is_found_by_trying_it() {
    let site = site("echo yes");
    let _daemon = site.daemon();
    assert_eq!(about_rules(&site), Vec::<String>::new());
    let nft = |text: &str| site.lab.server.nft(text);
    // What one would write who knows of ssh alone.
    nft(
        "table inet mine { chain input { type filter hook input priority 0; policy drop;
            ct state established,related accept; iif lo accept
            meta l4proto icmpv6 accept; tcp dport 22 accept
        }
        }",
    );
    let found = about_rules(&site);
    assert_eq!(found.len(), 2, "{found:?}");
    for (finding, family) in found.iter().zip(["IPv4", "IPv6"]) {
        assert!(
            finding.starts_with("error: knocks do not arrive"),
            "{found:?}"
        );
        assert!(finding.contains("table inet mine"), "{found:?}");
        assert!(
            finding.ends_with(&format!("blocks udp/45123 over {family}")),
            "{found:?}"
        );
    }
    let said = doctor(&site);
    assert!(
        said.out
            .contains("hint: add a rule that accepts udp dport 45123"),
        "{said}"
    );
    // A knock is not tracked: it is in no state that this one asks for.
    nft("add rule inet mine input ct state new udp dport 45123 accept");
    assert_eq!(about_rules(&site).len(), 2);
    nft("add rule inet mine input udp dport 45123 accept");
    assert_eq!(about_rules(&site), Vec::<String>::new());

    // Of ssh, but over IPv4 alone, from home alone, and rejected.
    nft(
        "table ip other { chain input { type filter hook input priority 10; policy accept;
            ip saddr != 192.168.0.0/16 tcp dport 22 reject
        }
        }",
    );
    let found = about_rules(&site);
    assert_eq!(found.len(), 1, "{found:?}");
    let what = "service ssh cannot be reached with a grant: table ip other";
    assert!(
        found[0].contains(what) && found[0].ends_with("tcp/22 over IPv4"),
        "{found:?}"
    );
    nft("delete table ip other");

    // One whose rules are for the link that the machine has.
    nft(
        "table inet link { chain input { type filter hook input priority 20; policy accept;
            iifname \"eth0\" udp dport 45123 drop
        }
        }",
    );
    let found = about_rules(&site);
    assert!(
        found.iter().all(|f| f.contains("table inet link")),
        "{found:?}"
    );
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_port_that_is_passed_on_unguarded_and_ipv6_without_rules_are_found() {
    let site = site("echo yes");
    let _daemon = site.daemon();
    let quiet = doctor(&site);
    assert!(
        !quiet.out.contains("forwarded") && !quiet.out.contains("over IPv6"),
        "{quiet}"
    );
    site.lab.server.nft(
        "table ip nat { chain prerouting { type nat hook prerouting priority dstnat
            tcp dport 8080 dnat to 198.18.0.2:80
            tcp dport 22 dnat to 198.18.0.2:22
        }
        }
        table ip filter { chain input { type filter hook input priority 0; policy drop
            udp dport 45123 accept
            tcp dport 22 accept
        }
        }",
    );
    let said = doctor(&site);
    assert!(said.out.contains("note: tcp/8080 is forwarded"), "{said}");
    let guarded =
        "note: tcp/22 is forwarded to a container or another host, and guarded by service ssh";
    assert!(said.out.contains(guarded), "{said}");
    assert!(
        said.out
            .contains("note: this machine's own rules allow over IPv6"),
        "{said}"
    );
    site.lab.server.nft(
        "table ip6 filter { chain input { type filter hook input priority 0; policy drop
            meta l4proto icmpv6 accept
            udp dport 45123 accept
            tcp dport 22 accept
        }
        }",
    );
    let said = doctor(&site);
    assert!(!said.out.contains("over IPv6"), "{said}");
}

#[test]
fn rules_of_iptables_are_tried_and_what_they_pass_on_is_told_of_either_kind() {
    let site = site("echo yes");
    let _daemon = site.daemon();
    let run = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        site.lab.server.run(&words).ok();
    };
    for (kind, port) in [("nft", "8081"), ("legacy", "8082")] {
        // As Docker writes it.
        run(&format!(
            "iptables-{kind} -t nat -A PREROUTING -p tcp --dport {port} -j DNAT --to-destination 198.18.0.2:80"
        ));
        let said = doctor(&site);
        let passed_on = format!("note: tcp/{port} is forwarded");
        assert!(said.out.contains(&passed_on), "{said}");
        assert!(!said.out.contains("cannot be tried"), "{said}");
        let rule = "INPUT -p udp --dport 45123 -j DROP";
        run(&format!("iptables-{kind} -A {rule}"));
        let found = about_rules(&site);
        assert_eq!(found.len(), 1, "{found:?}");
        let what = "error: knocks do not arrive: table ip filter (";
        assert!(found[0].starts_with(what), "{found:?}");
        assert!(
            found[0].ends_with("blocks udp/45123 over IPv4"),
            "{found:?}"
        );
        assert_eq!(found[0].contains("(iptables-legacy)"), kind == "legacy");
        run(&format!("iptables-{kind} -D {rule}"));
    }
    run("ip6tables-legacy -A INPUT -p tcp --dport 22 -j REJECT");
    let found = about_rules(&site);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("table ip6 filter (iptables-legacy)"));
    // What cannot be read is said, and the rest is tried.
    let program = site.lab.dir().join("bin/ip6tables-legacy-save");
    fs::write(&program, "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    run("iptables-nft -A INPUT -p udp --dport 45123 -j DROP");
    let said = doctor(&site);
    let unread = "error: table ip6 filter cannot be read";
    let about = about_rules(&site);
    assert!(about.iter().any(|f| f.starts_with(unread)), "{said}");
    assert_eq!(about.len(), 2, "{said}");
}

#[test]
fn each_family_is_tried_over_its_own_link_and_none_is_said() {
    let site = site("echo yes");
    let _daemon = site.daemon();
    let server = &site.lab.server;
    server.ip_batch(
        "link add six0 type bridge\n\
         link set six0 up\n\
         addr add 2001:db8:0:66::1/64 dev six0 nodad\n",
    );
    let route = ["ip", "-6", "route", "replace", "default", "dev", "six0"];
    server.run(&route).ok();
    server.nft(
        "table inet link { chain input { type filter hook input priority 0; policy accept;
            iifname \"six0\" udp dport 45123 drop
        }
        }",
    );
    let found = about_rules(&site);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].ends_with("blocks udp/45123 over IPv6"),
        "{found:?}"
    );
    server.ip_batch("link delete six0\naddr flush dev eth0\n");
    let found = about_rules(&site);
    let untried = "error: table inet link cannot be tried: this machine has no address yet";
    assert_eq!(found, [untried]);
}

#[test]
fn a_kernel_and_an_nft_that_are_too_old_are_found_with_what_is_needed() {
    let site = site("echo yes");
    let _daemon = site.daemon();
    let program = site.lab.dir().join("bin/nft");
    let text = "#!/bin/sh\n[ \"$1\" = --version ] && echo 'nftables v0.9.8 (E.D.S.)' || exec /usr/sbin/nft \"$@\"\n";
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let dir = site.dir.to_str().unwrap();
    let call = ["setarch", "--uname-2.6", "oneknockctl", "doctor"];
    let said = site
        .lab
        .server
        .run(&[&call[..], &["--config", dir]].concat());
    for line in [
        "warning: nft is too old to show the guard's ruleset: nftables v0.9.8",
        "hint: install nftables 1.0.6 or later",
        "error: the kernel is too old for the guard: 2.6.",
        "hint: Linux 5.6 or later",
    ] {
        assert!(said.out.contains(line), "{line}: {said}");
    }
}

#[test]
fn the_examination_leaves_nothing_behind() {
    let site = site("echo yes");
    let _daemon = site.daemon();
    let state = || {
        let links = site.lab.server.run(&["ip", "-brief", "address"]).ok();
        let rules = site
            .lab
            .server
            .run(&["nft", "--stateless", "list", "ruleset"]);
        (links, rules.ok())
    };
    let before = state();
    let _ = doctor(&site);
    assert_eq!(state(), before);
    assert!(
        !fs::read_to_string("/proc/net/dev")
            .unwrap()
            .contains("world")
    );
}

#[test]
fn what_the_machine_itself_lacks_is_found() {
    let site = site("echo no");
    let said = doctor(&site);
    assert_eq!(said.code, Some(1), "{said}");
    assert!(
        said.out.contains("error: oneknockd is not running"),
        "{said}"
    );
    assert!(
        said.out.contains("error: the clock is not synchronized"),
        "{said}"
    );
    assert!(!said.out.contains("nothing listens"), "{said}");
    let _daemon = site.daemon();
    site.set_service("ports", "[\"tcp/22\", \"tcp/8443\", \"udp/60000-61000\"]");
    let text = fs::read_to_string(site.config()).unwrap();
    let text = text.replace("\nports = [\"tcp/22\"]\n", "\n");
    fs::write(site.config(), text).unwrap();
    let said = doctor(&site);
    let silent = "service ssh: nothing listens on tcp/8443";
    assert!(said.out.contains(silent), "{said}");
    let here = |port| {
        site.lab
            .server
            .enter(|| TcpListener::bind(("127.0.0.1", port)))
    };
    let _listener = here(8443).unwrap();
    let alone = "service ssh: only loopback listens on tcp/8443";
    let listened = doctor(&site);
    assert!(listened.out.contains(alone), "{listened}");
    assert!(
        !said.out.contains("60000") && !said.out.contains("not running"),
        "{said}"
    );
    assert!(!said.out.contains("no address of this machine"), "{said}");
    let listen = "[\"192.0.2.10:45123\", \"192.0.2.99:45123\"]";
    site.set(&site.config(), "listen", listen);
    let said = doctor(&site);
    let wrong = "error: listen: 192.0.2.99 is no address of this machine";
    assert!(said.out.contains(wrong), "{said}");
    assert!(!said.out.contains("192.0.2.10 is no"), "{said}");
}

#[test]
fn a_key_file_with_a_loose_mode_is_told_and_the_machine_is_examined_all_the_same() {
    let site = site("echo no");
    let file = site.key_file("laptop");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let said = doctor(&site);
    assert!(said.out.contains("not synchronized"), "{said}");
    assert!(said.out.contains("chmod 0640"), "{said}");
    said.fails(3);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    // Where nobody can say what the guard should be, that is all.
    let good = fs::read_to_string(site.config()).unwrap();
    let broken = || fs::write(site.config(), "listen = [").unwrap();
    broken();
    let said = doctor(&site);
    assert_eq!(said.code, Some(3), "{said}");
    assert!(!said.out.contains("service"), "{said}");
    fs::write(site.config(), good).unwrap();
    let _daemon = site.daemon();
    broken();
    let said = doctor(&site);
    assert!(said.out.contains("not synchronized"), "{said}");
    assert!(said.out.contains("oneknockd.toml:1"), "{said}");
    said.fails(3);
}

#[test]
fn a_guard_that_is_down_and_a_key_whose_time_is_over_are_found() {
    let site = site("echo yes");
    let daemon = site.daemon();
    let said = doctor(&site);
    assert!(!said.out.contains("not installed"), "{said}");
    drop(daemon);
    site.lab.server.nft("delete table inet oneknock");
    let file = site.key_file("laptop");
    let text = fs::read_to_string(&file).unwrap();
    let header = "[[generation]]\n";
    let over = format!("{header}not_after = 2020-01-01T00:00:00Z\n");
    fs::write(&file, text.replace(header, &over)).unwrap();
    let said = doctor(&site);
    let down = "error: the guard is not installed: anyone can reach the guarded ports";
    assert!(said.out.contains(down), "{said}");
    assert!(said.out.contains("error: there is no valid key"), "{said}");
}

#[test]
fn before_the_guard_was_ever_up_the_way_is_a_key_and_then_a_trial() {
    let site = Site::not_enabled(binaries!());
    for call in [
        &["status"][..],
        &["grants"],
        &["log", "--denied"],
        &["reload"],
    ] {
        let said = site.ctl(call).fails(4);
        let hint = "hint: to enforce, on trial at first: oneknockctl";
        assert!(said.contains(hint), "{said}");
    }
    let said = doctor(&site);
    let mends: Vec<&str> = said
        .out
        .lines()
        .filter_map(|line| line.strip_prefix("hint: "))
        .collect();
    assert!(mends[0].ends_with("key add laptop"), "{said}");
    assert!(mends[1].ends_with("enable --confirm 10m"), "{said}");
    assert!(!said.out.contains("systemctl start"), "{said}");
    let said = site.ctl(&["check"]);
    assert!(said.out.contains("error: there is no valid key"), "{said}");
    // Who has it enforce all the same is told what that means.
    fs::write(site.enabled(), "").unwrap();
    let mut daemon = site.daemon_unready();
    daemon.expect("ready");
    daemon.expect("no-key");
    site.laptop_key();
    let said = site.ctl(&["key", "remove", "laptop"]);
    assert!(said.err.contains("no one can knock any more"), "{said}");
}

#[test]
fn a_state_that_is_lost_and_a_trial_that_is_over_are_errors() {
    let site = site("echo no");
    fs::remove_file(site.enabled()).unwrap();
    fs::remove_dir_all(site.state()).unwrap();
    fs::create_dir(site.state()).unwrap();
    let mut daemon = site.daemon_unready();
    daemon.expect("ready");
    let said = doctor(&site);
    let lost =
        "error: all knocks are rejected until the clock is synchronized (the replay log was lost)";
    assert!(said.out.contains(lost), "{said}");
    assert!(said.out.contains("debug reset-state"), "{said}");
    let over = "error: not enforcing: anyone can reach the guarded ports";
    assert!(said.out.contains(over), "{said}");
    assert!(!said.out.contains("goes down by itself"), "{said}");
}

#[test]
fn where_the_daemon_hangs_the_machine_is_examined_all_the_same() {
    let site = site("echo no");
    let daemon = site.daemon();
    daemon.signal(nix::sys::signal::Signal::SIGSTOP);
    let said = doctor(&site);
    assert_eq!(said.code, Some(1), "{said}");
    assert!(
        said.out.contains("error: oneknockd does not answer: "),
        "{said}"
    );
    assert!(said.out.contains("not synchronized"), "{said}");
}
