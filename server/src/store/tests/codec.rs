//! The bytes of a record.

use super::super::codec::{NoRecord, RECORD_LEN, RecordPosition, decode, decode_header, encode};
use super::super::record::{LogRecord, SegmentHeader};
use super::*;
use crate::engine::Close;
use proptest::prelude::*;
use std::fmt::Write;
use std::net::IpAddr;

const POSITION: RecordPosition = RecordPosition {
    run: [0xab; 16],
    number: 3,
    index: 9,
};

fn header() -> SegmentHeader {
    SegmentHeader {
        run: POSITION.run,
        before: [0xba; 16],
        number: 3,
        state: 2,
        from: 77,
        first: 1,
        boot: BootId([0xb0; 16]),
        is_first_of_boot: true,
        now: after(5),
    }
}

fn bytes_of(record: &LogRecord, position: RecordPosition) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(record, position, &mut bytes);
    bytes
}

/// Without runs of zero bytes, which are given by their number.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunk_by(|a, b| (*a == 0) == (*b == 0)) {
        if chunk[0] == 0 {
            write!(text, " 0*{} ", chunk.len()).unwrap();
        } else {
            for byte in chunk {
                write!(text, "{byte:02x}").unwrap();
            }
        }
    }
    text.trim().to_owned()
}

fn every_kind() -> Vec<LogRecord> {
    let now = after(5);
    let wall = now.wall;
    let mut signed = close(2, at(4_000));
    (signed.is_signed, signed.service) = (true, None);
    signed.from = "2001:db8::1".parse().unwrap();
    let close = Close {
        key: "phone".parse().unwrap(),
        service: None,
        source: Source::of("2001:db8::9".parse().unwrap()),
        at: at(3),
    };
    let note = MarkNote {
        number: 7,
        until: at(5_000),
        run: POSITION.run,
        boot: BootId([0xb0; 16]),
        is_clean: true,
    };
    let ended = |why| LogRecord::Ended(grant(now, 60), why, wall);
    vec![
        LogRecord::Header(header()),
        LogRecord::Mark(note),
        LogRecord::Spent(open(1, at(4_999)), wall),
        LogRecord::Spent(signed, wall),
        LogRecord::Granted(grant(now, 60), now),
        ended(None),
        ended(Some(EndReason::KeyChanged)),
        LogRecord::Retirement(generation(6), at(86_400_000)),
        LogRecord::Floor(generation(7), at(1)),
        LogRecord::DefaultFloor(at(2)),
        LogRecord::Closed(close),
        LogRecord::Seen(generation(7), at(4_999), id(1)),
        LogRecord::Continued(4),
    ]
}

#[test]
fn bytes_of_every_kind_are_these() {
    let found: Vec<String> = every_kind()
        .iter()
        .map(|record| hex(&bytes_of(record, POSITION)))
        .collect();
    let golden = include_str!("records.txt").lines().collect::<Vec<_>>();
    assert_eq!(found, golden);
}

#[test]
fn every_kind_is_read_back() {
    for record in every_kind() {
        let bytes = bytes_of(&record, POSITION);
        assert_eq!(bytes.len(), RECORD_LEN);
        assert_eq!(decode(&bytes, POSITION), Ok(record));
    }
}

#[test]
fn changed_bit_is_damage_or_a_torn_end() {
    for record in every_kind() {
        let whole = bytes_of(&record, POSITION);
        for bit in 0..RECORD_LEN * 8 {
            let mut other = whole.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            let found = decode(&other, POSITION).unwrap_err();
            let want = if other[RECORD_LEN - 1] == 0 {
                NoRecord::Torn
            } else {
                NoRecord::Damaged
            };
            assert_eq!(found, want, "{record:?} {bit}");
        }
    }
}

#[test]
fn record_holds_in_its_own_place_only() {
    let record = &every_kind()[2];
    let whole = bytes_of(record, POSITION);
    let others = [
        RecordPosition {
            index: 8,
            ..POSITION
        },
        RecordPosition {
            number: 4,
            ..POSITION
        },
        RecordPosition {
            run: [0xac; 16],
            ..POSITION
        },
    ];
    for other in others {
        assert_eq!(decode(&whole, other), Err(NoRecord::Damaged), "{other:?}");
    }
}

#[test]
fn cut_record_is_torn_and_no_bytes_are_blank() {
    let whole = bytes_of(&every_kind()[1], POSITION);
    for len in 1..RECORD_LEN {
        let mut cut = whole[..len].to_vec();
        assert_eq!(decode(&cut, POSITION), Err(NoRecord::Torn), "{len}");
        cut.resize(RECORD_LEN, 0);
        assert_eq!(decode(&cut, POSITION), Err(NoRecord::Torn), "{len}");
    }
    assert_eq!(decode(&[], POSITION), Err(NoRecord::Blank));
    assert_eq!(decode(&[0; RECORD_LEN], POSITION), Err(NoRecord::Blank));
}

#[test]
fn header_of_another_format_is_damaged() {
    let whole = bytes_of(&LogRecord::Header(header()), header().position(0));
    assert_eq!(decode_header(&whole), Ok(header()));
    // With a checksum that would hold.
    let signed = |format: &[u8]| {
        let mut covered = [format, &POSITION.run, &[0, 0, 0, 3, 0, 0, 0, 0]].concat();
        covered.extend_from_slice(&whole[..192]);
        let sum = ring::digest::digest(&ring::digest::SHA256, &covered);
        let mut sum: [u8; 8] = sum.as_ref()[..8].try_into().unwrap();
        sum[7] |= 1;
        [&whole[..192], &sum].concat()
    };
    assert_eq!(signed(b"oneknock state 1"), whole);
    let other = signed(b"oneknock state 2");
    assert_eq!(decode_header(&other), Err(NoRecord::Damaged));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes, POSITION);
        let _ = decode_header(&bytes);
    }

    #[test]
    fn any_spend_is_read_back(
        name in "[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        service in proptest::option::of("[a-z][a-z0-9-]{0,15}"),
        number: u32, at: u64, from: IpAddr, source: IpAddr, is_signed: bool,
        seconds in proptest::option::of(any::<u16>()), bytes: [u8; 32], wall: u64,
    ) {
        let spend = Spend {
            key: Arc::new(name.parse().unwrap()),
            generation: GenerationId(bytes[..16].try_into().unwrap()),
            number,
            at: Timestamp(at),
            id: PacketId(bytes),
            from: from.to_canonical(),
            source: Source::of(source),
            is_signed,
            action: seconds.map_or(Action::Close, |seconds| Action::Open { seconds }),
            service: service.map(|name| name.parse().unwrap()),
        };
        let record = LogRecord::Spent(spend, Timestamp(wall));
        let found = decode(&bytes_of(&record, POSITION), POSITION);
        prop_assert_eq!(found, Ok(record));
    }
}
