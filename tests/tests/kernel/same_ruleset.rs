//! The description loaded as text by nft, and over netlink, is the same ruleset.

use super::{at, in_namespace, listing, nft, shapes};
use oneknockd::kernel::{Kernel, ruleset_text, standalone_sequence_text};

/// The table as nft lists it, and the expressions of its rules; without what says which process owns
/// the table.
fn ruleset() -> (String, String) {
    let text = listing();
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("\tflags owner") && !line.is_empty());
    let lines: Vec<&str> = lines
        .map(|l| l.split(" # progname").next().unwrap())
        .collect();
    let list = ["--debug=netlink", "list", "table", "inet", "oneknock"];
    let debug = nft(&list, "").ok();
    let rules = debug.lines().filter(|line| line.starts_with("  [ "));
    let rules: Vec<&str> = rules.collect();
    (lines.join("\n"), rules.join("\n"))
}

#[test]
fn every_shape_loads_by_nft_and_by_netlink_alike() {
    in_namespace(|| {
        for (name, guard) in shapes::all() {
            let text = ruleset_text(&guard);
            nft(&["-c", "-f", "-"], &text).ok();
            nft(&["-f", "-"], &text).ok();
            let by_nft = ruleset();
            nft(&["delete", "table", "inet", "oneknock"], "").ok();
            let mut kernel = Kernel::open().unwrap();
            kernel.install(&guard, None, at(0), false).unwrap();
            let by_netlink = ruleset();
            assert_eq!(by_nft.0, by_netlink.0, "{name}\n{text}");
            assert_eq!(by_nft.1, by_netlink.1, "{name}\n{text}");
            assert!(kernel.teardown().unwrap());
            // What nft lists it takes again.
            nft(&["-c", "-f", "-"], &by_netlink.0).ok();
        }
    });
}

#[test]
fn standalone_sequence_text_loads_again_and_again() {
    in_namespace(|| {
        for (name, guard) in shapes::all() {
            let Some(text) = standalone_sequence_text(&guard) else {
                assert!(!name.starts_with("fixed"), "{name}");
                continue;
            };
            assert!(!Kernel::open().unwrap().has_standalone_sequence().unwrap());
            nft(&["-f", "-"], &text).ok();
            nft(&["-f", "-"], &text).ok();
            assert!(Kernel::open().unwrap().has_standalone_sequence().unwrap());
            let listed = nft(&["list", "table", "inet", "oneknock_sequence"], "").ok();
            assert!(listed.contains("elements = { tcp timeout 1m"), "{listed}");
            nft(&["delete", "table", "inet", "oneknock_sequence"], "").ok();
        }
    });
}
