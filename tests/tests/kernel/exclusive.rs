//! Whose the table is, and what other programs do to it.

use super::shapes::{fixed, plain};
use super::{at, can_own, desired, in_namespace, nft, until_unowned};
use oneknock_shared::port::Transport;
use oneknock_shared::selector::Selector;
use oneknock_tests::table::set_flags;
use oneknockd::engine::Desired;
use oneknockd::kernel::{
    BLOCK_TIME, BlockedSet, ConnectionId, Guard, GuardMode, Kernel, KernelError, RollingStep,
};
use std::time::Duration;

fn exclusive() -> Guard {
    Guard {
        mode: GuardMode::Exclusive,
        ..plain()
    }
}

#[test]
fn exclusive_table_refuses_others_and_outlives_its_process() {
    in_namespace(|| {
        if !can_own() {
            return;
        }
        let mut kernel = Kernel::open().unwrap();
        let installed = kernel.install(&exclusive(), None, at(0), false).unwrap();
        assert!(installed.exclusive && kernel.is_exclusive());
        kernel
            .sync(&mut desired(&[("192.0.2.1", 60)]), at(0))
            .unwrap();
        // It is installed again without being let go.
        kernel.install(&exclusive(), None, at(0), false).unwrap();
        for command in [
            "flush ruleset",
            "delete table inet oneknock",
            "flush set inet oneknock ssh4",
        ] {
            let refused = nft(&["-f", "-"], command);
            // A flush passes over what it may not touch.
            assert!(refused.code == Some(1) || command == "flush ruleset");
            assert!(
                nft(&["list", "table", "inet", "oneknock"], "")
                    .ok()
                    .contains("192.0.2.1"),
                "{command}"
            );
        }
        assert_eq!(kernel.check_tampering().unwrap(), None);
        let mut other = Kernel::open().unwrap();
        let refused = other.install(&exclusive(), None, at(0), false);
        assert!(
            matches!(refused, Err(KernelError::OwnedByAnother)),
            "{refused:?}"
        );
        let refused = other.sync(&mut desired(&[("192.0.2.2", 60)]), at(0));
        assert!(
            matches!(refused, Err(KernelError::OwnedByAnother)),
            "{refused:?}"
        );
        assert!(matches!(other.teardown(), Err(KernelError::OwnedByAnother)));
        let table = other.installed().unwrap().unwrap();
        assert!(table.is_owned && table.is_persistent);
        let ssh = ["ssh".parse().unwrap()];
        assert_eq!(other.allow_entries(&ssh).unwrap().len(), 1);
        // Its process ends.
        drop(kernel);
        until_unowned();
        let with_sequence = Guard {
            sequence: Some(fixed()),
            ..exclusive()
        };
        other.install(&with_sequence, None, at(0), false).unwrap();
        assert!(other.is_exclusive());
        assert_eq!(other.allow_entries(&ssh).unwrap().len(), 1);
    });
}

#[test]
fn mode_changes_without_letting_the_table_go() {
    in_namespace(|| {
        if !can_own() {
            return;
        }
        let mut kernel = Kernel::open().unwrap();
        kernel.install(&exclusive(), None, at(0), false).unwrap();
        kernel
            .sync(&mut desired(&[("192.0.2.1", 60)]), at(0))
            .unwrap();
        let installed = kernel.install(&plain(), None, at(0), false).unwrap();
        assert!(!installed.exclusive);
        until_unowned();
        assert_eq!(kernel.check_tampering().unwrap(), None);
        nft(&["add", "chain", "inet", "oneknock", "evil"], "").ok();
        assert!(kernel.check_tampering().unwrap().is_some());
        kernel.install(&plain(), None, at(0), false).unwrap();
        assert_eq!(kernel.check_tampering().unwrap(), None);
        assert!(
            kernel
                .install(&exclusive(), None, at(0), false)
                .unwrap()
                .exclusive
        );
        assert_eq!(
            kernel
                .allow_entries(&["ssh".parse().unwrap()])
                .unwrap()
                .len(),
            1
        );
        // One that was made otherwise stays monitored.
        kernel.teardown().unwrap();
        kernel.install(&plain(), None, at(0), false).unwrap();
        assert!(
            !kernel
                .install(&exclusive(), None, at(0), false)
                .unwrap()
                .exclusive
        );
        assert_eq!(kernel.check_tampering().unwrap(), None);
    });
}

