//! Reads the log behind its writer, in the same files.

use super::super::codec::{Position, RECORD_LEN, decode, decode_header};
use super::super::directory::{BadFile, StateDirectory};
use super::super::record::{FileKind, LogRecord, RunId};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The number of records that are read at once, and projected in one commit.
const BATCH: u32 = 4096;

/// A place in the log.
#[derive(Debug)]
pub(super) struct LogCursor {
    directory: StateDirectory,
    file: Option<(File, RunId)>,
    number: u32,
    /// The next record.
    index: u32,
}

/// A part of the log.
#[derive(Debug)]
pub(super) enum LogPart {
    /// The next records.
    Records(Vec<LogRecord>),
    /// Everything up to the wanted record was read.
    Nothing,
    /// The segment has no more records. `complete` says whether the log goes on in the next one;
    /// else the records were lost that come before the wanted one.
    SegmentEnd { complete: bool },
}

impl LogCursor {
    /// Begins after this record of this run, and returns true. Where the record is not there any
    /// more, begins with the first segment after it, with segment `last` at the latest, and
    /// returns false.
    pub fn after(
        directory: &StateDirectory,
        run: RunId,
        record: u64,
        last: u32,
    ) -> io::Result<(Self, bool)> {
        let mut cursor = Self {
            directory: directory.clone(),
            file: None,
            number: high(record),
            index: low(record).saturating_add(1),
        };
        let is_there = cursor.number <= last && cursor.open()? && cursor.run() == Some(run);
        if !is_there {
            cursor.enter_after(cursor.number.min(last.saturating_sub(1)))?;
        }
        Ok((cursor, is_there))
    }

    /// Makes another cursor, at the beginning of this segment.
    pub fn at_segment(&self, number: u32) -> Self {
        Self {
            directory: self.directory.clone(),
            file: None,
            number,
            index: 1,
        }
    }

    /// The number of the segment that is read.
    pub fn segment(&self) -> u32 {
        self.number
    }

    /// The record that was read last.
    pub fn record(&self) -> u64 {
        u64::from(self.number) << 32 | u64::from(self.index.saturating_sub(1))
    }

    /// The run of the segment; none where the segment is not there.
    pub fn find_run(&mut self) -> io::Result<Option<RunId>> {
        if self.file.is_none() {
            self.open()?;
        }
        Ok(self.run())
    }

    /// As [`LogCursor::find_run`]; none before the segment was opened.
    pub fn run(&self) -> Option<RunId> {
        self.file.as_ref().map(|(_, run)| *run)
    }

    /// Goes to the beginning of the next segment that is there. Returns whether no number is
    /// skipped.
    pub fn next_segment(&mut self) -> io::Result<bool> {
        let before = self.number;
        self.enter_after(before)?;
        Ok(self.number == before.saturating_add(1))
    }

    fn enter_after(&mut self, before: u32) -> io::Result<()> {
        let files = self.directory.log_files()?;
        let next = before.saturating_add(1);
        let there = files.segments.range(next..).next();
        (self.number, self.index) = (there.copied().unwrap_or(next), 1);
        self.file = None;
        Ok(())
    }

    fn open(&mut self) -> io::Result<bool> {
        self.file = None;
        let path = self.directory.segment(self.number);
        let file = match self.directory.open(&path) {
            Ok(file) => file,
            Err(BadFile::Io(error)) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error);
            }
            Err(_) => return Ok(false),
        };
        let mut header = [0; RECORD_LEN];
        if file.read_exact_at(&mut header, 0).is_err() {
            return Ok(false);
        }
        let header = decode_header(&header).ok();
        let header = header.filter(|header| header.number == self.number);
        self.file = header.map(|header| (file, header.run));
        Ok(self.file.is_some())
    }

    /// Reads the next part, up to this record.
    pub fn read(&mut self, target: u64) -> io::Result<LogPart> {
        if self.number > high(target) {
            return Ok(LogPart::Nothing);
        }
        if self.file.is_none() && !self.open()? {
            return Ok(LogPart::SegmentEnd { complete: false });
        }
        let Some((file, run)) = &self.file else {
            return Ok(LogPart::SegmentEnd { complete: false });
        };
        let is_last = self.number == high(target);
        let end = if is_last { low(target) } else { u32::MAX };
        if self.index > end {
            return Ok(LogPart::Nothing);
        }
        let wanted = BATCH.min((end - self.index).saturating_add(1)) as usize;
        let mut bytes = vec![0; wanted * RECORD_LEN];
        let len = read_at(file, &mut bytes, u64::from(self.index) * RECORD_LEN as u64)?;
        let mut position = Position {
            kind: FileKind::Segment,
            run: *run,
            number: self.number,
            index: self.index,
        };
        let mut records = Vec::with_capacity(wanted);
        let mut complete = false;
        for record in bytes[..len].chunks_exact(RECORD_LEN) {
            match decode(record, position) {
                Ok(LogRecord::Continued) => complete = true,
                Ok(record) => records.push(record),
                Err(_) => break,
            }
            position.index += 1;
        }
        if records.is_empty() {
            return Ok(LogPart::SegmentEnd { complete });
        }
        // The record that closes the segment is read once more, alone.
        position.index -= u32::from(complete);
        self.index = position.index;
        Ok(LogPart::Records(records))
    }
}

fn high(record: u64) -> u32 {
    u32::try_from(record >> 32).unwrap_or(u32::MAX)
}

fn low(record: u64) -> u32 {
    u32::try_from(record & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut len = 0;
    while len < bytes.len() {
        match file.read_at(&mut bytes[len..], offset + len as u64) {
            Ok(0) => break,
            Ok(some) => len += some,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}
