use super::*;
use crate::kernel::netlink::{Writer, messages};
use kind::{DELETE_ELEMENT, DELETE_TABLE, NEW_ELEMENT, NEW_GENERATION, NEW_TABLE};
use proptest::prelude::*;

const OWN: u32 = 99;
const OTHER: u32 = 17_896;

fn message(port: u32, kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(u32::try_from(16 + body.len()).unwrap().to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([0; 2]);
    bytes.extend(1_u32.to_ne_bytes());
    bytes.extend(port.to_ne_bytes());
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn of_table(port: u32, kind: u16, family: u8, name: &str) -> Vec<u8> {
    let body = Writer::body(family, |body| {
        body.text(1, name);
        body.text(2, "anything");
    });
    message(port, kind, &body)
}

fn generation(port: u32, name: &[u8]) -> Vec<u8> {
    let body = Writer::body(0, |body| {
        body.number(1, 7);
        body.number(2, OTHER);
        body.bytes(3, name);
    });
    message(port, NEW_GENERATION, &body)
}

/// What is told of these datagrams.
fn told(datagrams: &[Vec<u8>]) -> Vec<ForeignChange> {
    let (mut reader, mut told) = (TransactionReader::new(OWN), Vec::new());
    for datagram in datagrams {
        for message in messages(datagram) {
            reader.read(&message, |change| told.push(change));
        }
    }
    told
}

fn by_nft(change: TableChange) -> ForeignChange {
    ForeignChange {
        change,
        program: Some(("nft".into(), OTHER)),
        failure: None,
    }
}

/// What the kernel of a little-endian machine sends after `nft delete table inet oneknock`.
#[cfg(target_endian = "little")]
#[test]
fn deletion_as_the_kernel_sends_it_is_told() {
    let deleted = [
        &[0x38, 0, 0, 0, 2, 10, 0, 0, 1, 0, 0, 0, 0xe8, 0x45, 0, 0][..],
        &[1, 0, 0, 1, 13, 0, 1, 0],
        b"oneknock\0\0\0\0",
        &[8, 0, 3, 0, 0, 0, 0, 0, 12, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    ];
    let by = [
        &[0x2c, 0, 0, 0, 15, 10, 0, 0, 1, 0, 0, 0, 0xe8, 0x45, 0, 0][..],
        &[
            0, 0, 0, 4, 8, 0, 1, 0, 0, 0, 0, 4, 8, 0, 2, 0, 0, 0, 0x45, 0xe8,
        ],
        &[8, 0, 3, 0, b'n', b'f', b't', 0],
    ];
    assert_eq!(
        told(&[deleted.concat(), by.concat()]),
        [by_nft(TableChange::Deleted)]
    );
}

#[test]
fn worst_of_a_transaction_is_told_once() {
    let one = [
        of_table(OTHER, NEW_ELEMENT, INET, "oneknock"),
        of_table(OTHER, DELETE_TABLE, INET, "oneknock"),
        of_table(OTHER, NEW_TABLE, INET, "oneknock"),
        generation(OTHER, b"nft\0"),
    ];
    assert_eq!(told(&one), [by_nft(TableChange::Deleted)]);
    assert_eq!(told(&[one.concat()]), [by_nft(TableChange::Deleted)]);
}

#[test]
fn kind_of_message_says_what_was_done() {
    for (kind, want) in [
        (NEW_TABLE, TableChange::Ruleset),
        (kind::NEW_CHAIN, TableChange::Ruleset),
        (kind::NEW_RULE, TableChange::Ruleset),
        (kind::DELETE_RULE, TableChange::Ruleset),
        (kind::NEW_SET, TableChange::Ruleset),
        (NEW_ELEMENT, TableChange::Elements),
        (DELETE_ELEMENT, TableChange::Elements),
        (DELETE_TABLE, TableChange::Deleted),
    ] {
        let both = [
            of_table(OTHER, kind, INET, "oneknock"),
            generation(OTHER, b"nft\0"),
        ];
        assert_eq!(told(&both), [by_nft(want)], "{kind}");
    }
}

#[test]
fn other_tables_families_and_own_changes_are_not_told() {
    let all = [
        of_table(OTHER, DELETE_TABLE, INET, "oneknock2"),
        of_table(OTHER, DELETE_TABLE, INET, "one"),
        of_table(OTHER, DELETE_TABLE, 2, "oneknock"),
        generation(OTHER, b"nft\0"),
        of_table(OWN, DELETE_TABLE, INET, "oneknock"),
        generation(OWN, b"oneknockd\0"),
        generation(OTHER, b"nft\0"),
    ];
    assert_eq!(told(&all), []);
}

#[test]
fn program_of_an_odd_name_fits_into_a_log_line() {
    let all = [
        of_table(OTHER, DELETE_TABLE, INET, "oneknock"),
        generation(OTHER, b"a b\n\xff\"\0"),
    ];
    assert_eq!(told(&all)[0].program, Some(("a?b??\"".into(), OTHER)));
}

#[test]
fn changes_that_nobody_has_heard_of_become_the_worst() {
    let earlier = by_nft(TableChange::Deleted);
    let later = ForeignChange::unknown(None);
    let both = later.clone().after(Some(earlier.clone()));
    assert_eq!(
        (both.change, both.program),
        (TableChange::Unknown, earlier.program.clone())
    );
    let elements = by_nft(TableChange::Elements);
    assert_eq!(elements.after(Some(earlier.clone())), earlier);
    assert_eq!(later.clone().after(None), later);
}

proptest! {
    #[test]
    fn garbage_and_damage_are_read_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        at in 0_usize..60,
        value: u8,
    ) {
        let mut damaged = of_table(OTHER, DELETE_TABLE, INET, "oneknock");
        let length = damaged.len();
        damaged[at % length] = value;
        told(&[bytes, damaged, generation(OTHER, b"nft\0")]);
    }
}
