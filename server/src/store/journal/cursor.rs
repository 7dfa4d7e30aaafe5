//! Reads the log behind its writer, for the journal.

use super::super::codec::{Position, RECORD_LEN, decode, decode_header};
use super::super::directory::{BadFile, StateDirectory};
use super::super::record::{FileKind, LogRecord, RunId};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// So many records are read at once.
const BATCH: u32 = 1024;

/// A place in the log.
#[derive(Debug)]
pub(super) struct LogCursor {
    directory: StateDirectory,
    file: Option<(File, RunId)>,
    number: u32,
    /// The next record.
    index: u32,
}

/// What was read.
#[derive(Debug)]
pub(super) enum LogPart {
    /// These records.
    Records(Vec<LogRecord>),
    /// No more for now: the segment goes on where its writer is.
    Nothing,
    /// No more in this segment; where it is not `complete`, though the log goes on in it.
    SegmentEnd { complete: bool },
}

impl LogCursor {
    /// Stands after this record, which is of this run. Where that is not there any more, at the
    /// beginning of the first segment after it, `last` at the latest; the flag says which.
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

    /// Another one, at the beginning of this segment.
    pub fn at_segment(&self, number: u32) -> Self {
        Self {
            directory: self.directory.clone(),
            file: None,
            number,
            index: 1,
        }
    }

    /// The segment that it is in.
    pub fn segment(&self) -> u32 {
        self.number
    }

    /// The record before it.
    pub fn record(&self) -> u64 {
        u64::from(self.number) << 32 | u64::from(self.index.saturating_sub(1))
    }

    /// The run that the segment is of; none where it is not there.
    pub fn run(&self) -> Option<RunId> {
        self.file.as_ref().map(|(_, run)| *run)
    }

    /// Goes to the beginning of the next segment that is there. Returns whether it follows
    /// this one.
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

    /// Reads on, up to this record.
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
        // The end of the segment is read once more, alone.
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
