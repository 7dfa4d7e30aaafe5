//! What the room sends, message by message.

mod install;

use super::elements::{self, Element};
use super::names::TABLE;
use super::netlink::tests::messages;
use super::netlink::{Batch, CREATE, CREATE_NEW};
use super::sync::Changes;
use crate::engine::{AllowEntry, Now, Target};
use oneknock_shared::knock::Timestamp;
use std::sync::Arc;
use std::time::Duration;

const NOW: Now = Now {
    wall: Timestamp(1_800_000_000_000),
    mono: Duration::from_secs(1_000),
};

mod of_elements {
    use super::*;

    fn batch(write: impl FnOnce(&mut Batch, &[Element<'_>])) -> Vec<String> {
        let mut batch = Batch::new();
        let element = Element {
            comment: Some("me"),
            ..Element::timed(vec![192, 0, 2, 7], Duration::from_secs(30))
        };
        write(&mut batch, &[element]);
        messages(batch)
    }

    const NAMES: &str = "1=\"oneknock\" 2=\"ssh4\"";
    const KEY: &str = "1[1=c0000207]";
    const REST: &str = "4=0000000000007530 6=00036d6500";

    #[test]
    fn new_one_is_exclusive_and_has_time_and_comment() {
        let sent = batch(|batch, of| elements::add(batch, CREATE_NEW, TABLE, "ssh4", of));
        assert_eq!(sent, [format!("12 0x605 {NAMES} 3[1[{KEY} {REST}]]")]);
    }

    #[test]
    fn renewal_is_add_delete_add() {
        let sent = batch(|batch, of| elements::renew(batch, "ssh4", of));
        let want = [
            format!("12 0x401 {NAMES} 3[1[{KEY} {REST}]]"),
            format!("14 0x1 {NAMES} 3[1[{KEY}]]"),
            format!("12 0x405 {NAMES} 3[1[{KEY} {REST}]]"),
        ];
        assert_eq!(sent, want);
    }

    #[test]
    fn removal_adds_first_so_that_absence_is_no_error() {
        let sent = batch(|batch, of| elements::remove(batch, "ssh4", of));
        assert_eq!(sent.len(), 2);
        assert!(sent[0].starts_with("12 ") && sent[1].starts_with("14 "));
    }

    #[test]
    fn flush_names_no_element() {
        let sent = batch(|batch, _| elements::replace(batch, "ssh4", &[]));
        assert_eq!(sent, [format!("14 0x5 {NAMES}")]);
    }

    #[test]
    fn map_element_has_value_and_permanent_one_no_time() {
        let mut batch = Batch::new();
        let port = Element {
            data: Some([1, 2, 3, 4]),
            ..Element::timed(vec![39, 16], Duration::from_secs(1))
        };
        let gateway = Element::permanent(vec![192, 0, 2, 254]);
        elements::add(&mut batch, CREATE, TABLE, "port_1", &[port, gateway]);
        let want = "12 0x405 1=\"oneknock\" 2=\"port_1\" \
                    3[1[1[1=2710] 2[1=01020304] 4=00000000000003e8] 1[1[1=c00002fe]]]";
        assert_eq!(messages(batch), [want]);
    }

    #[test]
    fn time_is_never_zero_nor_more_than_kernel_takes() {
        let sent = |time| {
            let mut batch = Batch::new();
            let element = Element::timed(vec![1], time);
            elements::add(&mut batch, CREATE, TABLE, "ssh4", &[element]);
            messages(batch).remove(0)
        };
        for time in [Duration::ZERO, Duration::from_nanos(1)] {
            assert!(sent(time).ends_with(" 4=0000000000000001]]"));
        }
        assert!(
            sent(Duration::MAX).ends_with(" 4=000002e044312000]]"),
            "{}",
            sent(Duration::MAX)
        );
    }

    #[test]
    fn message_with_longest_elements_fits_and_more_are_split() {
        let name = "k".repeat(64);
        let longest = |count| {
            let element = Element {
                comment: Some(name.as_str()),
                data: Some([0; 4]),
                ..Element::timed(vec![0; 28], Duration::MAX)
            };
            let mut batch = Batch::new();
            elements::add(&mut batch, CREATE, TABLE, "ssh4", &vec![element; count]);
            messages(batch)
        };
        assert!(longest(256)[0].len() / 2 < usize::from(u16::MAX));
        assert_eq!(longest(256).len(), 1);
        assert_eq!(longest(257).len(), 2);
        assert!(longest(0).is_empty());
    }
}

mod of_sync {
    use super::*;

    fn target(service: &str, address: &str) -> Target {
        Target {
            service: service.parse().unwrap(),
            source: address.parse().unwrap(),
        }
    }

    fn entry(seconds: u64) -> AllowEntry {
        AllowEntry {
            key: Arc::new("me".parse().unwrap()),
            until: NOW.mono + Duration::from_secs(seconds),
        }
    }

    #[test]
    fn new_entries_are_one_exclusive_message_for_each_set() {
        let (entry, of) = (entry(30), target("ssh", "192.0.2.7"));
        let one = Changes::new([(&of, Some(&entry))].into_iter(), NOW);
        let sent = messages(one.new_entries().unwrap());
        let want = "12 0x605 1=\"oneknock\" 2=\"ssh4\" \
                    3[1[1[1=c0000207] 4=0000000000007530 6=00036d6500]]";
        assert_eq!(sent, [want]);
        let others = ["192.0.2.7", "192.0.2.8", "2001:db8::1"].map(|ip| target("ssh", ip));
        let all = others.iter().map(|of| (of, Some(&entry)));
        let sent = messages(Changes::new(all, NOW).new_entries().unwrap());
        assert_eq!(sent.len(), 2);
    }

    #[test]
    fn any_removal_makes_it_add_delete_add() {
        let (entry, over) = (entry(30), entry(0));
        let of = ["192.0.2.7", "192.0.2.8", "192.0.2.9"].map(|ip| target("ssh", ip));
        let wanted = [Some(&entry), None, Some(&over)];
        let changes = Changes::new(of.iter().zip(wanted), NOW);
        assert!(changes.new_entries().is_none());
        let sent = messages(Batch::of(|batch| changes.any_entries(batch)));
        let keys = ["c0000207", "c0000208", "c0000209"];
        let has = |message: &str| keys.map(|key| message.contains(key));
        assert!(sent[0].starts_with("12 0x401 ") && sent[1].starts_with("14 0x1 "));
        assert_eq!((has(&sent[0]), has(&sent[1])), ([true; 3], [true; 3]));
        assert!(sent[2].starts_with("12 0x405 "));
        assert_eq!(has(&sent[2]), [true, false, false]);
        // Nothing that is to go may stay for long, whatever becomes of the rest.
        assert_eq!(sent[0].matches("4=00000000000003e8").count(), 3);
    }
}
