//! The 192 bytes of a record, integers big-endian:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 1 | kind |
//! | 1 | 1 | flags: 1 = the source is signed, 2 = close, 4 = renewed |
//! | 2 | 2 | seconds that were asked for |
//! | 4 | 4 | number of the generation, or of the segment |
//! | 8 | 1 | prefix length of the source, in bits of an IPv6 address: 128, or 0 without a source |
//! | 9 | 1 | why a grant ended |
//! | 10 | 6 | wall clock, ms since the Unix epoch |
//! | 16 | 8 | time of the packet, the floor, the opening or the end, ms since the Unix epoch |
//! | 24 | 16 | id of the generation, or of the run |
//! | 40 | 16 | service, zero-padded |
//! | 56 | 16 | source to admit (IPv4 mapped) |
//! | 72 | 16 | where the packet came from (IPv4 mapped) |
//! | 88 | 32 | HMAC of the packet; or until (8) and now (8), ns since boot; or a number (4) |
//! | 120 | 64 | name of the key, or of the format, zero-padded |
//! | 184 | 8 | checksum: SHA-256 (FIPS 180-4) over kind of file, run, number, index and all bytes before, cut to 8; its last bit is set |
//!
//! Fields that a kind does not use are zero, so each record has one encoding. The checksum holds
//! at one position of one file only. A record whose last byte is zero was not written to its
//! end.

use super::record::{FileHeader, FileKind, LogRecord, RunId};
use ring::digest::{SHA256, digest};

/// Bytes of a record.
pub(super) const RECORD_LEN: usize = 192;
const BODY: usize = 184;
/// The greatest wall clock that a record holds.
pub(super) const MAX_WALL: u64 = (1 << 48) - 1;

/// The position of a record. Its checksum holds there only.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    pub kind: FileKind,
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

/// Appends the 192 bytes of a record at this position.
pub(super) fn encode(record: &LogRecord, position: Position, to: &mut Vec<u8>) {
    let start = to.len();
    RecordFields::of(record).write(to);
    let sum = checksum(position, &to[start..]);
    to.extend_from_slice(&sum);
}

/// Reads the record at this position.
pub(super) fn decode(bytes: &[u8], position: Position) -> Result<LogRecord, NoRecord> {
    let (body, sum) = split(bytes)?;
    let fields = RecordFields::read(body).ok_or(NoRecord::Damaged)?;
    let record = fields.record().ok_or(NoRecord::Damaged)?;
    if *sum != checksum(position, body) || RecordFields::of(&record) != fields {
        return Err(NoRecord::Damaged);
    }
    Ok(record)
}

/// Reads the first record of a file, which names the run.
pub(super) fn decode_header(bytes: &[u8]) -> Result<FileHeader, NoRecord> {
    let (body, _) = split(bytes)?;
    let header = RecordFields::read(body).and_then(|fields| fields.record());
    let Some(LogRecord::Header(header)) = header else {
        return Err(NoRecord::Damaged);
    };
    decode(bytes, header.position()).map(|_| header)
}

fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), NoRecord> {
    if bytes == &[0; RECORD_LEN][..bytes.len().min(RECORD_LEN)] {
        return Err(NoRecord::Blank);
    }
    match bytes.last() {
        Some(0) => Err(NoRecord::Torn),
        _ if bytes.len() < RECORD_LEN => Err(NoRecord::Torn),
        _ => bytes.split_at_checked(BODY).ok_or(NoRecord::Damaged),
    }
}

fn checksum(position: Position, body: &[u8]) -> [u8; 8] {
    let mut covered = [0; 25 + BODY];
    covered[0] = match position.kind {
        FileKind::Segment => 1,
        FileKind::Snapshot => 2,
    };
    covered[1..17].copy_from_slice(&position.run);
    covered[17..21].copy_from_slice(&position.number.to_be_bytes());
    covered[21..25].copy_from_slice(&position.index.to_be_bytes());
    covered[25..].copy_from_slice(body);
    let digest = digest(&SHA256, &covered);
    let mut sum = *digest.as_ref().first_chunk().unwrap_or(&[0; 8]);
    sum[7] |= 1;
    sum
}

impl FileHeader {
    /// The position of this header.
    pub fn position(&self) -> Position {
        Position {
            kind: self.kind,
            run: self.run,
            number: self.number,
            index: 0,
        }
    }
}

/// The fields of a record, as numbers and bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RecordFields {
    pub kind: u8,
    pub flags: u8,
    pub seconds: u16,
    pub number: u32,
    pub prefix: u8,
    pub why: u8,
    pub wall: u64,
    pub at: u64,
    pub id: [u8; 16],
    pub service: [u8; 16],
    pub source: [u8; 16],
    pub from: [u8; 16],
    pub detail: [u8; 32],
    pub name: [u8; 64],
}

/// All fields zero.
pub(super) const EMPTY: RecordFields = RecordFields {
    kind: 0,
    flags: 0,
    seconds: 0,
    number: 0,
    prefix: 0,
    why: 0,
    wall: 0,
    at: 0,
    id: [0; 16],
    service: [0; 16],
    source: [0; 16],
    from: [0; 16],
    detail: [0; 32],
    name: [0; 64],
};

impl RecordFields {
    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&[self.kind, self.flags]);
        to.extend_from_slice(&self.seconds.to_be_bytes());
        to.extend_from_slice(&self.number.to_be_bytes());
        to.extend_from_slice(&[self.prefix, self.why]);
        to.extend_from_slice(&self.wall.min(MAX_WALL).to_be_bytes()[2..]);
        to.extend_from_slice(&self.at.to_be_bytes());
        for field in [&self.id, &self.service, &self.source, &self.from] {
            to.extend_from_slice(field);
        }
        to.extend_from_slice(&self.detail);
        to.extend_from_slice(&self.name);
    }

    fn read(mut bytes: &[u8]) -> Option<Self> {
        let from = &mut bytes;
        let [kind, flags] = take(from)?;
        let seconds = u16::from_be_bytes(take(from)?);
        let number = u32::from_be_bytes(take(from)?);
        let [prefix, why] = take(from)?;
        let mut wall = [0; 8];
        wall[2..].copy_from_slice(&take::<6>(from)?);
        let fields = Self {
            kind,
            flags,
            seconds,
            number,
            prefix,
            why,
            wall: u64::from_be_bytes(wall),
            at: u64::from_be_bytes(take(from)?),
            id: take(from)?,
            service: take(from)?,
            source: take(from)?,
            from: take(from)?,
            detail: take(from)?,
            name: take(from)?,
        };
        bytes.is_empty().then_some(fields)
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}
