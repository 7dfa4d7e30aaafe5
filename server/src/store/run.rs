//! A run of the daemon: all that is appended to the log.

use super::codec::{RECORD_LEN, encode};
use super::directory::{BadFile, StateDirectory};
use super::errors::StoreError;
use super::journal::{Journal, JournalSettings};
use super::maintenance::{Maintenance, Newest, Switch};
use super::mark::HighWaterMark;
use super::record::{FileHeader, FileKind, LogRecord};
use super::segment::{MAX_SEGMENT, MIN_SEGMENT, Segment};
use super::snapshot;
use super::spent_ids::SpentIds;
use crate::engine::{Event, Now, Spend, State};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::secret::{GenerationId, random};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// A segment is full when it has room for fewer records: a batch and its outcomes still fit.
const RESERVE: u32 = 256;
/// A segment that was full within this time is followed by a larger one.
const FULL_SOON: Duration = Duration::from_secs(10);
const GROWTH: u64 = 4;
/// The greatest size of a segment that snapshots can ask for, in bytes.
const LARGEST: u64 = 8 * MAX_SEGMENT;

/// The log, open for appending, and its two threads.
#[derive(Debug)]
pub(super) struct Run {
    directory: StateDirectory,
    segment: Segment,
    /// The next segment, once it is prepared.
    prepared: Option<Segment>,
    ids: SpentIds,
    /// Of the current segment.
    newest: Newest,
    /// Outcomes that could not be written: they are written before everything else.
    pending: Vec<LogRecord>,
    /// Encoded records; kept for its room.
    buffer: Vec<u8>,
    /// When this segment was switched to, since boot.
    switched: Duration,
    /// The size that this segment was to have, in bytes.
    size: u64,
    /// Dropped before the maintenance, whose thread ends when the journal asks no more.
    pub journal: Journal,
    maintenance: Maintenance,
}

/// A failed append: only the first records were written.
struct NotWritten {
    written: usize,
    error: io::Error,
}

impl Run {
    /// Begins a run with this state. A new segment gets the packets of the state, and the
    /// snapshot before it the rest. Both are on disk before the mark is begun. A power cut or a
    /// kill on the way leaves the old run's files valid.
    pub fn begin(
        directory: &StateDirectory,
        state: &State,
        begin_mark: impl FnOnce() -> io::Result<()>,
        journal: impl FnOnce(u32) -> JournalSettings,
        now: Now,
    ) -> Result<Self, StoreError> {
        let log = StoreError::Log;
        let files = directory.log_files().map_err(log)?;
        let last = files.segments.last().max(files.snapshots.last());
        let number = last.map_or(Some(1), |last| last.checked_add(1));
        let number = number.ok_or_else(|| log(io::Error::other("it has no number left")))?;
        let run = random().map_err(|error| log(io::Error::other(error)))?;
        let seen = state.seen.iter();
        let seen = seen.map(|&(generation, at, id)| LogRecord::Seen(generation, at, id));
        let size = MIN_SEGMENT + (state.seen.len() * RECORD_LEN) as u64;
        let segment = Segment::create(directory, run, number, size, seen).map_err(log)?;
        let header = FileHeader {
            kind: FileKind::Snapshot,
            run,
            number,
            first: number,
        };
        snapshot::write(directory, header, state).map_err(log)?;
        begin_mark().map_err(StoreError::Mark)?;
        let mut newest = Newest::new();
        let mut ids = SpentIds::new(number);
        for &(generation, at, id) in &state.seen {
            ids.insert(id);
            raise(&mut newest, generation, at);
        }
        let reads = Arc::new(AtomicU32::new(0));
        let maintenance = Maintenance::start(directory.clone(), run, number, Arc::clone(&reads));
        let journal = Journal::start(journal(number), reads, maintenance.cleanup());
        Ok(Self {
            directory: directory.clone(),
            segment,
            prepared: None,
            ids,
            newest,
            pending: Vec::new(),
            buffer: Vec::new(),
            switched: now.mono,
            size: MIN_SEGMENT,
            journal,
            maintenance,
        })
    }

    /// See [`super::SpentLog::spend`].
    pub fn spend(
        &mut self,
        mark: &mut HighWaterMark,
        batch: &[Spend],
        now: Now,
    ) -> Result<Vec<bool>, StoreError> {
        let fresh: Vec<bool> = batch.iter().map(|s| self.ids.insert(s.id)).collect();
        let new = batch.iter().zip(&fresh).filter(|(_, fresh)| **fresh);
        let new: Vec<&Spend> = new.map(|(spend, _)| spend).collect();
        let Some(last) = new.iter().map(|spend| spend.at).max() else {
            return Ok(fresh);
        };
        let covered = mark
            .cover(last)
            .map_err(|error| (0, StoreError::Mark(error)));
        let written = covered.and_then(|()| {
            let record = |spend: &&Spend| LogRecord::Spent {
                spend: (*spend).clone(),
                wall: now.wall,
            };
            let appended = self.append(new.iter().map(record));
            appended.map_err(|e| (e.written, StoreError::Log(e.error)))
        });
        // A packet in the log stays spent, although the caller gets an error.
        let kept = written
            .as_ref()
            .map_or_else(|(kept, _)| *kept, |()| new.len());
        for spend in &new[..kept] {
            raise(&mut self.newest, spend.generation, spend.at);
        }
        for spend in &new[kept..] {
            self.ids.remove(spend.id);
        }
        written.map_or_else(|(_, error)| Err(error), |()| Ok(fresh))
    }

