//! The port sequence while it runs.

use super::shapes::{fixed, plain, rolling};
use super::{at, in_namespace, minutes, nft};
use oneknockd::kernel::{Guard, Kernel, RollingStep};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

fn kernel_with(guard: &Guard) -> Kernel {
    let mut kernel = Kernel::open().unwrap();
    kernel.install(guard, None, at(0), false).unwrap();
    kernel
}

#[test]
fn rolling_steps_are_replaced_also_by_others_at_the_same_port() {
    in_namespace(|| {
        let mut kernel = kernel_with(&Guard {
            sequence: Some(rolling()),
            ..plain()
        });
        let step = |at, port, id| RollingStep {
            at,
            port,
            id,
            time: Duration::from_secs(60),
        };
        let listed = |at| {
            nft(
                &["list", "map", "inet", "oneknock", &format!("port_{at}")],
                "",
            )
            .ok()
        };
        kernel
            .roll(&[step(1, 10_000, 7), step(6, 19_999, 7)])
            .unwrap();
        assert!(listed(1).contains("10000 timeout 1m"), "{}", listed(1));
        assert!(listed(1).contains(": 0x00000007"), "{}", listed(1));
        assert!(listed(6).contains("19999 timeout 1m"));
        // The same port with another value, which the kernel refuses as busy by itself.
        kernel
            .roll(&[step(1, 10_000, 8), step(1, 10_000, 9)])
            .unwrap();
        assert!(listed(1).contains(": 0x00000009"), "{}", listed(1));
        assert!(!listed(6).contains("19999"));
        kernel.roll(&[]).unwrap();
        assert!(!listed(1).contains("10000"));
    });
}

#[test]
fn sequence_grants_are_listed_and_revoked() {
    in_namespace(|| {
        let mut kernel = kernel_with(&Guard {
            sequence: Some(fixed()),
            ..plain()
        });
        let ssh = "ssh".parse().unwrap();
        nft(
            &["-f", "-"],
            "
            add element inet oneknock seq_ssh4 { 192.0.2.1 timeout 60s, 192.0.2.2 timeout 60s }
            add element inet oneknock seq_ssh6 { 2001:db8::1 timeout 60s }",
        )
        .ok();
        let addresses = |kernel: &mut Kernel| -> BTreeMap<IpAddr, u64> {
            let grants = kernel.sequence_grants(ssh).unwrap().into_iter();
            grants.map(|(ip, time)| (ip, minutes(time))).collect()
        };
        assert!(addresses(&mut kernel).values().eq(&[1; 3]));
        let one = ["192.0.2.1", "192.0.2.9", "2001:db8::9"].map(|ip| ip.parse().unwrap());
        kernel.revoke_sequence_grants(ssh, Some(&one)).unwrap();
        assert_eq!(addresses(&mut kernel).len(), 2);
        kernel.revoke_sequence_grants(ssh, None).unwrap();
        assert!(addresses(&mut kernel).is_empty());
        kernel.revoke_sequence_grants(ssh, None).unwrap();
        kernel.revoke_sequence_grants(ssh, Some(&[])).unwrap();
    });
}

#[test]
fn gateways_are_blocked_as_they_change() {
    in_namespace(|| {
        let gateway = |ip: &str| ip.parse::<IpAddr>().unwrap();
        let [first, second, sixth] = ["192.0.2.254", "192.0.2.253", "fe80::1"].map(gateway);
        let guard = |gateways: &[IpAddr]| Guard {
            sequence: Some(fixed()),
            blocked_gateways: gateways.into(),
            ..plain()
        };
        let listed = || {
            let sets = ["gateway_v4", "gateway_v6"];
            sets.map(|set| nft(&["list", "set", "inet", "oneknock", set], "").ok())
                .concat()
        };
        let mut kernel = kernel_with(&guard(&[first]));
        assert!(listed().contains("192.0.2.254"));
        kernel.block_gateways(&[second, sixth]).unwrap();
        assert!(listed().contains("192.0.2.253") && listed().contains("fe80::1"));
        assert!(!listed().contains("192.0.2.254"));
        kernel
            .install(&guard(&[first]), None, at(0), false)
            .unwrap();
        assert!(listed().contains("192.0.2.254") && !listed().contains("fe80::1"));
        kernel.block_gateways(&[]).unwrap();
        assert!(!listed().contains("elements"));
        // Where there is no sequence there is nothing to be told.
        kernel.install(&plain(), None, at(0), false).unwrap();
        kernel.block_gateways(&[first]).unwrap();
    });
}
