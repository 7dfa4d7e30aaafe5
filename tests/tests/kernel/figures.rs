//! How long things take; nothing depends on it.

use super::shapes::{fixed, plain};
use super::{at, desired, in_namespace, target};
use oneknock_shared::selector::Selector;
use oneknock_tests::figure;
use oneknockd::engine::{AllowEntry, Desired};
use oneknockd::kernel::{Guard, GuardMode, Kernel};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn time<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = run();
    figure(format_args!(
        "{what}: {:.3} ms",
        start.elapsed().as_secs_f64() * 1e3
    ));
    done
}

#[test]
fn figures_of_installs() {
    in_namespace(|| {
        for mode in [GuardMode::Monitored, GuardMode::Exclusive] {
            let guard = Guard { mode, ..plain() };
            let open = || {
                let mut kernel = Kernel::open().unwrap();
                kernel.install(&guard, None, at(0), true).unwrap();
                kernel
            };
            let mut kernel = time(
                &format!("{mode:?}: open and first install, one service"),
                open,
            );
            time(&format!("{mode:?}: install again"), || {
                kernel.install(&guard, None, at(0), true).unwrap()
            });
            kernel.teardown().unwrap();
        }
        let addresses: Vec<String> = (0..1_000)
            .map(|n| Ipv4Addr::from(0x0a00_0000 + n).to_string())
            .collect();
        let of: Vec<(&str, u64)> = addresses.iter().map(|ip| (ip.as_str(), 60)).collect();
        let mut state = desired(&of);
        let guard = Guard {
            sequence: Some(fixed()),
            ..plain()
        };
        let mut kernel = time(
            "open and first install, fixed sequence, 1,000 entries",
            || {
                let mut kernel = Kernel::open().unwrap();
                kernel
                    .install(&guard, Some(&mut state), at(0), true)
                    .unwrap();
                kernel
            },
        );
        let selectors: Vec<Selector> = (0..30_000_u64).map(|n| Selector(n.to_be_bytes())).collect();
        let hour = Duration::from_secs(3600);
        time("30,000 selectors, all new", || {
            kernel.fill_prefilter(&selectors, hour).unwrap();
        });
        time("30,000 selectors, renewed", || {
            kernel.fill_prefilter(&selectors, hour).unwrap();
        });
        time("install again over all of it", || {
            kernel
                .install(&guard, Some(&mut state), at(0), true)
                .unwrap()
        });
        let ssh = ["ssh".parse().unwrap()];
        time("list of 1,000 entries", || {
            kernel.allow_entries(&ssh).unwrap()
        });
    });
}

#[test]
fn figures_of_single_writes_and_looks() {
    in_namespace(|| {
        let mut kernel = Kernel::open().unwrap();
        kernel.install(&plain(), None, at(0), false).unwrap();
        let key = Arc::new("laptop".parse().unwrap());
        let mut state = Desired::default();
        let many = 2_000_u32;
        let mut write = |what: &str, kernel: &mut Kernel, minutes: u64, check: bool| {
            let start = Instant::now();
            for n in 0..many {
                let until = at(minutes).mono;
                let entry = AllowEntry {
                    key: Arc::clone(&key),
                    until,
                };
                state.set(
                    target("ssh", &Ipv4Addr::from(0x0a00_0000 + n).to_string()),
                    Some(entry),
                );
                kernel.sync(&mut state, at(0)).unwrap();
                if check {
                    kernel.check_tampering().unwrap();
                }
            }
            let each = start.elapsed() / many;
            figure(format_args!("{what}: {:.2} us", each.as_secs_f64() * 1e6));
        };
        write("one new entry", &mut kernel, 60, false);
        write("one renewed entry", &mut kernel, 61, false);
        write(
            "one renewed entry and a look for tampering",
            &mut kernel,
            62,
            true,
        );
        super::nft(&["add", "table", "inet", "foreign"], "").ok();
        time("a look after another program's change", || {
            kernel.check_tampering().unwrap()
        });
        time("a look after none", || kernel.check_tampering().unwrap());
    });
}
