//! What changes while the guard is installed: allow entries, the trial, blocked connections.

use super::shapes::{plain, service};
use super::{at, can_own, desired, in_namespace, minutes, nft, target, until_unowned};
use oneknock_shared::port::Transport;
use oneknockd::engine::{AllowEntry, Desired};
use oneknockd::kernel::{
    BLOCK_TIME, BlockChange, BlockedSet, ConnectionId, Guard, GuardMode, Kernel, KernelError,
};
use std::sync::Arc;
use std::time::Duration;

fn kernel_with(guard: &Guard) -> Kernel {
    let mut kernel = Kernel::open().unwrap();
    kernel.install(guard, None, at(0), false).unwrap();
    kernel
}

fn two_services() -> Guard {
    let services = [
        plain().services,
        vec![service("mosh", &["udp/60000-61000"])],
    ]
    .concat();
    Guard {
        services,
        ..plain()
    }
}

/// Everything that the kernel admits: service, source, key, minutes.
fn admitted(kernel: &mut Kernel) -> Vec<String> {
    let services = ["ssh".parse().unwrap(), "mosh".parse().unwrap()];
    let entries = kernel.allow_entries(&services).unwrap();
    let mut entries: Vec<String> = entries
        .into_iter()
        .map(|e| {
            let (minutes, target) = (minutes(e.remaining), e.target);
            format!(
                "{} {} {} {minutes}",
                target.service,
                target.source,
                e.key.as_str()
            )
        })
        .collect();
    entries.sort();
    entries
}

fn entry(key: &str, minutes: u64) -> AllowEntry {
    AllowEntry {
        key: Arc::new(key.parse().unwrap()),
        until: at(minutes).mono,
    }
}

/// What a state says that the kernel should admit.
fn wanted(state: &Desired) -> Vec<String> {
    let entries = state.allow().iter().map(|(target, entry)| {
        let minutes = minutes(entry.until.saturating_sub(at(0).mono));
        format!(
            "{} {} {} {minutes}",
            target.service,
            target.source,
            entry.key.as_str()
        )
    });
    let mut entries: Vec<String> = entries.collect();
    entries.sort();
    entries
}

#[test]
fn entries_are_added_renewed_shortened_and_removed() {
    in_namespace(|| {
        let mut kernel = kernel_with(&two_services());
        let mut state = Desired::default();
        kernel.sync(&mut state, at(0)).unwrap();
        let steps = [
            vec![("ssh", "192.0.2.1", Some(entry("phone", 60)))],
            vec![("ssh", "192.0.2.1", Some(entry("laptop", 90)))],
            vec![
                ("ssh", "192.0.2.1", Some(entry("laptop", 20))),
                ("mosh", "2001:db8::1", Some(entry("phone", 30))),
            ],
            vec![
                ("ssh", "192.0.2.1", None),
                ("ssh", "192.0.2.9", None),
                ("ssh", "192.0.2.2", Some(entry("phone", 40))),
            ],
            vec![("mosh", "2001:db8::1", None)],
        ];
        for step in steps {
            for (service, address, entry) in step {
                state.set(target(service, address), entry);
            }
            kernel.sync(&mut state, at(0)).unwrap();
            assert!(state.dirty().is_empty());
            assert_eq!(admitted(&mut kernel), wanted(&state));
        }
    });
}

#[test]
fn entry_whose_time_is_over_is_removed_and_never_permanent() {
    in_namespace(|| {
        let mut kernel = kernel_with(&two_services());
        let mut state = desired(&[("192.0.2.1", 10), ("192.0.2.2", 20)]);
        kernel.sync(&mut state, at(0)).unwrap();
        for minutes in [10, 11] {
            state.set(target("ssh", "192.0.2.1"), Some(entry("laptop", 10)));
            state.set(target("ssh", "192.0.2.3"), Some(entry("laptop", 10)));
            kernel.sync(&mut state, at(minutes)).unwrap();
            assert_eq!(admitted(&mut kernel), ["ssh 192.0.2.2 laptop 20"]);
        }
        // Not even a nanosecond, nor the longest time that can be said.
        let mut state = Desired::default();
        let mut entry = entry("laptop", 10);
        entry.until = at(0).mono + Duration::from_nanos(1);
        state.set(target("ssh", "192.0.2.4"), Some(entry.clone()));
        entry.until = Duration::MAX;
        state.set(target("ssh", "192.0.2.5"), Some(entry));
        kernel.sync(&mut state, at(0)).unwrap();
        let set = nft(&["list", "set", "inet", "oneknock", "ssh4"], "").ok();
        let of = |ip: &str| {
            set.split(ip)
                .nth(1)
                .unwrap()
                .split("192")
                .next()
                .unwrap()
                .to_owned()
        };
        assert!(of("192.0.2.5").contains("timeout"), "{set}");
        assert!(
            !set.contains("192.0.2.4") || of("192.0.2.4").contains("timeout"),
            "{set}"
        );
    });
}

