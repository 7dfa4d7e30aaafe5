//! Projects the log to the database, part by part.

use super::super::directory::{BadFile, StateDirectory};
use super::super::maintenance::CleanupHandle;
use super::super::record::{FileHeader, LogRecord};
use super::super::snapshot;
use super::cursor::{LogCursor, LogPart};
use super::database::{JournalError, open_or_make};
use super::pruning::{PrunedRows, prune};
use super::rows::{JournalPosition, apply, end_boot, position, reconcile, set_position, within};
use super::{JournalSettings, Shared};
use crate::engine::Now;
use oneknock_shared::knock::Timestamp;
use rusqlite::Connection;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The newest snapshot may be replaced while it is read: it is looked for this many times.
const TRIES: u32 = 10;

pub(super) struct Projector {
    database: Connection,
    cursor: LogCursor,
    at: JournalPosition,
    /// The snapshot that the rows are to agree with next.
    snapshot: Option<Snapshot>,
    /// The first segment of this run, the boot that it is in, and whether it is the first there.
    first_segment: u32,
    boot: String,
    first_of_boot: bool,
}

struct Snapshot {
    header: FileHeader,
    records: Vec<LogRecord>,
}

impl Projector {
    /// Opens the database. The log is read from the database's position on, where it still has
    /// that; else from its first record on. The rows are made to agree with the newest snapshot
    /// on the way, unless the position is behind it.
    pub fn open(settings: &mut JournalSettings, shared: &Shared) -> Result<Self, JournalError> {
        let directory = &settings.directory;
        let (database, replaced) = open_or_make(directory, settings.untrusted.as_deref())?;
        settings.untrusted = None;
        if replaced.is_some() {
            shared.status().replaced = replaced;
        }
        let snapshot = newest_snapshot(directory)?;
        let (run, first) = (snapshot.header.run, snapshot.header.number);
        let found = position(&database)?;
        let is_new = found.is_none();
        let mut at = found.unwrap_or(JournalPosition {
            run: [0; 16],
            record: 0,
            boot: settings.boot.clone(),
            now: Duration::ZERO,
            complete: settings.first_of_boot,
        });
        let is_after = at.run == run && at.record >> 32 >= u64::from(first);
        let last = if is_after { u32::MAX } else { first };
        let (cursor, is_exact) = LogCursor::after(directory, at.run, at.record, last)?;
        at.complete &= is_exact || (is_new && cursor.segment() <= settings.first_segment);
        Ok(Self {
            database,
            cursor,
            at,
            snapshot: (!is_after).then_some(snapshot),
            first_segment: settings.first_segment,
            boot: settings.boot.clone(),
            first_of_boot: settings.first_of_boot,
        })
    }

    /// Projects a part of the log, up to this record. Returns the number of records that were
    /// read; none where there is nothing more to read.
    pub fn read_on(
        &mut self,
        target: u64,
        now: Now,
        shared: &Shared,
        cleanup: &CleanupHandle,
    ) -> Result<Option<usize>, JournalError> {
        if self.at.boot != self.boot && self.cursor.segment() >= self.first_segment {
            self.switch_boot(now)?;
        }
        if self.is_at_snapshot() {
            self.agree(now)?;
            self.publish(shared, cleanup);
        }
        // Before the snapshot the log is read as far as it goes.
        let before = self
            .snapshot
            .as_ref()
            .map(|s| u64::from(s.header.number) << 32);
        match self.cursor.read(before.unwrap_or(target))? {
            LogPart::Nothing => {
                self.note_time(now)?;
                Ok(None)
            }
            LogPart::Records(records) => {
                let at = JournalPosition {
                    run: self.cursor.run().unwrap_or(self.at.run),
                    record: self.cursor.record(),
                    now: self.time_of(&records, now),
                    ..self.at.clone()
                };
                within(&self.database, |change| {
                    set_position(change, &at)?;
                    apply(change, &records)
                })?;
                self.at = at;
                Ok(Some(records.len()))
            }
            LogPart::SegmentEnd { complete } => {
                let is_own = self.cursor.segment() >= self.first_segment;
                let follows = self.cursor.next_segment()?;
                if !follows || (is_own && !complete) {
                    self.note_gap(shared);
                }
                self.note_segment(shared, cleanup)?;
                Ok(Some(0))
            }
        }
    }

