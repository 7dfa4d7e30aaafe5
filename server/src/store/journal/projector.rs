//! The database, and how far of the log it is.

use super::super::directory::BadFile;
use super::super::keeper::Tidier;
use super::super::record::{FileHeader, LogRecord};
use super::super::snapshot;
use super::cursor::{LogCursor, LogPart};
use super::database::{JournalError, open_or_make};
use super::pruning::{PrunedRows, prune};
use super::rows::{JournalPosition, apply, position, reconcile, set_position, within};
use super::{JournalSettings, Shared};
use crate::engine::Now;
use oneknock_shared::knock::Timestamp;
use rusqlite::Connection;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// So often the newest snapshot is looked for, while another one takes its place.
const TRIES: u32 = 10;

pub(super) struct Projector {
    pub database: Connection,
    cursor: LogCursor,
    at: JournalPosition,
    /// The snapshot that the rows are to agree with, before they go on from it.
    snapshot: Option<Snapshot>,
    first_segment: u32,
}

struct Snapshot {
    header: FileHeader,
    records: Vec<LogRecord>,
    /// What the position says when the rows agree with it.
    boot: String,
    complete: bool,
}

impl Projector {
    /// Opens the database. It reads on where it was, if the log has that; else from what the
    /// log has.
    pub fn open(settings: &mut JournalSettings, shared: &Shared) -> Result<Self, JournalError> {
        let directory = &settings.directory;
        let (database, replaced) = open_or_make(directory, settings.untrusted.as_deref())?;
        settings.untrusted = None;
        if replaced.is_some() {
            shared.status().replaced = replaced;
        }
        let mut snapshot = newest_snapshot(settings)?;
        let (run, first) = (snapshot.header.run, snapshot.header.number);
        let is_start = first == settings.first_segment;
        let found = position(&database)?;
        let is_new = found.is_none();
        let at = found.unwrap_or(JournalPosition {
            run: [0; 16],
            record: 0,
            boot: settings.boot.clone(),
            complete: settings.first_of_boot && is_start,
        });
        if at.run == run && at.record >> 32 >= u64::from(first) {
            let (cursor, _) = LogCursor::after(directory, run, at.record, u32::MAX)?;
            return Ok(Self {
                database,
                cursor,
                at,
                snapshot: None,
                first_segment: settings.first_segment,
            });
        }
        let (cursor, is_exact) = LogCursor::after(directory, at.run, at.record, first)?;
        snapshot.complete = if at.boot == settings.boot {
            at.complete && (is_exact || is_new)
        } else {
            settings.first_of_boot && is_start
        };
        Ok(Self {
            database,
            cursor,
            at,
            snapshot: Some(snapshot),
            first_segment: settings.first_segment,
        })
    }

    /// Makes rows of a part of the log, up to this record. Returns of how many records; nothing
    /// where there is no more.
    pub fn read_on(
        &mut self,
        target: u64,
        now: Now,
        shared: &Shared,
        tidier: &Tidier,
    ) -> Result<Option<usize>, JournalError> {
        if let Some(snapshot) = &self.snapshot
            && self.cursor.segment() >= snapshot.header.number
        {
            self.agree(now)?;
        }
        // What is before the snapshot is read as far as it goes.
        let before = self
            .snapshot
            .as_ref()
            .map(|s| u64::from(s.header.number) << 32);
        match self.cursor.read(before.unwrap_or(target))? {
            LogPart::Nothing => Ok(None),
            LogPart::Records(records) => {
                let at = JournalPosition {
                    run: self.cursor.run().unwrap_or(self.at.run),
                    record: self.cursor.record(),
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
                let segment = self.cursor.segment();
                shared.segment.store(segment, Ordering::Relaxed);
                tidier.ask();
                Ok(Some(0))
            }
        }
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

    fn note_gap(&mut self, shared: &Shared) {
        self.at.complete = false;
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.complete = false;
        }
        shared.status().lost_segments += 1;
    }

    /// Makes the rows agree with the snapshot, and goes on from it.
    fn agree(&mut self, now: Now) -> Result<(), JournalError> {
        let Some(snapshot) = &self.snapshot else {
            return Ok(());
        };
        let number = snapshot.header.number;
        let at = JournalPosition {
            run: snapshot.header.run,
            record: u64::from(number) << 32,
            boot: snapshot.boot.clone(),
            complete: snapshot.complete,
        };
        let is_other_boot = self.at.boot != at.boot;
        within(&self.database, |change| {
            reconcile(change, &snapshot.records, is_other_boot, now)?;
            set_position(change, &at)
        })?;
        self.cursor = self.cursor.at_segment(number);
        (self.at, self.snapshot) = (at, None);
        Ok(())
    }
}

/// Reads the newest snapshot. Another one may take its place meanwhile.
fn newest_snapshot(settings: &JournalSettings) -> Result<Snapshot, JournalError> {
    for _ in 0..TRIES {
        let files = settings.directory.log_files()?;
        let Some(&newest) = files.snapshots.last() else {
            break;
        };
        let mut records = Vec::new();
        match snapshot::read(&settings.directory, newest, |record| records.push(record)) {
            Ok(header) => {
                return Ok(Snapshot {
                    header,
                    records,
                    boot: settings.boot.clone(),
                    complete: false,
                });
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
