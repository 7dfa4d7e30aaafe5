//! What a knock costs, in things that can be counted and do not depend on time.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::site::PORT;
use oneknock_tests::wire::{self, until_read};
use oneknock_tests::{Running, Site, binaries, figure, wait};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};

/// What a knock may take, of the daemon's loop: a wake-up, one read, two appends to the log, one
/// batch to the kernel, and its line in the log.
const CALLS: usize = 25;

/// What each append to the spent log is.
const APPEND: &str = "pwrite64(";
/// What begins each batch to nftables.
const BATCH: &str = "nlmsg_type=NFNL_MSG_BATCH_BEGIN";

/// The system calls of the daemon and all that it starts, while `what` runs.
fn calls(site: &Site, daemon: &Running, what: impl FnOnce()) -> Vec<String> {
    let file = site.lab.dir().join("calls");
    let (pid, out) = (daemon.pid().to_string(), file.to_str().unwrap());
    let strace = ["strace", "-f", "-p", &pid, "-o", out];
    let mut strace = Running::start("strace", site.lab.server.command(&strace));
    strace.expect("attached");
    what();
    strace.signal(Signal::SIGINT);
    strace.end();
    let text = fs::read_to_string(&file).unwrap();
    text.lines().map(ToOwned::to_owned).collect()
}

#[test]
fn no_process_is_started_for_a_knock_and_its_calls_are_few() {
    const KNOCKS: usize = 50;
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let daemon = site.daemon();
    let (laptop, server) = (&site.lab.laptop, site.lab.server.v4.into());
    let all = calls(&site, &daemon, || {
        for number in 1..=KNOCKS {
            key.knock(laptop, server, &wire::open(Some("ssh"), 60));
            wait::until_true("it is granted", || daemon.count("granted") == number);
        }
    });
    for start in ["execve(", "clone(", "clone3(", "fork(", "vfork("] {
        let found: Vec<_> = all.iter().filter(|call| call.contains(start)).collect();
        assert!(found.is_empty(), "{found:?}");
    }
    let own = |one: &&String| one.starts_with(&daemon.pid().to_string());
    let per_knock = all.iter().filter(own).count() / KNOCKS;
    figure(format_args!("thrift: {per_knock} system calls for a knock"));
    assert!(per_knock <= CALLS, "{per_knock} system calls for a knock");
    let of = |call: &str| {
        all.iter()
            .filter(own)
            .filter(|one| one.contains(call))
            .count()
    };
    // An append before the grant and one after it; the high-water mark now and then.
    assert!(of(APPEND) <= 2 * KNOCKS + 20, "{}", of(APPEND));
    // What is new is tried first; the same address again takes a second batch.
    assert!(of(BATCH) <= 2 * KNOCKS + 10, "{}", of(BATCH));
    // The loop waits for no disk, but by the mark's own writes.
    let syncs = all.iter().filter(own).filter(|one| one.contains("sync("));
    assert_eq!(syncs.collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn what_arrives_together_is_one_append_and_one_batch() {
    const KNOCKS: usize = 150;
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    site.set(&site.key_file("laptop"), "allow_other_addresses", "true");
    site.set(&site.key_file("laptop"), "max_grants", "1000");
    site.set(&site.key_file("laptop"), "knocks_per_minute", "1000");
    let daemon = site.daemon();
    let (laptop, server) = (&site.lab.laptop, IpAddr::from(site.lab.server.v4));
    let all = calls(&site, &daemon, || {
        daemon.signal(Signal::SIGSTOP);
        for number in 0..u8::try_from(KNOCKS).unwrap() {
            let mut knock = wire::open(Some("ssh"), 100);
            knock.address = Some(Ipv4Addr::new(203, 0, 113, number).into());
            wire::send(laptop, (server, PORT).into(), &key.seal(&knock));
        }
        daemon.signal(Signal::SIGCONT);
        wait::until_true("all are granted", || daemon.count("granted ") == KNOCKS);
    });
    let own = |one: &&String| one.starts_with(&daemon.pid().to_string());
    let of = |call: &str| {
        all.iter()
            .filter(own)
            .filter(|one| one.contains(call))
            .count()
    };
    let (appends, batches) = (of(APPEND), of(BATCH));
    figure(format_args!(
        "thrift: {appends} appends and {batches} batches for {KNOCKS} knocks that waited"
    ));
    // Three reads; the high-water mark and the prefilter may come in between.
    assert!(appends <= 2 * 3 + 6, "{appends} appends");
    assert!(batches <= 3 + 3, "{batches} batches");
}

#[test]
fn junk_that_the_kernel_refuses_makes_the_daemon_do_nothing() {
    const JUNK: usize = 2_000;
    let site = Site::new(binaries!());
    let daemon = site.daemon();
    let server: IpAddr = site.lab.server.v4.into();
    let all = calls(&site, &daemon, || {
        for number in 0..JUNK {
            let mut junk = [0x5a; 112];
            junk[..8].copy_from_slice(&number.to_be_bytes());
            wire::send(&site.lab.stranger, (server, PORT).into(), &junk);
        }
        until_read(&site.lab.server, PORT);
    });
    let reads = all.iter().filter(|call| call.contains("recvmmsg(")).count();
    figure(format_args!(
        "thrift: {reads} reads for {JUNK} packets of junk"
    ));
    assert!(reads < JUNK / 4, "{reads} reads");
}

#[test]
fn grants_that_end_have_no_connection_listed() {
    let site = Site::new(binaries!());
    site.set(&site.config(), "guard", "\"monitored\"");
    let key = site.key("laptop", &["ssh"]);
    let daemon = site.daemon();
    let (laptop, server) = (&site.lab.laptop, site.lab.server.v4.into());
    // What asks for lists of connections: of connection tracking, of sockets.
    let lists = |calls: &[String]| {
        let asks = |call: &&String| {
            ["CTNETLINK", "SOCK_DIAG"]
                .iter()
                .any(|of| call.contains(of))
        };
        calls.iter().filter(asks).count()
    };
    let ended = calls(&site, &daemon, || {
        for number in 1..=3 {
            key.knock(laptop, server, &wire::open(Some("ssh"), 1));
            wait::until_true("it expires", || daemon.count("expired") == number);
        }
        // Of nothing, too.
        key.knock(laptop, server, &wire::close(Some("ssh")));
        wait::until_true("it is closed", || daemon.count("closed") > 0);
    });
    assert_eq!(lists(&ended), 0, "{ended:?}");
    let disconnected = calls(&site, &daemon, || {
        site.ctl(&["revoke", "--all", "--disconnect"]).ok();
    });
    assert!(lists(&disconnected) > 0, "strace shows no lists");
}
