//! The control socket: every verb against a real daemon.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::clock::{self, WallClock};
use oneknock_tests::control::{say, socket, status};
use oneknock_tests::wire::{self, Key, Probe, until_open, until_silent};
use oneknock_tests::{Running, Site, binaries, wait};
use serde_json::{Value, json};
use std::fs;
use std::net::IpAddr;
use std::path::Path;

#[test]
fn status_tells_how_the_daemon_is() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let server: IpAddr = site.lab.server.v4.into();
    let packet = key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 60));
    daemon.expect("granted");
    let to = (server, key.invitation.port).into();
    wire::send(&site.lab.stranger, to, &packet);
    wire::send(&site.lab.stranger, to, b"junk");
    daemon.expect("reason=replayed");
    wait::until_true("the junk is counted", || {
        status(&site)["counters"]["junk"]["kernel"] == 1
    });
    let status = status(&site);
    assert_eq!(status["listen"], json!(["0.0.0.0:45123", "[::]:45123"]));
    assert_eq!(
        (&status["port"], &status["keys"]),
        (&json!(45123), &json!(1))
    );
    assert_eq!(status["skew_seconds"], 30);
    let clock = humantime::parse_rfc3339(status["clock"].as_str().unwrap()).unwrap();
    assert!(clock.elapsed().unwrap_or_default().as_secs() < 60);
    assert_eq!(
        (&status["version"], &status["skipped_keys_truncated"]),
        (&json!(1), &json!(false))
    );
    let guarded = json!([{"name": "ssh", "ports": ["tcp/22"], "grants": 1}]);
    assert_eq!(status["services"], guarded);
    assert_eq!(status["counters"]["accepted"], 1);
    assert_eq!(status["guard"], "exclusive");
    assert_eq!(status["counters"]["ignored"]["replayed"], 1);
    assert_eq!(status["counters"]["refused"]["grant-limit"], 0);
    let words = site.ctl(&["status"]).ok();
    for part in [
        "0.0.0.0:45123",
        "service ssh: tcp/22, grants 1",
        "replayed 1",
    ] {
        assert!(words.contains(part), "{words}");
    }
}

#[test]
fn grants_tells_who_from_where_to_what_and_how_long_still() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    assert_eq!(
        site.ctl(&["grants", "--json"]).json(),
        json!({"version": 1, "grants": [], "sequence": [], "sequence_truncated": false})
    );
    for server in site.lab.server.addresses() {
        key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 600));
        daemon.expect("granted");
    }
    let all = site.ctl(&["grants", "--json"]).json();
    let all = all["grants"].as_array().unwrap();
    let brief: Vec<_> = all
        .iter()
        .map(|g| {
            (
                g["key"].as_str(),
                g["address"].as_str(),
                g["service"].as_str(),
            )
        })
        .collect();
    let want = |address| (Some("laptop"), Some(address), Some("ssh"));
    assert_eq!(brief, [want("198.51.100.7"), want("2001:db8:0:2::7")]);
    let left = |grant: &Value| grant["seconds"].as_u64().unwrap();
    assert!(all.iter().all(|g| (1..=600).contains(&left(g))), "{all:?}");
    wait::until_true("it counts down", || {
        let now = site.ctl(&["grants", "--json"]).json();
        left(&now["grants"][0]) < left(&all[0])
    });
    let table = site.ctl(&["grants"]).ok();
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(
        table.contains("laptop  ") && table.contains("9m"),
        "{table}"
    );
}

/// More than one answer holds.
#[test]
fn a_long_list_of_grants_is_complete() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    site.set(&site.key_file("laptop"), "max_grants", "1000");
    site.set(&site.key_file("laptop"), "knocks_per_minute", "100000");
    site.set(&site.key_file("laptop"), "allow_other_addresses", "true");
    let mut daemon = site.daemon();
    for number in 0..600_u16 {
        let [high, low] = number.to_be_bytes();
        let mut knock = wire::open(Some("ssh"), 600);
        knock.address = Some([198, 18, high, low].into());
        key.knock(&site.lab.laptop, site.lab.server.v4.into(), &knock);
        daemon.expect(&format!("granted address=198.18.{high}.{low} "));
    }
    // Who begins to watch is told of some, and how many more there are.
    let watch = [
        "oneknockctl",
        "--config",
        site.dir.to_str().unwrap(),
        "log",
        "--follow",
    ];
    let mut watch = Running::start("watch", site.lab.server.command(&watch));
    watch.expect("(344 events dropped)");
    assert_eq!(watch.count(" open laptop 198.18."), 256);
    drop(watch);
    let all = site.ctl(&["grants", "--json"]).json();
    let all = all["grants"].as_array().unwrap();
    let mut addresses: Vec<&str> = all.iter().map(|g| g["address"].as_str().unwrap()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!((all.len(), addresses.len()), (600, 600));
    assert_eq!(site.ctl(&["revoke", "--all"]).ok(), "");
    assert_eq!(site.guests("ssh"), []);
}

