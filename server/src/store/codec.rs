//! The 200 bytes of a record: a byte for its kind, its fields one after another, zeros up to
//! byte 192, and a checksum. The tables at the end of this file say which fields a kind has.
//!
//! | field | bytes |
//! | --- | --- |
//! | number | as many as it has, big-endian |
//! | timestamp | 8: ms since the Unix epoch |
//! | time since boot | 8: ns |
//! | id of a run, a boot, a generation | 16 |
//! | HMAC of a packet | 32 |
//! | address | 16: of IPv6, or of IPv4 mapped |
//! | name of a service | 16, zero-padded; zero where there is none |
//! | name of a key | 64, zero-padded |
//! | action | 3: 1 for a close, seconds |
//! | why a grant has ended | 1 |
//!
//! The checksum is SHA-256 (FIPS 180-4) over "oneknock state 1", the run, the number of the
//! segment, the index and the 192 bytes, cut to 8; its last bit is set. It holds at one position
//! of one file only, and a record whose last byte is zero was not written to its end. Each record
//! has one encoding.

use super::boot::BootId;
use super::record::{LogRecord, MarkNote, RunId, SegmentHeader};
use crate::engine::{Close, EndReason, Grant, Now, Source, Spend, Target};
use oneknock_shared::knock::{Action, Timestamp};
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_shared::packet::PacketId;
use oneknock_shared::secret::GenerationId;
use ring::digest::{SHA256, digest};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a record.
pub(super) const RECORD_LEN: usize = 200;
const BODY: usize = 192;
/// Bytes of another format, or of another version of this one, are no records.
const FORMAT: &[u8; 16] = b"oneknock state 1";

/// The position of a record. Its checksum holds there only.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordPosition {
    pub run: RunId,
    pub number: u32,
    pub index: u32,
}

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRecord {
    /// All are zero: nothing was written there.
    Blank,
    /// The record was not written to its end.
    Torn,
    /// The record was written to its end, and its checksum or a field is wrong.
    Damaged,
}

/// Appends the bytes of a record at this position.
pub(super) fn encode(record: &LogRecord, position: RecordPosition, to: &mut Vec<u8>) {
    let start = to.len();
    record.put(to);
    to.resize(start + BODY, 0);
    let sum = checksum(position, &to[start..]);
    to.extend_from_slice(&sum);
}

/// Reads the record at this position.
pub(super) fn decode(bytes: &[u8], position: RecordPosition) -> Result<LogRecord, NoRecord> {
    let (body, sum) = split(bytes)?;
    let mut rest = body;
    match LogRecord::get(&mut rest) {
        Some(record) if is_zero(rest) && *sum == checksum(position, body) => Ok(record),
        _ => Err(NoRecord::Damaged),
    }
}

/// Reads the first record of a segment, which names the run.
pub(super) fn decode_header(bytes: &[u8]) -> Result<SegmentHeader, NoRecord> {
    let (mut body, _) = split(bytes)?;
    let Some(LogRecord::Header(header)) = LogRecord::get(&mut body) else {
        return Err(NoRecord::Damaged);
    };
    decode(bytes, header.position(0)).map(|_| header)
}

impl SegmentHeader {
    /// The position of a record in this segment.
    pub fn position(&self, index: u32) -> RecordPosition {
        RecordPosition {
            run: self.run,
            number: self.number,
            index,
        }
    }
}

fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), NoRecord> {
    match bytes.last() {
        _ if is_zero(bytes) => Err(NoRecord::Blank),
        Some(0) => Err(NoRecord::Torn),
        _ if bytes.len() < RECORD_LEN => Err(NoRecord::Torn),
        _ => bytes.split_at_checked(BODY).ok_or(NoRecord::Damaged),
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes == &[0; RECORD_LEN][..bytes.len().min(RECORD_LEN)]
}

fn checksum(position: RecordPosition, body: &[u8]) -> [u8; 8] {
    let mut covered = [0; 40 + BODY];
    covered[..16].copy_from_slice(FORMAT);
    covered[16..32].copy_from_slice(&position.run);
    covered[32..36].copy_from_slice(&position.number.to_be_bytes());
    covered[36..40].copy_from_slice(&position.index.to_be_bytes());
    covered[40..].copy_from_slice(body);
    let digest = digest(&SHA256, &covered);
    let mut sum = *digest.as_ref().first_chunk().unwrap_or(&[0; 8]);
    sum[7] |= 1;
    sum
}

/// What a record is made of. `get` reads exactly what `put` writes; no other bytes give a value.
trait RecordField: Sized {
    fn put(&self, to: &mut Vec<u8>);
    fn get(from: &mut &[u8]) -> Option<Self>;
}

impl<const N: usize> RecordField for [u8; N] {
    fn put(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self);
    }
    fn get(from: &mut &[u8]) -> Option<Self> {
        let (first, rest) = from.split_first_chunk()?;
        *from = rest;
        Some(*first)
    }
}

/// A field that is written as another one.
macro_rules! written_as {
    ($($type:ty as $other:ty: |$value:ident| $put:expr, |$read:ident| $get:expr;)+) => {$(
        impl RecordField for $type {
            fn put(&self, to: &mut Vec<u8>) {
                let $value = self;
                <$other as RecordField>::put(&$put, to);
            }
            fn get(from: &mut &[u8]) -> Option<Self> {
                let $read = <$other as RecordField>::get(from)?;
                $get
            }
        }
    )+};
}