    /// Whether the rows are to agree with the snapshot now.
    fn is_at_snapshot(&self) -> bool {
        let next = self.snapshot.as_ref();
        next.is_some_and(|snapshot| self.cursor.segment() >= snapshot.header.number)
    }

    /// The time of these records: of an earlier run, as far as the records say it.
    fn time_of(&self, records: &[LogRecord], now: Now) -> Duration {
        if self.snapshot.is_none() {
            return now.mono;
        }
        let times = records.iter().filter_map(|record| match record {
            LogRecord::Granted { now, .. } => Some(now.mono),
            _ => None,
        });
        times.max().unwrap_or_default().max(self.at.now)
    }

    /// Notes the time, so that after a reboot it is known which grants had expired.
    fn note_time(&mut self, now: Now) -> Result<(), JournalError> {
        if now.mono > self.at.now {
            self.at.now = now.mono;
            within(&self.database, |change| set_position(change, &self.at))?;
        }
        Ok(())
    }

    /// Removes a portion of the rows that are too old or too many.
    pub fn prune(&mut self, keep: Duration, wall: Timestamp) -> Result<PrunedRows, JournalError> {
        let at = JournalPosition {
            complete: false,
            ..self.at.clone()
        };
        let pruned = within(&self.database, |change| {
            let pruned = prune(change, keep, wall)?;
            if pruned.opened > 0 {
                set_position(change, &at)?;
            }
            Ok(pruned)
        })?;
        if pruned.opened > 0 {
            self.at = at;
        }
        Ok(pruned)
    }

    /// Notes where the cursor is, so that the segments before it can be removed.
    fn note_segment(
        &mut self,
        shared: &Shared,
        cleanup: &CleanupHandle,
    ) -> Result<(), JournalError> {
        if self.is_at_snapshot() {
            // The rows have to agree with the snapshot first.
            return Ok(());
        }
        if let Some(run) = self.cursor.find_run()? {
            self.at = JournalPosition {
                run,
                record: self.cursor.record(),
                ..self.at.clone()
            };
            within(&self.database, |change| set_position(change, &self.at))?;
        }
        self.publish(shared, cleanup);
        Ok(())
    }

    fn publish(&self, shared: &Shared, cleanup: &CleanupHandle) {
        let segment = self.cursor.segment();
        shared.segment.store(segment, Ordering::Relaxed);
        cleanup.ask();
    }

    fn note_gap(&mut self, shared: &Shared) {
        self.at.complete = false;
        shared.status().gaps += 1;
    }

    /// Ends what the last boot has left open, before the records of this one.
    fn switch_boot(&mut self, now: Now) -> Result<(), JournalError> {
        let is_whole = self.cursor.segment() == self.first_segment;
        let at = JournalPosition {
            boot: self.boot.clone(),
            now: now.mono,
            complete: self.first_of_boot && is_whole,
            ..self.at.clone()
        };
        within(&self.database, |change| {
            end_boot(change, self.at.now, now)?;
            set_position(change, &at)
        })?;
        self.at = at;
        Ok(())
    }

    /// Makes the rows agree with the snapshot, and goes on after it.
    fn agree(&mut self, now: Now) -> Result<(), JournalError> {
        let Some(snapshot) = &self.snapshot else {
            return Ok(());
        };
        let number = snapshot.header.number;
        let at = JournalPosition {
            run: snapshot.header.run,
            record: u64::from(number) << 32,
            now: now.mono,
            ..self.at.clone()
        };
        within(&self.database, |change| {
            reconcile(change, &snapshot.records, now)?;
            set_position(change, &at)
        })?;
        self.cursor = self.cursor.at_segment(number);
        (self.at, self.snapshot) = (at, None);
        Ok(())
    }
}

/// Reads the newest snapshot.
fn newest_snapshot(directory: &StateDirectory) -> Result<Snapshot, JournalError> {
    for _ in 0..TRIES {
        let files = directory.log_files()?;
        let Some(&newest) = files.snapshots.last() else {
            break;
        };
        let mut records = Vec::new();
        match snapshot::read(directory, newest, |record| records.push(record)) {
            Ok(header) => {
                return Ok(Snapshot { header, records });
            }
            Err(BadFile::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(BadFile::Io(error)) => return Err(error.into()),
            Err(BadFile::Damaged(why)) => {
                let why = format!("{newest:08}.snapshot: {why}");
                return Err(io::Error::other(why).into());
            }
        }
    }
    Err(io::Error::other("the log has no snapshot").into())
}