#[test]
fn reload_says_what_check_would_and_whether_invitations_are_out_of_date() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    let _daemon = site.daemon();
    let said = site.ctl(&["reload"]);
    assert!(!said.err.contains("warning"), "{said}");
    let out_of_date = "existing clients need a new invitation";
    site.set(&site.config(), "host", "\"elsewhere.lab\"");
    oneknock_tests::sequence::configure(&site, &oneknock_tests::sequence::STEPS, "");
    site.set(&site.key_file("laptop"), "require_signed_address", "true");
    let changed = format!("host, the sequence changed: {out_of_date}");
    let refused = site.ctl(&["reload"]).fails(5);
    for part in [
        &*format!("error: not reloaded: {changed}"),
        "reload --confirm 10m",
        "reload --yes",
    ] {
        assert!(refused.contains(part), "{refused}");
    }
    assert_eq!(status(&site)["using_last_good_config"], false);
    let said = site.ctl(&["reload", "--yes"]);
    assert!(
        said.err.contains("key laptop has no port sequence"),
        "{said}"
    );
    let warned = format!("warning: {changed}\n");
    assert!(said.err.contains(&warned), "{said}");
    assert!(said.err.contains("key invite NAME"), "{said}");
    // Once: from then on this is what is in force.
    let said = site.ctl(&["reload"]);
    assert!(!said.err.contains(out_of_date), "{said}");
}

#[test]
fn reload_says_whether_the_daemon_took_it() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let good = fs::read_to_string(site.config()).unwrap();
    fs::write(site.config(), format!("nonsense = 1\n{good}")).unwrap();
    let done = site.ctl(&["reload"]);
    assert_eq!(done.code, Some(3), "{done}");
    assert!(done.err.contains("nonsense: is unknown"), "{done}");
    assert!(done.err.contains("runs on the last good one"), "{done}");
    daemon.expect("not-reloaded");
    let more = "[[service]]\nname = \"web\"\nports = [\"tcp/2222\"]\n";
    fs::write(site.config(), format!("{good}\n{more}")).unwrap();
    let done = site.ctl(&["reload"]);
    assert_eq!(done.code, Some(0), "{done}");
    assert!(done.err.contains("services 2, keys 1"), "{done}");
    let (laptop, server) = (&site.lab.laptop, site.lab.server.v4.into());
    assert_eq!(wire::probe(laptop, server, 2222), Probe::Silent);
    // What cannot change while it runs is said, and nothing is changed.
    fs::write(site.config(), &good).unwrap();
    site.set(&site.config(), "control_group", "\"daemon\"");
    let table = fs::read_to_string(site.config()).unwrap();
    let asked = say(&site, b"{\"v\":1,\"command\":\"reload\"}\n");
    assert!(
        asked.contains("control_group cannot change"),
        "{asked}\n{table}"
    );
}

