//! The kernel room against a real kernel, each test in a network namespace of its own. As
//! root.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test's panic is its verdict.

mod exclusive;
mod figures;
mod install;
mod packets;
mod prefilter;
mod programs;
mod same_ruleset;
mod sequence;
mod shapes;
mod state;

use nix::sched::{CloneFlags, unshare};
use oneknock_shared::knock::Timestamp;
use oneknock_tests::{Done, figure, wait};
use oneknockd::engine::{AllowEntry, Desired, Now, Source, Target};
use oneknockd::kernel::{Guard, GuardMode, Kernel};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Runs a test in a network namespace of its own, and what it starts too.
fn in_namespace(test: impl FnOnce() + Send) {
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: run this as root");
        test();
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(inside);
        let ended = thread.join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Runs nft in the namespace of this thread.
fn nft(args: &[&str], input: &str) -> Done {
    let mut command = Command::new("nft");
    command.args(args).env("LC_ALL", "C");
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Done {
        called: format!("nft {}", args.join(" ")),
        code: output.status.code(),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}

/// The table as nft lists it.
fn listing() -> String {
    nft(&["list", "table", "inet", "oneknock"], "").ok()
}

/// So many minutes after a point in time. Minutes, so that a slow machine tells them apart.
fn at(minutes: u64) -> Now {
    Now {
        wall: Timestamp(1_800_000_000_000 + minutes * 60_000),
        mono: Duration::from_secs(1_000 + 60 * minutes),
    }
}

/// What remains, in minutes, rounded up.
fn minutes(remaining: Duration) -> u64 {
    remaining.as_secs().div_ceil(60)
}

/// Whether this kernel (6.9 and later) can keep other programs off a table; to be asked in a
/// namespace without a guard. Where it cannot, that is said.
fn can_own() -> bool {
    let guard = Guard {
        mode: GuardMode::Exclusive,
        ..shapes::plain()
    };
    let mut kernel = Kernel::open().unwrap();
    let installed = kernel.install(&guard, None, at(0), false).unwrap();
    assert_eq!(installed.exclusive, kernel.is_exclusive());
    assert!(kernel.teardown().unwrap());
    if !installed.exclusive {
        figure("this kernel cannot keep other programs off a table: that is not tried");
    }
    installed.exclusive
}

/// Waits until nothing owns the table, after its owner's socket was closed: a process that
/// is being started beside this test may have a copy of it for a moment.
fn until_unowned() {
    let mut kernel = Kernel::open().unwrap();
    wait::until_true("nothing owns the table", || {
        !kernel
            .installed()
            .unwrap()
            .is_some_and(|table| table.is_owned)
    });
}

/// A state in which these addresses may reach ssh, for so many minutes from `at(0)`.
fn desired(of: &[(&str, u64)]) -> Desired {
    let mut desired = Desired::default();
    let key = Arc::new("laptop".parse().unwrap());
    for (address, minutes) in of {
        let entry = AllowEntry {
            key: Arc::clone(&key),
            until: at(*minutes).mono,
        };
        desired.set(target("ssh", address), Some(entry));
    }
    desired
}

fn target(service: &str, address: &str) -> Target {
    Target {
        service: service.parse().unwrap(),
        source: address.parse::<Source>().unwrap(),
    }
}
