//! The guard is installed over whatever is there.

use super::shapes::{self, fixed, plain, service};
use super::{at, can_own, desired, in_namespace, listing, minutes, nft, until_unowned};
use oneknock_tests::table::set_flags;
use oneknockd::engine::Desired;
use oneknockd::kernel::{Guard, GuardForm, GuardMode, Kernel, KernelError};
use std::collections::BTreeMap;
use std::time::Duration;

fn kernel_with(guard: &Guard) -> Kernel {
    let mut kernel = Kernel::open().unwrap();
    kernel.install(guard, None, at(0), false).unwrap();
    kernel
}

/// What the kernel admits to ssh, and for how many minutes still.
fn admitted(kernel: &mut Kernel) -> BTreeMap<String, u64> {
    let entries = kernel.allow_entries(&["ssh".parse().unwrap()]).unwrap();
    let entries = entries.into_iter();
    entries
        .map(|e| (e.target.source.to_string(), minutes(e.remaining)))
        .collect()
}

fn map(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
    of.iter().map(|(ip, s)| ((*ip).to_owned(), *s)).collect()
}

#[test]
fn first_install_finds_nothing_and_second_finds_guard() {
    in_namespace(|| {
        let mut kernel = Kernel::open().unwrap();
        assert_eq!(kernel.installed().unwrap(), None);
        let first = kernel.install(&plain(), None, at(0), false).unwrap();
        assert_eq!(first.before, None);
        assert!(first.skipped.is_empty(), "{:?}", first.skipped);
        let second = kernel.install(&plain(), None, at(0), false).unwrap();
        let before = second.before.unwrap();
        assert_eq!(before.form, Some(GuardForm::Enforcing));
        assert_eq!(before.server.unwrap(), plain().server.to_hex());
        assert!(!before.has_fixed_sequence);
        let trial = Guard {
            enforcing: false,
            sequence: Some(fixed()),
            ..plain()
        };
        kernel.install(&trial, None, at(0), false).unwrap();
        let now = kernel.installed().unwrap().unwrap();
        assert_eq!(now.form, Some(GuardForm::Trial));
        assert!(now.has_fixed_sequence);
    });
}

#[test]
fn every_shape_replaces_every_other() {
    in_namespace(|| {
        let mut want = BTreeMap::new();
        let monitored = |guard| Guard {
            mode: GuardMode::Monitored,
            ..guard
        };
        for (name, guard) in shapes::all() {
            let mut kernel = kernel_with(&monitored(guard));
            want.insert(name, listing());
            kernel.teardown().unwrap();
        }
        let mut kernel = Kernel::open().unwrap();
        for (first, from) in shapes::all() {
            for (second, to) in shapes::all() {
                let what = format!("{first} to {second}");
                kernel
                    .install(&monitored(from.clone()), None, at(0), false)
                    .unwrap();
                kernel.install(&monitored(to), None, at(0), false).unwrap();
                assert_eq!(kernel.check_tampering().unwrap(), None, "{what}");
                // Sets that stay, and base chains, are listed before new ones.
                assert_eq!(sorted(&listing()), sorted(&want[second]), "{what}");
            }
        }
    });
}

/// The blocks of a listing, in the order of their text.
fn sorted(listing: &str) -> Vec<&str> {
    let body = listing
        .split_once('\n')
        .unwrap()
        .1
        .strip_suffix("}\n")
        .unwrap();
    let mut blocks: Vec<&str> = body.split("\n\n").map(str::trim_end).collect();
    blocks.sort_unstable();
    blocks
}

#[test]
fn entries_stay_without_desired_state_and_follow_it_with_one() {
    in_namespace(|| {
        let mut kernel = kernel_with(&plain());
        let mut first = desired(&[("192.0.2.1", 60), ("192.0.2.2", 90), ("2001:db8::1", 70)]);
        kernel.sync(&mut first, at(0)).unwrap();
        let held = map(&[("192.0.2.1", 60), ("192.0.2.2", 90), ("2001:db8::1", 70)]);
        assert_eq!(admitted(&mut kernel), held);
        // As at a start before the log is read.
        let mut kernel = kernel_with(&Guard {
            sequence: Some(fixed()),
            ..plain()
        });
        assert_eq!(admitted(&mut kernel), held);
        let mut second = desired(&[("192.0.2.2", 30), ("192.0.2.3", 40), ("192.0.2.4", 0)]);
        kernel
            .install(&plain(), Some(&mut second), at(0), false)
            .unwrap();
        assert!(second.dirty().is_empty());
        assert_eq!(
            admitted(&mut kernel),
            map(&[("192.0.2.2", 30), ("192.0.2.3", 40)])
        );
        kernel
            .install(&plain(), Some(&mut Desired::default()), at(0), false)
            .unwrap();
        assert!(admitted(&mut kernel).is_empty());
    });
}

#[test]
fn thousands_of_entries_are_installed_in_one_batch() {
    in_namespace(|| {
        let many: Vec<(String, u64)> = (0..20_000_u32)
            .map(|n| (std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string(), 600))
            .collect();
        let many: Vec<(&str, u64)> = many.iter().map(|(ip, s)| (ip.as_str(), *s)).collect();
        let mut kernel = Kernel::open().unwrap();
        kernel
            .install(&plain(), Some(&mut desired(&many)), at(0), false)
            .unwrap();
        assert_eq!(admitted(&mut kernel).len(), many.len());
        kernel
            .install(&plain(), Some(&mut desired(&many[..3])), at(0), false)
            .unwrap();
        assert_eq!(admitted(&mut kernel).len(), 3);
    });
}