written_as! {
    u8 as [u8; 1]: |n| [*n], |bytes| Some(bytes[0]);
    u16 as [u8; 2]: |n| n.to_be_bytes(), |bytes| Some(Self::from_be_bytes(bytes));
    u32 as [u8; 4]: |n| n.to_be_bytes(), |bytes| Some(Self::from_be_bytes(bytes));
    u64 as [u8; 8]: |n| n.to_be_bytes(), |bytes| Some(Self::from_be_bytes(bytes));
    bool as u8: |is| u8::from(*is), |n| (n < 2).then_some(n == 1);
    Timestamp as u64: |at| at.0, |ms| Some(Self(ms));
    Duration as u64: |mono| u64::try_from(mono.as_nanos()).unwrap_or(u64::MAX),
        |ns| Some(Self::from_nanos(ns));
    BootId as [u8; 16]: |id| id.0, |bytes| Some(Self(bytes));
    GenerationId as [u8; 16]: |id| id.0, |bytes| Some(Self(bytes));
    PacketId as [u8; 32]: |id| id.0, |bytes| Some(Self(bytes));
    IpAddr as [u8; 16]: |address| match address {
        Self::V4(v4) => v4.to_ipv6_mapped().octets(),
        Self::V6(v6) => v6.octets(),
    }, |octets| Some(Ipv6Addr::from(octets).to_canonical());
    Source as IpAddr: |source| source.address(), |address| Some(Self::of(address));
    Option<ServiceName> as [u8; 16]: |name| name.map_or([0; 16], |name| name.field()),
        |field| match field {
            field if is_zero(&field) => Some(None),
            field => ServiceName::from_field(field).map(Some),
        };
    Arc<KeyName> as KeyName: |name| **name, |name| Some(Self::new(name));
    Action as (bool, u16): |action| match action {
        Self::Open { seconds } => (false, *seconds),
        Self::Close => (true, 0),
    }, |read| match read {
        (false, seconds) => Some(Self::Open { seconds }),
        (true, seconds) => (seconds == 0).then_some(Self::Close),
    };
    Option<EndReason> as u8: |why| match why {
        None => 0,
        Some(EndReason::Expired) => 1,
        Some(EndReason::Revoked) => 2,
        Some(EndReason::KeyChanged) => 3,
        Some(EndReason::Reboot) => 4,
    }, |code| Some(match code {
        0 => None,
        1 => Some(EndReason::Expired),
        2 => Some(EndReason::Revoked),
        3 => Some(EndReason::KeyChanged),
        4 => Some(EndReason::Reboot),
        _ => return None,
    });
    ServiceName as Option<Self>: |name| Some(*name), |name| name;
    KeyName as [u8; 64]: |name| {
        // A name is never longer than its field.
        let (mut field, len) = ([0; 64], name.as_str().len().min(64));
        field[..len].copy_from_slice(&name.as_str().as_bytes()[..len]);
        field
    }, |field| str::from_utf8(&field).ok()?.trim_end_matches('\0').parse().ok();
}

impl<A: RecordField, B: RecordField> RecordField for (A, B) {
    fn put(&self, to: &mut Vec<u8>) {
        self.0.put(to);
        self.1.put(to);
    }
    fn get(from: &mut &[u8]) -> Option<Self> {
        Some((A::get(from)?, B::get(from)?))
    }
}

macro_rules! fields {
    ($($type:ident { $($field:ident),+ })+) => {$(
        impl RecordField for $type {
            fn put(&self, to: &mut Vec<u8>) {
                $(self.$field.put(to);)+
            }
            fn get(from: &mut &[u8]) -> Option<Self> {
                Some(Self { $($field: RecordField::get(from)?),+ })
            }
        }
    )+};
}

fields! {
    Now { wall, mono }
    Target { service, source }
    Spend { generation, number, at, id, from, source, is_signed, action, service, key }
    Grant { generation, number, opened, until, target, key }
    Close { at, source, service, key }
    SegmentHeader { run, before, number, state, from, first, boot, is_first_of_boot, now }
    MarkNote { number, until, run, boot, is_clean }
}

macro_rules! kinds {
    ($($code:literal $kind:ident($($field:ident),+))+) => {
        impl RecordField for LogRecord {
            fn put(&self, to: &mut Vec<u8>) {
                match self {
                    $(Self::$kind($($field),+) => {
                        to.push($code);
                        $($field.put(to);)+
                    })+
                }
            }
            fn get(from: &mut &[u8]) -> Option<Self> {
                Some(match u8::get(from)? {
                    $($code => {
                        $(let $field = RecordField::get(from)?;)+
                        Self::$kind($($field),+)
                    })+
                    _ => return None,
                })
            }
        }
    };
}

kinds! {
    1 Header(header)
    2 Mark(note)
    3 Spent(spend, wall)
    4 Granted(grant, now)
    5 Ended(grant, why, wall)
    6 Retirement(generation, ends)
    7 Floor(generation, at)
    8 DefaultFloor(at)
    9 Closed(close)
    10 Seen(generation, at, id)
    11 Continued(number)
}