    /// See [`super::Store::note`].
    pub fn note(&mut self, events: &[Event], now: Now) -> Result<(), StoreError> {
        let records = events.iter().filter_map(|event| LogRecord::of(event, now));
        let noted = self.append_all(&records.collect::<Vec<_>>());
        // Not for what anybody can cause by sending a captured packet again.
        let is_outcome = |event: &Event| !matches!(event, Event::Junk(_) | Event::Rejected(_));
        if events.iter().any(is_outcome) {
            self.publish(now);
        }
        noted
    }

    /// See [`super::Store::raise_floors`].
    pub fn raise_floors(&mut self, floors: &[(GenerationId, Timestamp)]) -> Result<(), StoreError> {
        let records = floors.iter().map(|&(id, at)| LogRecord::Floor(id, at));
        self.append_all(&records.collect::<Vec<_>>())
    }

    /// Appends these records. Those that could not be written are kept for the next time.
    fn append_all(&mut self, records: &[LogRecord]) -> Result<(), StoreError> {
        self.append(records.iter().cloned()).map_err(|not| {
            self.pending.extend_from_slice(&records[not.written..]);
            StoreError::Log(not.error)
        })
    }

    fn append(&mut self, records: impl Iterator<Item = LogRecord>) -> Result<(), NotWritten> {
        self.buffer.clear();
        let mut position = self.segment.position();
        let mut push = |record: &LogRecord| {
            encode(record, position, &mut self.buffer);
            position.index += 1;
        };
        self.pending.iter().for_each(&mut push);
        records.for_each(|record| push(&record));
        if self.buffer.is_empty() {
            return Ok(());
        }
        match self.segment.append(&self.buffer) {
            Ok(()) => {
                self.pending.clear();
                Ok(())
            }
            Err(part) => {
                let before = self.pending.len();
                self.pending.drain(..part.written.min(before));
                Err(NotWritten {
                    written: part.written.saturating_sub(before),
                    error: part.error,
                })
            }
        }
    }

    /// Has the journal read everything that is in the log now.
    fn publish(&self, now: Now) {
        self.journal.publish(self.last_record(), now);
    }

    /// See [`super::Store::flush_journal`].
    pub fn flush_journal(&self) -> Receiver<Result<(), String>> {
        self.journal.flush(self.last_record())
    }

    /// Segment * 2^32 + index.
    fn last_record(&self) -> u64 {
        let position = self.segment.position();
        u64::from(position.number) << 32 | u64::from(position.index - 1)
    }

    /// See [`super::Store::is_full`].
    pub fn is_full(&mut self) -> bool {
        if !self.segment.is_full_with(RESERVE) {
            return false;
        }
        self.prepared = self.prepared.take().or_else(|| self.maintenance.prepared());
        self.prepared.is_some()
    }

    /// See [`super::Store::rotate`].
    pub fn rotate(&mut self, snapshot: State, now: Now) -> Result<(), StoreError> {
        let next = self.prepared.take().or_else(|| self.maintenance.prepared());
        let Some(next) = next else {
            return Ok(());
        };
        let end = self.append([LogRecord::Continued].into_iter());
        if let Err(not) = end {
            self.prepared = Some(next);
            return Err(StoreError::Log(not.error));
        }
        let records = snapshot.floors.len() + snapshot.closes.len();
        let records = records + snapshot.grants.len() + snapshot.retirements.len();
        let was_soon = now.mono.saturating_sub(self.switched) < FULL_SOON;
        let grown = if was_soon { self.size * GROWTH } else { 0 };
        let grown = grown.clamp(MIN_SEGMENT, MAX_SEGMENT);
        // Snapshots are to be the smaller part of what is written.
        let size = grown.max(2 * (records * RECORD_LEN) as u64).min(LARGEST);
        let switch = Switch {
            number: next.number,
            retired: std::mem::replace(&mut self.segment, next),
            newest: std::mem::take(&mut self.newest),
            state: snapshot,
            size,
        };
        (self.size, self.switched) = (size, now.mono);
        self.ids.switch(switch.number, self.maintenance.first());
        let switched = self.maintenance.switched(switch).map_err(StoreError::Log);
        self.publish(now);
        switched
    }

    /// The segment that is appended to.
    #[cfg(test)]
    pub fn segment_number(&self) -> u32 {
        self.segment.number
    }

    /// See [`super::Store::trouble`].
    pub fn trouble(&self) -> Option<String> {
        self.maintenance.trouble()
    }

    /// Writes everything to disk.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        let not_written = |not: NotWritten| StoreError::Log(not.error);
        self.append(std::iter::empty()).map_err(not_written)?;
        self.sync_files().map_err(StoreError::Log)
    }

    fn sync_files(&self) -> io::Result<()> {
        for number in self.maintenance.first()..self.segment.number {
            match self.directory.open(&self.directory.segment(number)) {
                Ok(file) => file.sync_data()?,
                // The maintenance thread has removed it meanwhile.
                Err(_) if number < self.maintenance.first() => {}
                Err(BadFile::Io(error)) => return Err(error),
                Err(BadFile::Damaged(why)) => return Err(io::Error::other(why)),
            }
        }
        self.segment.sync()?;
        self.directory.sync()
    }
}

fn raise(newest: &mut Newest, generation: GenerationId, at: Timestamp) {
    let known = newest.entry(generation).or_insert(at);
    *known = at.max(*known);
}
