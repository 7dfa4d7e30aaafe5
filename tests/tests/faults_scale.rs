//! Ten thousand keys and a hundred thousand grants: all of them work, and outlive reloads
//! and restarts. How long things take is printed, and decides nothing.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_shared::knock::Timestamp;
use oneknock_shared::packet;
use oneknock_shared::secret::{Secret, Subkeys, random};
use oneknock_tests::clock::{HOUR, WallClock};
use oneknock_tests::site::PORT;
use oneknock_tests::wire::{self, until_read};
use oneknock_tests::{Running, Site, binaries, figure, wait};
use oneknockd::config::{Generation, Policy, key_text};
use oneknockd::files::{KEY_FILE_MODE, Owner};
use std::fmt::Display;
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::{PermissionsExt, chown};
use std::time::{Duration, Instant};

const KEYS: usize = 10_000;
const GRANTS: usize = 100_000;

fn timed<T>(what: impl Display, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    figure(format_args!(
        "scale: {what}: {} ms",
        start.elapsed().as_millis()
    ));
    done
}

/// Waits until a daemon has said so for this many times.
fn until_said(daemon: &Running, text: &str, times: usize) {
    // Slower than any other wait: a hundred thousand lines in a debug build.
    let patience = Instant::now() + Duration::from_secs(120);
    while daemon.count(text) < times && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(daemon.count(text), times, "{text}");
}

/// Puts key files in place, as configuration management would: gives their secrets.
fn add_keys(site: &Site, number: usize) -> Vec<Secret> {
    let owner = Owner::wanted();
    let mut policy = Policy::new(vec!["ssh".parse().unwrap()]);
    policy.allow_other_addresses = true;
    let add = |n: usize| {
        let generation = Generation {
            number: 1,
            secret: Secret::generate().unwrap(),
            made: None,
            not_before: None,
            not_after: None,
            overlap_until: None,
        };
        let file = site.key_file(&format!("key{n:05}"));
        fs::write(
            &file,
            key_text(&policy, std::slice::from_ref(&generation)).as_bytes(),
        )
        .unwrap();
        fs::set_permissions(&file, Permissions::from_mode(KEY_FILE_MODE)).unwrap();
        chown(&file, Some(owner.uid), Some(owner.gid)).unwrap();
        generation.secret
    };
    (0..number).map(add).collect()
}

fn guests(site: &Site) -> usize {
    let list = ["nft", "list", "set", "inet", "oneknock", "ssh4"];
    let listing = site.lab.server.run(&list).ok();
    listing.matches("expires").count()
}

/// Every key knocks for this many addresses of its own, until all are granted.
fn everybody_knocks(site: &Site, daemon: &Running, keys: &[Subkeys], each: usize) {
    let (laptop, server) = (&site.lab.laptop, &site.lab.server);
    let socket = laptop.enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let mut number = 0;
    for some in keys.chunks(20) {
        for key in some {
            for _ in 0..each {
                let mut knock = wire::open(Some("ssh"), 30_000);
                knock.address = Some(Ipv4Addr::from_bits(0x0a00_0001 + number).into());
                let packet = packet::seal(key, &knock, random().unwrap());
                socket.send_to(&packet, (server.v4, PORT)).unwrap();
                number += 1;
            }
        }
        assert_eq!(until_read(server, PORT), 0);
    }
    until_said(daemon, " key=key", keys.len() * each);
}

#[test]
fn ten_thousand_keys_with_a_hundred_thousand_grants() {
    let site = Site::new(binaries!());
    let laptop_key = site.laptop_key();
    let server_id = &laptop_key.invitation.server_id;
    let secrets = timed("making 10,000 keys", || add_keys(&site, KEYS));
    let mut clock = WallClock::new(site.lab.dir());
    let mut daemon = timed("start with 10,000 keys", || site.daemon_by(&clock));
    timed("oneknockctl check", || site.ctl(&["check"]).ok());
    let list = timed("oneknockctl key list", || site.ctl(&["key", "list"]).ok());
    assert_eq!(list.matches("key0").count(), KEYS);
    let open_and_close = || {
        timed("oneknock open", || site.oneknock(&["open", "home"]).ok());
        site.oneknock(&["close", "home"]).ok();
    };
    open_and_close();
    let keys: Vec<_> = secrets
        .iter()
        .map(|s| Subkeys::derive(s, server_id))
        .collect();
    timed("100,000 knocks", || {
        everybody_knocks(&site, &daemon, &keys, GRANTS / KEYS);
    });
    assert_eq!(timed("nft list set", || guests(&site)), GRANTS);
    open_and_close();
    daemon.signal(Signal::SIGHUP);
    timed("reload", || daemon.expect("oneknockd: reloaded"));
    assert_eq!(guests(&site), GRANTS);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let (memory, state) = (daemon.memory(), site.state_size());
        figure(format_args!(
            "scale: {memory} KiB of memory, {state} bytes of state"
        ));
        timed(format_args!("end by {signal}"), || {
            daemon.signal(signal);
            daemon.end();
        });
        daemon = timed("start with 100,000 grants", || site.daemon_by(&clock));
        assert_eq!(guests(&site), GRANTS);
        open_and_close();
    }
    // Every selector is another then.
    clock.jump(HOUR);
    let mut knock = wire::open(Some("ssh"), 600);
    knock.timestamp = Timestamp(clock.now());
    let granted = daemon.count(" key=laptop ");
    laptop_key.knock(&site.lab.laptop, site.lab.server.v4.into(), &knock);
    timed("a knock after the clock has jumped", || {
        wait::until_true("it is granted", || daemon.count(" key=laptop ") > granted);
    });
}
