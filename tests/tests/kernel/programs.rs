//! Other programs: an nft that hangs, dies or is missing, sets that it dies of, and changes
//! while the kernel is read. Nothing of them matters.

use super::shapes::{self, plain};
use super::{at, desired, in_namespace, nft, target};
use oneknock_tests::{figure, table, wait};
use oneknockd::kernel::{Guard, GuardMode, Kernel};
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Everything that the room does, in the process that [`no_nft_is_started`] runs.
#[test]
#[ignore = "run by no_nft_is_started, with another PATH"]
fn everything_with_this_path() {
    in_namespace(|| {
        for (_, guard) in shapes::all() {
            let mut kernel = Kernel::open().unwrap();
            let mut state = desired(&[("192.0.2.1", 5)]);
            kernel
                .install(&guard, Some(&mut state), at(0), true)
                .unwrap();
            state.set(target("ssh", "192.0.2.1"), None);
            kernel.sync(&mut state, at(0)).unwrap();
            assert_eq!(kernel.check_tampering().unwrap(), None);
            kernel.install(&guard, None, at(0), false).unwrap();
            assert!(kernel.teardown().unwrap());
        }
    });
}

#[test]
fn no_nft_is_started() {
    let directory = tempfile::tempdir().unwrap();
    let marker = directory.path().join("started");
    for body in ["exec sleep 1000", "kill -9 $$", ""] {
        let nft = directory.path().join("nft");
        let script = format!("#!/bin/sh\n: > {}\n{body}\n", marker.display());
        fs::write(&nft, script).unwrap();
        fs::set_permissions(&nft, Permissions::from_mode(0o755)).unwrap();
        if body.is_empty() {
            fs::remove_file(&nft).unwrap();
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "programs::everything_with_this_path",
            ])
            .env("PATH", directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let ended = wait::until("the child ends", || child.try_wait().unwrap());
        assert!(ended.success(), "{body:?}");
        assert!(!marker.exists(), "{body:?}");
    }
}

#[test]
fn foreign_set_that_nft_dies_of_does_not_matter() {
    in_namespace(|| {
        assert_eq!(table::make_newer_set(), 0);
        let by_nft = nft(&["list", "ruleset"], "");
        figure(format_args!(
            "nft with a newer nft's set: status {:?}",
            by_nft.code
        ));
        for (name, guard) in shapes::all() {
            let guard = Guard {
                mode: GuardMode::Monitored,
                ..guard
            };
            let mut kernel = Kernel::open().unwrap();
            kernel.install(&guard, None, at(0), false).unwrap();
            kernel.teardown().unwrap();
            kernel.install(&guard, None, at(0), false).unwrap();
            assert_eq!(kernel.check_tampering().unwrap(), None, "{name}");
            assert!(kernel.installed().unwrap().is_some());
            assert!(kernel.teardown().unwrap());
        }
    });
}

/// A list is read again where it has changed while it was read.
#[test]
fn lists_are_whole_while_others_change_the_ruleset() {
    in_namespace(|| {
        let stay: Vec<String> = (0..4_000_u32)
            .map(|n| std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string())
            .collect();
        let of: Vec<(&str, u64)> = stay.iter().map(|ip| (ip.as_str(), 60)).collect();
        let mut kernel = Kernel::open().unwrap();
        kernel
            .install(&plain(), Some(&mut desired(&of)), at(0), false)
            .unwrap();
        let mut other = Kernel::open().unwrap();
        let change = |is_over: &AtomicBool| {
            let mut number = 0_u32;
            while !is_over.load(Ordering::Relaxed) {
                number = (number + 1) % 2_000;
                let ip = std::net::Ipv4Addr::from(0x1400_0000 + number).to_string();
                other.sync(&mut desired(&[(&ip, 60)]), at(0)).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        let ((), whole) = wait::meanwhile(change, || {
            let mut whole = 0;
            for _ in 0..10 {
                let Ok(listed) = kernel.allow_entries(&["ssh".parse().unwrap()]) else {
                    continue;
                };
                whole += 1;
                let sources = listed.iter().map(|entry| entry.target.source.to_string());
                let sources: BTreeSet<String> = sources.collect();
                assert!(stay.iter().all(|ip| sources.contains(ip)));
                assert_eq!(sources.len(), listed.len());
            }
            whole
        });
        figure(format_args!(
            "lists while others change the ruleset: {whole} of 10 were whole"
        ));
        assert!(whole > 0);
    });
}
