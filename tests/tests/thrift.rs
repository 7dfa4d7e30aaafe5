//! What a knock costs, in things that can be counted and do not depend on time.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::site::PORT;
use oneknock_tests::wire::{self, until_read};
use oneknock_tests::{Running, Site, binaries, figure, wait};
use std::fs;

/// What a knock may take: a wake-up, one read, the ledger's commit, one batch to the kernel,
/// and its line in the log.
const CALLS: usize = 45;

/// The system calls of the daemon and all that it starts, while `what` runs.
fn calls(site: &Site, daemon: &Running, what: impl FnOnce()) -> Vec<String> {
    let file = site.lab.dir().join("calls");
    let (pid, out) = (daemon.pid().to_string(), file.to_str().unwrap());
    let strace = ["strace", "-f", "-p", &pid, "-o", out];
    let mut strace = Running::start("strace", site.lab.server.command(&strace));
    strace.expect("attached");
    what();
    strace.signal(nix::sys::signal::Signal::SIGINT);
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
    let per_knock = all.len() / KNOCKS;
    figure(format_args!("thrift: {per_knock} system calls for a knock"));
    assert!(per_knock <= CALLS, "{per_knock} system calls for a knock");
}

#[test]
fn junk_that_the_kernel_refuses_makes_the_daemon_do_nothing() {
    const JUNK: usize = 2_000;
    let site = Site::new(binaries!());
    let daemon = site.daemon();
    let server: std::net::IpAddr = site.lab.server.v4.into();
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