#[test]
fn thousands_of_dirty_targets_are_written_and_removed() {
    in_namespace(|| {
        let mut kernel = kernel_with(&two_services());
        let all: Vec<String> = (0..3_000_u32)
            .map(|n| match n % 2 {
                0 => std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string(),
                _ => std::net::Ipv6Addr::from(u128::from(n) + (1 << 100)).to_string(),
            })
            .collect();
        let all: Vec<(&str, u64)> = all.iter().map(|ip| (ip.as_str(), 600)).collect();
        let mut state = desired(&all);
        kernel.sync(&mut state, at(0)).unwrap();
        assert_eq!(admitted(&mut kernel).len(), all.len());
        for (ip, _) in &all[..2_000] {
            state.set(target("ssh", ip), None);
        }
        kernel.sync(&mut state, at(0)).unwrap();
        assert!(state.dirty().is_empty());
        assert_eq!(admitted(&mut kernel), wanted(&state));
    });
}

/// Both ways: what failed to be written is admitted by nobody, and what failed to be removed
/// is removed later.
#[test]
fn failed_write_stays_dirty_and_later_sync_repairs_it() {
    in_namespace(|| {
        if !can_own() {
            return;
        }
        let mut kernel = kernel_with(&two_services());
        let mut state = desired(&[("192.0.2.1", 60), ("192.0.2.2", 60)]);
        kernel.sync(&mut state, at(0)).unwrap();
        // One that owns the table stands for whatever makes the kernel refuse.
        let exclusive = Guard {
            mode: GuardMode::Exclusive,
            ..two_services()
        };
        kernel.teardown().unwrap();
        let mut owner = kernel_with(&exclusive);
        owner.sync(&mut state.clone(), at(0)).unwrap();
        state.clean_all();
        owner
            .install(&exclusive, Some(&mut state), at(0), false)
            .unwrap();
        let before = admitted(&mut kernel);
        let mut kernel = Kernel::open().unwrap();
        state.set(target("ssh", "192.0.2.1"), None);
        state.set(target("mosh", "192.0.2.3"), Some(entry("phone", 60)));
        let dirty = state.dirty().clone();
        for _ in 0..2 {
            let refused = kernel.sync(&mut state, at(0));
            assert!(
                matches!(refused, Err(KernelError::OwnedByAnother)),
                "{refused:?}"
            );
            assert_eq!(*state.dirty(), dirty);
            assert_eq!(admitted(&mut kernel), before);
        }
        drop(owner);
        until_unowned();
        kernel.sync(&mut state, at(0)).unwrap();
        assert!(state.dirty().is_empty());
        assert_eq!(admitted(&mut kernel), wanted(&state));
    });
}

#[test]
fn missing_set_hinders_no_other_and_install_repairs() {
    in_namespace(|| {
        let mut kernel = kernel_with(&two_services());
        nft(
            &["-f", "-"],
            "flush chain inet oneknock service-mosh; delete set inet oneknock mosh4",
        )
        .ok();
        let mut state = desired(&[("192.0.2.1", 60)]);
        state.set(target("mosh", "192.0.2.1"), Some(entry("phone", 60)));
        for _ in 0..2 {
            let refused = kernel.sync(&mut state, at(0));
            assert!(
                matches!(refused, Err(KernelError::Missing(_))),
                "{refused:?}"
            );
        }
        let left: Vec<_> = state.dirty().iter().copied().collect();
        assert_eq!(left, [target("mosh", "192.0.2.1")]);
        kernel
            .install(&two_services(), Some(&mut state), at(0), false)
            .unwrap();
        assert_eq!(admitted(&mut kernel), wanted(&state));
        // A service that is guarded no longer has nothing to remove.
        kernel
            .install(&plain(), Some(&mut state), at(0), false)
            .unwrap();
        state.set(target("mosh", "192.0.2.1"), None);
        kernel.sync(&mut state, at(0)).unwrap();
        assert!(state.dirty().is_empty());
        nft(&["flush", "ruleset"], "").ok();
        state.set(target("ssh", "192.0.2.7"), Some(entry("phone", 60)));
        let refused = kernel.sync(&mut state, at(0));
        assert!(
            matches!(refused, Err(KernelError::Missing(_))),
            "{refused:?}"
        );
        let services = ["ssh".parse().unwrap()];
        assert!(matches!(
            kernel.allow_entries(&services),
            Err(KernelError::Missing(_))
        ));
    });
}

