//! Sets, chains and first elements as messages. The user data are nft 1.0.6's own.

use super::super::*;
use crate::kernel::netlink::{Batch, tests::messages};
use std::time::Duration;

fn added(set: &Set) -> String {
    let mut batch = Batch::new();
    set.add(&mut batch, "t");
    messages(batch).remove(0)
}

#[test]
fn sets_are_these_messages() {
    let timed = Set::timed("ssh4", "ipv4_addr");
    let want = "9 0x405 1=7400 2=\"ssh4\" 3=00000010 4=00000007 5=00000004 10=00000000 \
                13=000402000000";
    assert_eq!(added(&timed), want);
    let key = "ipv6_addr . inet_proto . inet_service";
    let dynamic = Set::dynamic("done", key, 65_536);
    let want = "9 0x405 1=7400 2=\"done\" 3=00000030 4=0000830d 5=00000018 10=00000000 \
                9[1=00010000] 13=000400000000";
    assert_eq!(added(&dynamic), want);
    let map = Set {
        size: 1_024,
        ..Set::timed("port", "inet_service : mark")
    };
    let want = "9 0x405 1=7400 2=\"port\" 3=00000018 4=0000000d 5=00000002 6=00000013 \
                7=00000004 10=00000000 9[1=00000400] \
                13=000402000000010401000000060400000000";
    assert_eq!(added(&map), want);
    let raw = Set::timed("selectors", "@th,64,64");
    let want = "9 0x405 1=7400 2=\"selectors\" 3=00000010 4=00000004 5=00000008 10=00000000 \
                13=0004020000000326000407000000011e0004000000000104000000000204030000000304\
                40000000040440000000";
    assert_eq!(added(&raw), want);
}

#[test]
fn chains_are_these_messages() {
    let mut batch = Batch::new();
    Chain::new::<&str>("inner", []).add(&mut batch, "one");
    Chain::base("outer", HookPoint::Input, -150, Vec::new()).add(&mut batch, "one");
    let want = [
        "3 0x401 1=\"one\" 3=\"inner\"",
        "3 0x405 1=\"one\" 3=\"outer\" 7=\"filter\" 5=00000001 4[1=00000001 2=ffffff6a]",
    ];
    assert_eq!(messages(batch), want);
}

#[test]
fn first_elements_are_these_messages() {
    let set = Set {
        elements: vec![
            ("192.0.2.1".into(), None),
            ("tcp".into(), Some(Duration::from_secs(60))),
        ],
        ..Set::timed("mixed", "ipv4_addr")
    };
    let mut batch = Batch::new();
    set.add_elements(&mut batch, "one");
    let want = "12 0x405 1=\"one\" 2=\"mixed\" 3[1[1[1=c0000201]] 1[1[1=06] 4=000000000000ea60]]";
    assert_eq!(messages(batch), [want]);
}