#[test]
fn foreign_things_in_our_table_are_replaced() {
    in_namespace(|| {
        // Our names for other things, in use by each other; a chain inside a rule; a map of
        // verdicts that leads to a chain of ours; another hook under our chain's name.
        nft(
            &["-f", "-"],
            "table inet oneknock {
            set ssh4 { type inet_service; elements = { 22 } }
            map ssh6 { type ipv6_addr : verdict; elements = { ::1 : jump service-ssh } }
            set grace { type inet_proto; }
            set other { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 } }
            counter hits { }
            chain service-ssh { tcp dport @ssh4 accept; counter name hits; }
            chain guard-input { type filter hook forward priority 0; policy drop; }
            chain prefilter { ip6 saddr vmap @ssh6; jump { tcp dport { 1, 2 } accept; }; }
            chain guard { type filter hook prerouting priority -150; policy drop;
                ip saddr @other jump prefilter; }
            chain evil { type filter hook prerouting priority -151; accept; }
        }",
        )
        .ok();
        let mut kernel = kernel_with(&plain());
        let found = listing();
        nft(&["delete", "table", "inet", "oneknock"], "").ok();
        kernel_with(&plain());
        let found = found.replace("\tcounter hits {\n\t\tpackets 0 bytes 0\n\t}\n\n", "");
        assert_eq!(sorted(&found), sorted(&listing()));
        assert!(
            kernel.check_tampering().unwrap().is_some(),
            "a table made again"
        );
    });
}

#[test]
fn sequence_state_survives_reload_of_same_sequence_only() {
    in_namespace(|| {
        let guard = |open_for| {
            let open_for = Duration::from_secs(open_for);
            Guard {
                sequence: Some(oneknockd::kernel::SequenceGuard {
                    open_for,
                    ..fixed()
                }),
                ..plain()
            }
        };
        let mut kernel = kernel_with(&guard(20));
        nft(
            &["-f", "-"],
            "
            add element inet oneknock penalty_v4 { 192.0.2.1 timeout 60s }
            add element inet oneknock step2_v4 { 192.0.2.2 timeout 60s }
            add element inet oneknock seq_ssh4 { 192.0.2.3 timeout 60s }",
        )
        .ok();
        let has = |set: &str| {
            let set = nft(&["list", "set", "inet", "oneknock", set], "").ok();
            set.contains("192.0.2.")
        };
        let more = service("web", &["tcp/443"]);
        let other_services = Guard {
            services: [plain().services, vec![more]].concat(),
            ..guard(20)
        };
        kernel.install(&other_services, None, at(0), false).unwrap();
        assert_eq!(["penalty_v4", "step2_v4", "seq_ssh4"].map(has), [true; 3]);
        kernel.install(&guard(25), None, at(0), false).unwrap();
        assert_eq!(
            ["penalty_v4", "step2_v4", "seq_ssh4"].map(has),
            [false, false, true]
        );
    });
}

#[test]
fn grace_is_given_only_where_there_was_no_guard() {
    in_namespace(|| {
        let has_grace = || {
            let set = nft(&["list", "set", "inet", "oneknock", "grace"], "").ok();
            set.contains("tcp timeout 1m")
        };
        let mut kernel = kernel_with(&plain());
        kernel.install(&plain(), None, at(0), true).unwrap();
        assert!(!has_grace());
        nft(&["flush", "ruleset"], "").ok();
        kernel.install(&plain(), None, at(0), true).unwrap();
        assert!(has_grace());
        nft(&["-f", "-"], "flush ruleset; table inet oneknock { }").ok();
        kernel.install(&plain(), None, at(0), true).unwrap();
        assert!(has_grace());
    });
}

#[test]
fn guard_of_another_server_is_left_alone() {
    in_namespace(|| {
        let mut first = kernel_with(&plain());
        let other = "//79/Pv6+fj39vX08/Lx8A==".parse().unwrap();
        let other = Guard {
            server: other,
            ..plain()
        };
        let before = listing();
        let refused = Kernel::open().unwrap().install(&other, None, at(0), false);
        assert!(
            matches!(refused, Err(KernelError::ForeignGuard)),
            "{refused:?}"
        );
        assert_eq!(listing(), before);
        assert_eq!(first.check_tampering().unwrap(), None);
        first.teardown().unwrap();
        kernel_with(&other);
    });
}

#[test]
fn dormant_table_is_woken_and_gets_new_base_chains() {
    in_namespace(|| {
        let modes = [GuardMode::Monitored, GuardMode::Exclusive];
        for mode in modes.into_iter().take(if can_own() { 2 } else { 1 }) {
            let guard = Guard { mode, ..plain() };
            drop(kernel_with(&guard));
            until_unowned();
            let flags = if mode == GuardMode::Exclusive { 5 } else { 1 };
            assert_eq!(set_flags(flags), 0);
            assert!(listing().contains("dormant"), "{}", listing());
            let with_sequence = Guard {
                sequence: Some(fixed()),
                ..guard.clone()
            };
            let mut kernel = kernel_with(&with_sequence);
            assert!(!listing().contains("dormant"), "{}", listing());
            assert_eq!(kernel.check_tampering().unwrap(), None);
            assert_eq!(kernel.is_exclusive(), mode == GuardMode::Exclusive);
            kernel.teardown().unwrap();
        }
    });
}