#[test]
fn process_that_installed_nothing_syncs_and_lists() {
    in_namespace(|| {
        drop(kernel_with(&plain()));
        let mut offline = Kernel::open().unwrap();
        let mut state = desired(&[("192.0.2.1", 60)]);
        offline.sync(&mut state, at(0)).unwrap();
        // What an administrator has added by hand has no key, and is no grant.
        nft(
            &[
                "add",
                "element",
                "inet",
                "oneknock",
                "ssh4",
                "{ 192.0.2.8 timeout 60s }",
            ],
            "",
        )
        .ok();
        assert_eq!(admitted_ssh(&mut offline), 1);
    });
}

fn admitted_ssh(kernel: &mut Kernel) -> usize {
    kernel
        .allow_entries(&["ssh".parse().unwrap()])
        .unwrap()
        .len()
}

#[test]
fn trial_begins_survives_install_and_ends() {
    in_namespace(|| {
        let trial = Guard {
            enforcing: false,
            ..plain()
        };
        let mut kernel = kernel_with(&plain());
        assert!(matches!(
            kernel.begin_trial(Duration::from_secs(60)),
            Err(KernelError::Missing(_))
        ));
        assert_eq!(kernel.trial().unwrap(), None);
        kernel.install(&trial, None, at(0), false).unwrap();
        assert_eq!(kernel.trial().unwrap(), None);
        kernel.begin_trial(Duration::from_secs(60)).unwrap();
        kernel.begin_trial(Duration::from_secs(300)).unwrap();
        let kernel = &mut kernel_with(&trial);
        let state = kernel.trial().unwrap().unwrap();
        assert_eq!(state.length, Duration::from_secs(300));
        assert!(state.remaining > Duration::from_secs(290));
        kernel.end_trial().unwrap();
        assert_eq!(kernel.trial().unwrap(), None);
        // A guard that enforces becomes one on trial, in one batch: no port is open in between.
        kernel.install(&plain(), None, at(0), false).unwrap();
        let minute = Some(Duration::from_secs(60));
        let on_trial = Guard {
            trial: minute,
            ..trial
        };
        kernel.install(&on_trial, None, at(0), false).unwrap();
        assert_eq!(kernel.trial().unwrap().map(|state| state.length), minute);
        // One that goes on keeps its length.
        let shorter = Guard {
            trial: Some(Duration::from_secs(50)),
            ..on_trial
        };
        kernel.install(&shorter, None, at(0), false).unwrap();
        assert_eq!(kernel.trial().unwrap().map(|state| state.length), minute);
        kernel.end_trial().unwrap();
        kernel.begin_trial(Duration::from_secs(60)).unwrap();
        kernel.install(&plain(), None, at(0), false).unwrap();
        assert_eq!(kernel.trial().unwrap(), None);
    });
}

fn blocked(kernel: &mut Kernel) -> Vec<ConnectionId> {
    let blocked = kernel.blocked().unwrap();
    assert!(blocked.iter().all(|(_, left)| !left.is_zero()));
    let mut blocked: Vec<_> = blocked.into_iter().map(|(id, _)| id).collect();
    blocked.sort();
    blocked
}

/// Each for a month.
fn timed(connections: &[ConnectionId]) -> Vec<BlockChange> {
    let timed = |id: &ConnectionId| (*id, Some(BLOCK_TIME));
    connections.iter().map(timed).collect()
}

#[test]
fn connections_are_blocked_listed_and_unblocked() {
    in_namespace(|| {
        let mut kernel = kernel_with(&plain());
        let connection = |transport, remote: &str, port| ConnectionId {
            transport,
            remote: remote.parse().unwrap(),
            remote_port: 50_000,
            port,
        };
        let all = [
            connection(Transport::Tcp, "192.0.2.1", 22),
            connection(Transport::Udp, "192.0.2.1", 53),
            connection(Transport::Udp, "2001:db8::7", 60_000),
        ];
        kernel.change(&[]).unwrap();
        kernel.change(&timed(&all[..2])).unwrap();
        kernel.change(&timed(&all)).unwrap();
        assert_eq!(blocked(&mut kernel), all);
        kernel
            .install(&two_services(), Some(&mut Desired::default()), at(0), false)
            .unwrap();
        assert_eq!(kernel.blocked().unwrap().len(), 3);
        let listed = nft(&["list", "set", "inet", "oneknock", "blocked_v6"], "").ok();
        assert!(
            listed.contains("2001:db8::7 . udp . 50000 . 60000 timeout 30d"),
            "{listed}"
        );
        kernel
            .change(&[all[0], connection(Transport::Tcp, "192.0.2.99", 1)].map(|id| (id, None)))
            .unwrap();
        assert_eq!(blocked(&mut kernel), all[1..]);
    });
}
