//! Reads the log behind its writer, part by part, and projects it to the database.

use super::super::directory::{BadFile, StateDirectory};
use super::super::reader::SegmentReader;
use super::super::record::{LogRecord, RunId};
use super::database::{self, JournalError, within};
use super::pruning::{PORTION, prune};
use super::rows::{JournalPosition, apply, end_boot, position, reconcile, set_position};
use crate::engine::Now;
use oneknock_shared::knock::Timestamp;
use rusqlite::Connection;
use std::time::Duration;

/// The number of records that are projected in one commit.
const BATCH: usize = 4096;

#[derive(Debug)]
pub(crate) struct Projector {
    directory: StateDirectory,
    database: Connection,
    /// The run that is writing the log.
    run: RunId,
    at: JournalPosition,
    /// The segment of the position; none where it is not there.
    reader: Option<SegmentReader>,
    /// Segments were removed before they were read.
    pub is_gap: bool,
}

impl Projector {
    /// Opens the database, unless it is untrusted, for the log that this run writes. The log is
    /// read from the database's position on, where the log still has that; else from its first
    /// record on.
    pub fn open(
        directory: &StateDirectory,
        run: RunId,
        untrusted: Option<&str>,
    ) -> Result<Self, JournalError> {
        let database = database::open(directory, untrusted)?;
        let mut at = position(&database)?.unwrap_or_default();
        let mut reader = match SegmentReader::open(directory, at.segment) {
            Err(BadFile::Io(error)) => return Err(error.into()),
            Err(BadFile::Damaged(_)) => None,
            Ok(reader) => Some(reader),
        };
        match &mut reader {
            Some(reader) if reader.header.run == at.run => reader.seek(at.record + 1)?,
            // The log was lost, and its numbers begin again.
            Some(_) => (at.segment, at.is_complete, reader) = (0, false, None),
            None => {}
        }
        Ok(Self {
            directory: directory.clone(),
            database,
            run,
            at,
            reader,
            is_gap: false,
        })
    }

    /// The segment that is read.
    pub fn segment(&self) -> u32 {
        self.at.segment
    }

    /// Projects a portion of the log. Returns the number of records; none where there is nothing
    /// more to read.
    pub fn read_on(&mut self, now: Now) -> Result<Option<usize>, JournalError> {
        let Some(reader) = &mut self.reader else {
            self.enter_next()?;
            return Ok(Some(0));
        };
        let (mut records, mut is_end) = (Vec::new(), self.at.run != self.run);
        while records.len() < BATCH {
            match reader.next()? {
                Ok(LogRecord::Continued(_)) => is_end = true,
                Ok(record) => {
                    records.push(record);
                    continue;
                }
                // It may be written a moment later, unless the run is over.
                Err(_) => {}
            }
            break;
        }
        if records.is_empty() && is_end {
            self.enter_next()?;
            return Ok(Some(0));
        }
        let mut at = self.at.clone();
        at.record += u32::try_from(records.len()).unwrap_or(u32::MAX);
        reader.seek(at.record + 1)?;
        let times = records.iter().map(|record| match record {
            LogRecord::Granted(_, now) => now.mono,
            _ => Duration::ZERO,
        });
        at.now = times.max().unwrap_or(now.mono).max(at.now);
        if at != self.at {
            within(&self.database, |change| {
                set_position(change, &at)?;
                apply(change, &records)
            })?;
            self.at = at;
        }
        Ok((!records.is_empty()).then_some(records.len()))
    }

    /// Goes on in the next segment that is there. Where its run has just begun, or records
    /// before it were missed, the rows are made to agree with the state that it begins with.
    fn enter_next(&mut self) -> Result<(), JournalError> {
        let (before, segments) = (self.at.segment, self.directory.segments()?);
        let next = segments.range(before.saturating_add(1)..).next();
        let number = next.or(segments.first()).copied().unwrap_or(1);
        let is_next = number == before.saturating_add(1);
        let mut state = Vec::new();
        let opened = SegmentReader::open(&self.directory, number).and_then(|mut reader| {
            let is_agreed = is_next && reader.header.run == self.at.run;
            if !is_agreed {
                reader.read_state(|record| {
                    if matches!(record, LogRecord::Granted(..) | LogRecord::Retirement(..)) {
                        state.push(record);
                    }
                })?;
            }
            reader.seek(reader.header.state + 1)?;
            Ok((reader, is_agreed))
        });
        let (reader, is_agreed) = match opened {
            Ok(opened) => opened,
            Err(BadFile::Io(error)) => return Err(error.into()),
            // It was just removed, or its content was lost.
            Err(BadFile::Damaged(_)) => {
                (self.at.segment, self.at.run) = (number, RunId::default());
                self.reader = None;
                self.note_gap();
                return Ok(());
            }
        };
        let header = reader.header;
        if !is_next && before > 0 {
            self.note_gap();
        }
        let mut at = JournalPosition {
            run: header.run,
            segment: number,
            record: header.state,
            boot: header.boot,
            now: self.at.now.max(header.now.mono),
            is_complete: self.at.is_complete,
        };
        let is_boot = at.boot != self.at.boot;
        if is_boot {
            (at.now, at.is_complete) = (header.now.mono, header.is_first_of_boot);
        }
        within(&self.database, |change| {
            if is_boot {
                end_boot(change, self.at.now, header.now)?;
            }
            if !is_agreed {
                reconcile(change, &state, header.now)?;
            }
            set_position(change, &at)
        })?;
        (self.at, self.reader) = (at, Some(reader));
        Ok(())
    }

    fn note_gap(&mut self) {
        (self.at.is_complete, self.is_gap) = (false, true);
    }

    /// Removes a portion of the rows that are too old or too many. Returns whether there may be
    /// more of them.
    pub fn prune(&mut self, keep: Duration, wall: Timestamp) -> Result<bool, JournalError> {
        let mut at = self.at.clone();
        let pruned = within(&self.database, |change| {
            let (history, opened) = prune(change, keep, wall)?;
            at.is_complete &= opened == 0;
            set_position(change, &at)?;
            Ok(history.max(opened) >= usize::from(PORTION))
        })?;
        self.at = at;
        Ok(pruned)
    }
}
