//! A segment of the log: a preallocated file. It begins with the state that everything before
//! adds up to, and is filled with records after that.

use super::codec::{RECORD_LEN, RecordPosition, encode};
use super::directory::StateDirectory;
use super::record::{LogRecord, SegmentHeader, records_of};
use crate::engine::State;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

/// Where the disk has no room for fewer bytes than this, no segment is made.
const SMALLEST: u64 = 64 << 10;
const RECORD: u64 = RECORD_LEN as u64;

/// A segment that is open for writing.
#[derive(Debug)]
pub(super) struct Segment {
    header: SegmentHeader,
    file: File,
    /// The index of the next record.
    next: u32,
    /// Bytes that were preallocated.
    size: u64,
}

/// A failed append. The first records, so many, are in the log all the same.
#[derive(Debug)]
pub(super) struct PartlyWritten {
    pub written: usize,
    pub error: io::Error,
}

impl Segment {
    /// Creates a segment with this header, but for the length of the state, and this state. It
    /// is on disk before it gets its name. Where the disk has no room for `size` bytes more it
    /// is smaller.
    pub fn create(
        directory: &StateDirectory,
        header: SegmentHeader,
        state: &State,
        size: u64,
    ) -> io::Result<Self> {
        let too_large = |_| io::Error::other("the state has too many records");
        let records = records_of(state, header.now);
        let len = u32::try_from(records.size_hint().0).map_err(too_large)?;
        let header = SegmentHeader {
            state: len,
            ..header
        };
        let new = directory.unnamed()?;
        let size = preallocate(new.as_file(), (u64::from(len) + 1) * RECORD, size)?;
        let mut writer = BufWriter::with_capacity(1 << 18, new.as_file());
        let records = std::iter::once(LogRecord::Header(header)).chain(records);
        let mut buffer = Vec::new();
        for (record, index) in records.zip(0..) {
            buffer.clear();
            encode(&record, header.position(index), &mut buffer);
            writer.write_all(&buffer)?;
        }
        writer.flush()?;
        drop(writer);
        Ok(Self {
            header,
            file: directory.name(new, &directory.segment(header.number))?,
            next: len + 1,
            size,
        })
    }

    /// The number of the segment.
    pub fn number(&self) -> u32 {
        self.header.number
    }

    /// The first segment that this one needs.
    pub fn first(&self) -> u32 {
        self.header.first
    }

    /// The position of the next record.
    pub fn position(&self) -> RecordPosition {
        self.header.position(self.next)
    }

    /// Whether a quarter of what was preallocated for records is left, or less. More can be
    /// appended all the same, if the disk has room.
    pub fn is_full(&self) -> bool {
        let left = |index: u32| self.size.saturating_sub(u64::from(index) * RECORD);
        left(self.next) <= left(self.header.state + 1) / 4
    }

    /// Appends encoded records by one system call; by more only where the kernel takes a part.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), PartlyWritten> {
        let offset = u64::from(self.next) * RECORD;
        let mut done = 0;
        let failed = loop {
            match self.file.write_at(&bytes[done..], offset + done as u64) {
                Ok(0) => break Some(io::ErrorKind::WriteZero.into()),
                Ok(some) if done + some == bytes.len() => break None,
                Ok(some) => done += some,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Some(error),
            }
        };
        // The next append overwrites a record that is there in part.
        let all = bytes.len() / RECORD_LEN;
        let written = failed.as_ref().map_or(all, |_| done / RECORD_LEN);
        self.next += u32::try_from(written).unwrap_or(u32::MAX);
        failed.map_or(Ok(()), |error| Err(PartlyWritten { written, error }))
    }
}

/// Reserves so many bytes and `size` more; half of `size`, or a quarter, and so on, where the
/// disk has less room. A file system that cannot reserve gives room as it is written to.
fn preallocate(file: &File, needed: u64, mut size: u64) -> io::Result<u64> {
    loop {
        let bytes = i64::try_from(needed + size).unwrap_or(i64::MAX);
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) | Err(nix::Error::EOPNOTSUPP | nix::Error::ENOSYS) => return Ok(needed + size),
            Err(nix::Error::EINTR) => {}
            Err(nix::Error::ENOSPC | nix::Error::EDQUOT) if size > SMALLEST => {
                // A part may have been reserved before the room ran out.
                file.set_len(0)?;
                size /= 2;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