#[test]
fn revoke_closes_a_keys_an_addresss_or_all_grants() {
    let site = Site::new(binaries!());
    let first = site.key("first", &["ssh"]);
    let second = site.key("second", &["ssh"]);
    let mut daemon = site.daemon();
    let server: IpAddr = site.lab.server.v4.into();
    let (laptop, stranger) = (&site.lab.laptop, &site.lab.stranger);
    let mut open = || {
        for (key, host) in [(&first, laptop), (&second, laptop), (&second, stranger)] {
            key.knock(host, server, &wire::open(Some("ssh"), 600));
            daemon.expect("granted");
        }
    };
    let admits = |host: &oneknock_tests::Host| site.admits("ssh", host.v4.into());
    open();
    let mut session = site.session(&["ssh", "-4", "server.lab"]);
    let done = site.ctl(&["revoke", "first"]);
    assert_eq!(done.code, Some(0), "{done}");
    let still = "198.51.100.7 still has access to ssh by key second";
    assert!(
        done.err.contains("revoked grants: 1") && done.err.contains(still),
        "{done}"
    );
    assert!(admits(laptop) && admits(stranger));
    let done = site.ctl(&["revoke", "198.51.100.7"]);
    assert!(done.err.contains("revoked grants: 1"), "{done}");
    assert!(!admits(laptop) && admits(stranger));
    until_silent(laptop, server, 22);
    until_open(stranger, server, 22);
    // As the help says.
    session.say("hello");
    session.expect("got hello");
    open();
    let done = site.ctl(&["revoke", "--all"]);
    assert!(done.err.contains("revoked grants: 3"), "{done}");
    assert_eq!(site.guests("ssh"), []);
    let done = site.ctl(&["revoke", "--all"]);
    assert!(
        done.code == Some(0) && done.err.contains("revoked grants: 0"),
        "{done}"
    );
    let err = site.ctl(&["revoke", "frist"]).fails(2);
    assert!(err.contains("there is no key frist"), "{err}");
    assert!(err.contains("key list"), "{err}");
    assert_eq!(site.ctl(&["revoke"]).code, Some(2));
    assert_eq!(site.ctl(&["revoke", "first", "--all"]).code, Some(2));
    let history = site.ctl(&["log"]).ok();
    assert_eq!(history.matches("(revoked").count(), 5, "{history}");
    // Neither a reload brings them back, nor a restart where the guard was removed.
    site.ctl(&["reload"]).ok();
    assert_eq!(site.guests("ssh"), []);
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    site.lab.server.nft("delete table inet oneknock");
    let _daemon = site.daemon();
    assert_eq!(site.guests("ssh"), []);
}

#[test]
fn why_says_what_was_the_matter_and_what_to_do() {
    let site = Site::new(binaries!());
    let laptop = site.key("laptop", &["ssh"]);
    let phone = site.key("phone", &["ssh"]);
    site.set(&site.key_file("phone"), "require_signed_address", "true");
    let mut daemon = site.daemon();
    let none = site.ctl(&["log", "--denied"]);
    assert!(none.code == Some(0) && none.out.is_empty(), "{none}");
    assert!(none.err.contains("no knock was denied"), "{none}");
    let server: IpAddr = site.lab.server.v4.into();
    let mut late = wire::open(Some("ssh"), 0);
    late.timestamp.0 -= 14_520_500;
    // Of a minute that is not in force: the daemon cannot tell whose it is.
    let packet = laptop.knock(&site.lab.laptop, server, &late);
    let to = (server, laptop.invitation.port).into();
    wire::send(&site.lab.laptop, to, &packet);
    wire::send(&site.lab.net, to, &[0x5a; 112]);
    wait::until_true("they are counted", || {
        status(&site)["counters"]["junk"]["no-key"] == 3
    });
    phone.knock(&site.lab.stranger, server, &wire::open(Some("ssh"), 0));
    daemon.expect("reason=address-not-signed");

    let all = site.ctl(&["log", "--denied"]);
    assert!(
        all.err.contains("1 packets of no key of this server"),
        "{all}"
    );
    let all = all.ok();
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines.len(), 2, "{all}");
    assert!(lines[1].contains(" phone from 203.0.113.9"), "{all}");
    for part in [
        "laptop from 198.51.100.7",
        "2 times",
        "behind",
        "set the clock",
    ] {
        assert!(lines[0].contains(part), "{all}");
    }
    // Of the packet its minute alone is known.
    assert!(
        ["4h 2m", "4h 3m"]
            .iter()
            .any(|about| lines[0].contains(about)),
        "{all}"
    );
    assert_eq!(
        site.ctl(&["log", "--denied", "phone"]).ok(),
        format!("{}\n", lines[1])
    );
    let of_address = site.ctl(&["log", "--denied", "198.51.100.7"]).ok();
    assert_eq!(of_address, format!("{}\n", lines[0]));
    let of_address = site
        .ctl(&["log", "--denied", "198.51.100.7", "--json"])
        .json();
    let unknown = of_address["unknown"].as_array().unwrap();
    assert_eq!((unknown.len(), &unknown[0]["times"]), (1, &json!(2)));
    assert_eq!(site.ctl(&["log", "--denied", "192.0.2.99"]).ok(), "");
}