#[test]
fn tampering_is_found_and_others_tables_are_none() {
    in_namespace(|| {
        let guard = Guard {
            sequence: Some(fixed()),
            enforcing: false,
            ..plain()
        };
        let mut kernel = Kernel::open().unwrap();
        assert!(
            kernel.check_tampering().unwrap().is_some(),
            "nothing installed"
        );
        let changes = [
            ("flush ruleset", "the table is gone"),
            (
                "delete table inet oneknock; table inet oneknock { }",
                "chain guard is gone",
            ),
            (
                "flush chain inet oneknock guard",
                "the rules of chain guard were changed",
            ),
            (
                "insert rule inet oneknock guard accept",
                "the rules of chain guard were changed",
            ),
            (
                "add chain inet oneknock evil",
                "the table, a chain or a set was replaced or added",
            ),
            (
                "add set inet oneknock evil { type mark; }",
                "the table, a chain or a set was replaced or added",
            ),
            (
                "add chain inet oneknock guard { policy drop; }",
                "the table, a chain or a set was replaced or added",
            ),
            (
                "flush chain inet oneknock step; delete chain inet oneknock server-000102030405060708090a0b0c0d0e0f",
                "chain server-000102030405060708090a0b0c0d0e0f is gone",
            ),
        ];
        for (change, what) in changes {
            kernel.install(&guard, None, at(0), false).unwrap();
            nft(
                &["-f", "-"],
                "add table inet foreign; delete table inet foreign",
            )
            .ok();
            assert_eq!(kernel.check_tampering().unwrap(), None);
            let change = change.replace("flush chain inet oneknock step; ", "");
            nft(&["-f", "-"], &change).ok();
            assert_eq!(
                kernel.check_tampering().unwrap().as_deref(),
                Some(what),
                "{change}"
            );
            assert!(
                kernel.check_tampering().unwrap().is_some(),
                "it is said until it is repaired"
            );
        }
        kernel.install(&guard, None, at(0), false).unwrap();
        assert_eq!(set_flags(1), 0);
        assert!(kernel.check_tampering().unwrap().is_some());
        // Whatever is done in between, the own changes are not counted too often.
        kernel.install(&guard, None, at(0), false).unwrap();
        let mut state = desired(&[("192.0.2.1", 60)]);
        kernel.sync(&mut state, at(0)).unwrap();
        nft(
            &["insert", "rule", "inet", "oneknock", "guard", "accept"],
            "",
        )
        .ok();
        assert!(kernel.check_tampering().unwrap().is_some());
    });
}

#[test]
fn own_changes_are_no_tampering() {
    in_namespace(|| {
        let guard = Guard {
            enforcing: false,
            sequence: Some(super::shapes::rolling()),
            ..plain()
        };
        let mut kernel = Kernel::open().unwrap();
        kernel.install(&guard, None, at(0), false).unwrap();
        let mut state = desired(&[("192.0.2.1", 60)]);
        let step = RollingStep {
            at: 1,
            port: 10_000,
            id: 7,
            time: Duration::from_secs(60),
        };
        let connection = ConnectionId {
            transport: Transport::Tcp,
            remote: "192.0.2.9".parse().unwrap(),
            remote_port: 1,
            port: 22,
        };
        let service = "ssh".parse().unwrap();
        for _ in 0..2 {
            let mut none = Desired::default();
            let source =
                |n| oneknockd::engine::Source::of(std::net::Ipv4Addr::new(192, 0, 2, n).into());
            none.set(
                oneknockd::engine::Target {
                    service,
                    source: source(1),
                },
                None,
            );
            kernel.sync(&mut state, at(0)).unwrap();
            kernel.sync(&mut none, at(0)).unwrap();
            kernel
                .fill_prefilter(&[Selector([1; 8])], Duration::from_secs(60))
                .unwrap();
            kernel.begin_trial(Duration::from_secs(60)).unwrap();
            kernel.end_trial().unwrap();
            kernel.change(&[(connection, Some(BLOCK_TIME))]).unwrap();
            kernel.change(&[(connection, None)]).unwrap();
            kernel.roll(&[step]).unwrap();
            kernel.roll(&[]).unwrap();
            kernel
                .block_gateways(&["192.0.2.254".parse().unwrap()])
                .unwrap();
            kernel.block_gateways(&[]).unwrap();
            kernel.revoke_sequence_grants(service, None).unwrap();
            assert_eq!(kernel.check_tampering().unwrap(), None);
        }
    });
}
