//! A segment of the log: a preallocated file, which is filled with records from its beginning.

use super::codec::{Position, RECORD_LEN, encode};
use super::directory::{FILE_MODE, StateDirectory};
use super::record::{FileHeader, FileKind, LogRecord, RunId};
use crate::files;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};

/// Bytes of a segment under little load.
pub(super) const MIN_SEGMENT: u64 = 1 << 20;
/// Bytes of a segment under the greatest load.
pub(super) const MAX_SEGMENT: u64 = 32 << 20;
/// Where the disk has no room for fewer bytes than this, no segment is made.
const SMALLEST: u64 = 64 << 10;
const RECORD: u64 = RECORD_LEN as u64;

/// A segment that is open for writing.
#[derive(Debug)]
pub(super) struct Segment {
    pub number: u32,
    run: RunId,
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
    /// Creates a segment that begins with these records. It is on disk before it gets its name.
    /// Where the disk has no room for `size` bytes it is smaller.
    pub fn create(
        directory: &StateDirectory,
        run: RunId,
        number: u32,
        size: u64,
        records: impl Iterator<Item = LogRecord>,
    ) -> io::Result<Self> {
        let header = FileHeader {
            kind: FileKind::Segment,
            run,
            number,
            first: number,
        };
        let made = write_file(directory, header, size, records)?;
        let path = directory.segment(number);
        let file = made.temporary.persist(path)?;
        directory.sync()?;
        Ok(Self {
            number,
            run,
            file,
            next: made.records,
            size: made.size,
        })
    }

    /// The position of the next record.
    pub fn position(&self) -> Position {
        Position {
            kind: FileKind::Segment,
            run: self.run,
            number: self.number,
            index: self.next,
        }
    }

    /// Whether so many more records would exceed what was preallocated. They can be appended all
    /// the same, if the disk has room.
    pub fn is_full_with(&self, records: u32) -> bool {
        (u64::from(self.next) + u64::from(records)) * RECORD > self.size
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

    /// Syncs the records.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Gives back the room after the last record.
    pub fn shrink(&self) -> io::Result<()> {
        self.file.set_len(u64::from(self.next) * RECORD)
    }
}

/// A file of records that is on disk and has no name yet.
pub(super) struct Unnamed {
    pub temporary: tempfile::NamedTempFile,
    pub records: u32,
    /// Bytes that were preallocated.
    pub size: u64,
}

/// Writes a header and records into a new file, which is private from the beginning, and syncs
/// it.
pub(super) fn write_file(
    directory: &StateDirectory,
    header: FileHeader,
    size: u64,
    records: impl Iterator<Item = LogRecord>,
) -> io::Result<Unnamed> {
    let mut temporary = tempfile::Builder::new()
        .prefix(files::UNFINISHED)
        .permissions(Permissions::from_mode(FILE_MODE))
        .tempfile_in(&directory.path)?;
    files::give(temporary.as_file(), directory.owner)?;
    let mut size = preallocate(temporary.as_file(), size)?;
    let mut position = header.position();
    let mut buffer = Vec::new();
    for record in std::iter::once(LogRecord::Header(header)).chain(records) {
        encode(&record, position, &mut buffer);
        position.index += 1;
        if buffer.len() >= 1 << 18 {
            temporary.write_all(&buffer)?;
            buffer.clear();
        }
    }
    temporary.write_all(&buffer)?;
    temporary.as_file().sync_all()?;
    size = size.max(u64::from(position.index) * RECORD);
    Ok(Unnamed {
        temporary,
        records: position.index,
        size,
    })
}

/// Reserves so many bytes; half of them, or a quarter, and so on, where the disk has less room.
/// A file system that cannot reserve gives room as it is written to.
fn preallocate(file: &File, size: u64) -> io::Result<u64> {
    let mut size = size;
    while size > 0 {
        let bytes = i64::try_from(size).unwrap_or(i64::MAX);
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) | Err(nix::Error::EOPNOTSUPP | nix::Error::ENOSYS) => return Ok(size),
            Err(nix::Error::EINTR) => {}
            Err(nix::Error::ENOSPC | nix::Error::EDQUOT) if size > SMALLEST => {
                // A part may have been reserved before the room ran out.
                file.set_len(0)?;
                size /= 2;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(0)
}