#[test]
fn metrics_are_there_with_and_without_a_daemon() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    assert!(site.ctl(&["metrics"]).ok().ends_with("\noneknock_up 0\n"));
    let mut daemon = site.daemon();
    let server: IpAddr = site.lab.server.v4.into();
    key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 60));
    daemon.expect("granted");
    let text = site.ctl(&["metrics"]).ok();
    for line in [
        "oneknock_up 1",
        "oneknock_grants{service=\"ssh\"} 1",
        "oneknock_packets_total{outcome=\"accepted\",reason=\"\"} 1",
        "oneknock_packets_total{outcome=\"refused\",reason=\"grant-limit\"} 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
}

#[test]
fn teardown_is_done_by_the_daemon_which_then_ends() {
    for guard in ["exclusive", "monitored"] {
        let site = Site::new(binaries!());
        site.key("laptop", &["ssh"]);
        site.set(&site.config(), "guard", &format!("\"{guard}\""));
        let mut daemon = site.daemon();
        assert_eq!(status(&site)["guard"], guard);
        let server: IpAddr = site.lab.server.v4.into();
        assert_eq!(site.probe(&site.lab.stranger, server), Probe::Silent);
        let done = site.ctl(&["disable", "--until-reboot"]);
        assert_eq!(done.code, Some(0), "{done}");
        assert!(done.err.contains("stopped oneknockd"), "{done}");
        assert_eq!(daemon.end().code(), Some(0));
        assert_eq!(daemon.count("guard-removed uid=0"), 1);
        let tables = site.lab.server.run(&["nft", "list", "tables"]).ok();
        assert_eq!(tables, "");
        until_open(&site.lab.stranger, server, 22);
        assert!(!socket(&site).exists());
        let again = site.ctl(&["disable", "--until-reboot"]);
        assert_eq!(again.code, Some(0), "{again}");
        assert!(again.err.contains("there was no guard"), "{again}");
    }
}

#[test]
fn a_key_is_in_force_and_out_of_it_when_the_command_returns() {
    let site = Site::new(binaries!());
    let done = site.ctl(&["key", "add", "laptop"]);
    assert!(done.err.contains("oneknockd is not running"), "{done}");
    let mut daemon = site.daemon();
    let added = site.ctl(&["key", "add", "phone"]);
    assert!(added.err.contains("the daemon has reloaded it"), "{added}");
    let line = added.ok();
    let phone = Key {
        invitation: line.parse().unwrap(),
        line,
    };
    let server: IpAddr = site.lab.server.v4.into();
    phone.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 60));
    daemon.expect("granted address=198.51.100.7 key=phone");
    let done = site.ctl(&["key", "remove", "phone", "--force"]);
    assert!(done.err.contains("the daemon has reloaded it"), "{done}");
    assert_eq!(site.guests("ssh"), []);
    // A mistake elsewhere hinders nothing.
    fs::write(site.dir.join("keys/note.toml"), "x").unwrap();
    let done = site.ctl(&["key", "add", "tablet"]);
    assert!(done.err.contains("the daemon has reloaded it"), "{done}");
    assert!(done.ok().starts_with("oneknock1:"));
    assert_eq!(status(&site)["keys"], 2);
}

#[test]
fn without_a_daemon_every_question_says_so() {
    let site = Site::new(binaries!());
    let asks: [&[&str]; 5] = [
        &["status"],
        &["grants"],
        &["reload"],
        &["log", "--denied"],
        &["log", "--follow"],
    ];
    for ask in asks {
        let done = site.ctl(ask);
        assert_eq!(done.code, Some(4), "{done}");
        let socket = socket(&site);
        let want = format!(
            "oneknockd is not running (no answer on {})",
            socket.display()
        );
        assert!(done.err.contains(&want), "{done}");
        assert!(done.err.contains("there is no guard"), "{done}");
    }
    let mut daemon = site.daemon();
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    for ask in [&["status"][..], &["log", "--denied"], &["grants"]] {
        let err = site.ctl(ask).fails(4);
        assert!(err.contains("the guard enforces"), "{err}");
    }
    let listed = site.ctl(&["key", "list"]);
    let want = "no daemon runs; the guard enforces";
    assert!(listed.err.contains(want), "{listed}");
    listed.ok();
}

#[test]
fn a_key_file_that_is_newer_than_what_the_daemon_has_read_is_marked() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    let _daemon = site.daemon();
    let in_force = |site: &Site| {
        let keys = site.ctl(&["key", "list", "--json"]).json();
        let keys = keys["keys"].as_array().unwrap().iter();
        keys.map(|key| key["in_force"].as_bool())
            .collect::<Vec<_>>()
    };
    assert_eq!(in_force(&site), [Some(true)]);
    // As a backup is put back: copied, and nobody told.
    let (file, aside) = (site.key_file("phone"), site.dir.join("phone.toml"));
    site.key("phone", &["ssh"]);
    let copy = |from: &Path, to: &Path| {
        let [from, to] = [from, to].map(|path| path.to_str().unwrap());
        site.lab.server.run(&["cp", "-p", from, to]).ok();
    };
    copy(&file, &aside);
    site.ctl(&["key", "remove", "phone"]).ok();
    copy(&aside, &file);
    assert_eq!(in_force(&site), [Some(true), Some(false)]);
    let listed = site.ctl(&["key", "list"]);
    for part in ["has not loaded", "phone", "reload"] {
        assert!(listed.err.contains(part), "{listed}");
    }
    site.ctl(&["reload"]).ok();
    assert_eq!(in_force(&site), [Some(true), Some(true)]);
    assert_eq!(status(&site)["keys"], 2);
}

#[test]
fn of_a_key_that_is_not_there_it_is_said() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    let _daemon = site.daemon();
    let err = site.ctl(&["log", "--denied", "nobody"]).fails(2);
    assert!(err.contains("there is no key nobody"), "{err}");
    assert!(err.contains("key list"), "{err}");
    site.ctl(&["log", "--denied", "laptop"]).ok();
    let err = site.ctl(&["log", "nobody"]).fails(2);
    assert!(err.contains("there is no key nobody"), "{err}");
    let done = site.ctl(&["log", "laptop"]);
    assert!(
        done.err.contains("note: nothing happened (key laptop)"),
        "{done}"
    );
    let err = site.ctl(&["log", "--since", "7"]).fails(2);
    assert!(err.contains("7d"), "{err}");
}

#[test]
fn what_a_reload_or_a_start_does_to_grants_is_a_line_for_each() {
    let site = Site::new(binaries!());
    let [laptop, phone] = ["laptop", "phone"].map(|name| site.key(name, &["ssh"]));
    let mut daemon = site.daemon();
    let server: IpAddr = site.lab.server.v4.into();
    for key in [&laptop, &phone] {
        key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 600));
        daemon.expect("granted address=");
    }
    site.ctl(&["key", "remove", "phone", "--force"]).ok();
    daemon.expect("revoked address=198.51.100.7 key=phone service=ssh");
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    let mut daemon = site.daemon();
    let line = "restored address=198.51.100.7 key=laptop service=ssh seconds=";
    assert_eq!(daemon.count(line), 1);
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    // Without oneknockctl, which would have shut it.
    fs::remove_file(site.key_file("laptop")).unwrap();
    assert!(site.admits("ssh", site.lab.laptop.v4.into()));
    let daemon = site.daemon();
    let line = "revoked address=198.51.100.7 key=laptop service=ssh";
    assert_eq!(daemon.count(line), 1);
    assert!(!site.admits("ssh", site.lab.laptop.v4.into()));
}

#[test]
fn a_close_is_told_once_though_it_is_sent_twice() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let server: IpAddr = site.lab.server.v4.into();
    let mut closed = 0;
    for _ in 0..2 {
        key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 60));
        daemon.expect("granted");
        for _ in 0..2 {
            key.knock(&site.lab.laptop, server, &wire::close(None));
        }
        closed += 1;
        wait::until_true("both are accepted", || {
            status(&site)["counters"]["accepted"] == 3 * closed
        });
        daemon.expect("closed address=198.51.100.7 key=laptop service=ssh");
        assert_eq!(daemon.count("closed address="), closed);
    }
}

#[test]
fn a_changed_key_file_is_not_said_to_be_loaded_whatever_the_clock_says() {
    // The daemon has read the file at a time that is still to come, or that is long over.
    for offset in [clock::HOUR, -clock::HOUR] {
        let site = Site::new(binaries!());
        site.key("laptop", &["ssh"]);
        let mut wall = WallClock::new(site.lab.dir());
        wall.set(offset);
        let _daemon = site.daemon_by(&wall);
        let in_force = || {
            let keys = site.ctl(&["key", "list", "--json"]).json();
            keys["keys"][0]["in_force"].as_bool()
        };
        assert_eq!(in_force(), Some(true));
        site.set(&site.key_file("laptop"), "max_grants", "7");
        assert_eq!(in_force(), Some(false));
        site.ctl(&["reload"]).ok();
        assert_eq!(in_force(), Some(true));
    }
}
