//! A run of the daemon: all that is appended to the log.

use super::boot::BootId;
use super::codec::{RECORD_LEN, encode};
use super::directory::{BadFile, StateDirectory};
use super::errors::StoreError;
use super::mark::HighWaterMark;
use super::packets::SpentPackets;
use super::record::{LogRecord, RunId, SegmentHeader, records_of};
use super::segment::{PartlyWritten, Segment};
use super::worker::{NextSegment, StoreWorker, WorkerSettings};
use crate::engine::{Event, Now, Spend, State};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::secret::{GenerationId, random};
use std::io;
use std::time::Duration;

/// Bytes of a segment under little load.
const MIN_SEGMENT: u64 = 1 << 20;
/// Bytes of a segment under the greatest load.
const MAX_SEGMENT: u64 = 32 << 20;
/// The greatest size of a segment that a long state can ask for, in bytes.
const LARGEST: u64 = 8 * MAX_SEGMENT;
/// A segment that is full within this time is followed by a larger one.
const FULL_SOON: Duration = Duration::from_secs(10);
const GROWTH: u64 = 4;

/// The log, open for appending, and the thread behind it.
#[derive(Debug)]
pub(super) struct Run {
    directory: StateDirectory,
    segment: Segment,
    /// The header of the segment that the next one is made after.
    header: SegmentHeader,
    /// Whether the next segment is being made.
    pub is_asked: bool,
    /// The next segment, which could not be switched to.
    made: Option<Segment>,
    packets: SpentPackets,
    /// Outcomes that could not be written: they are written before everything else.
    pending: Vec<LogRecord>,
    /// Encoded records; kept for its room.
    buffer: Vec<u8>,
    /// The size that this segment was to have, in bytes.
    size: u64,
    pub worker: StoreWorker,
}

impl Run {
    /// Begins a run with this state, in a segment of its own, which is on disk before the mark
    /// is begun. A power cut or a kill on the way leaves the old run's files valid.
    pub fn begin(
        settings: WorkerSettings,
        state: &State,
        mark: &mut HighWaterMark,
        until: Timestamp,
    ) -> Result<Self, StoreError> {
        let (directory, header) = (settings.directory.clone(), settings.header);
        let segment = Segment::create(&directory, header, state, MIN_SEGMENT);
        let segment = segment.map_err(StoreError::Log)?;
        let begun = mark.begin(until, header.run);
        begun.map_err(StoreError::Mark)?;
        let mut packets = SpentPackets::new(header.number);
        for &(generation, at, id) in &state.seen {
            packets.insert(id);
            packets.keep(generation, at);
        }
        Ok(Self {
            directory,
            segment,
            header,
            is_asked: false,
            made: None,
            packets,
            pending: Vec::new(),
            buffer: Vec::new(),
            size: MIN_SEGMENT,
            worker: StoreWorker::start(settings),
        })
    }

    /// See [`super::SpentLog::spend`].
    pub fn spend(
        &mut self,
        mark: &mut HighWaterMark,
        batch: &[Spend],
        now: Now,
    ) -> Result<Vec<bool>, StoreError> {
        self.switch().map_err(|part| StoreError::Log(part.error))?;
        let fresh: Vec<bool> = batch.iter().map(|s| self.packets.insert(s.id)).collect();
        let new = batch.iter().zip(&fresh).filter(|(_, fresh)| **fresh);
        let new: Vec<&Spend> = new.map(|(spend, _)| spend).collect();
        let Some(last) = new.iter().map(|spend| spend.at).max() else {
            return Ok(fresh);
        };
        let record = |spend: &&Spend| LogRecord::Spent((*spend).clone(), now.wall);
        let (written, error) = match mark.cover(last) {
            Err(error) => (0, Some(StoreError::Mark(error))),
            Ok(()) => match self.append(new.iter().map(record)) {
                Ok(()) => (new.len(), None),
                Err(part) => (part.written, Some(StoreError::Log(part.error))),
            },
        };
        // A packet in the log stays spent, although the caller gets an error.
        for spend in &new[..written] {
            self.packets.keep(spend.generation, spend.at);
        }
        for spend in &new[written..] {
            self.packets.remove(spend);
        }
        error.map_or(Ok(fresh), Err)
    }

    /// See [`super::Store::note`].
    pub fn note(&mut self, events: &[Event], now: Now) -> Result<(), StoreError> {
        let records = events.iter().filter_map(|event| LogRecord::of(event, now));
        let noted = self.append_all(&records.collect::<Vec<_>>());
        // Not for what anybody can cause by sending a captured packet again.
        let is_outcome = |event: &Event| !matches!(event, Event::Junk(_) | Event::Rejected(_));
        if events.iter().any(is_outcome) {
            self.worker.appended(now);
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
        let switched = self.switch();
        let appended = switched.and_then(|()| self.append(records.iter().cloned()));
        appended.map_err(|part| {
            self.pending.extend_from_slice(&records[part.written..]);
            StoreError::Log(part.error)
        })
    }

    /// Appends these records, after those that are pending.
    fn append(&mut self, records: impl Iterator<Item = LogRecord>) -> Result<(), PartlyWritten> {
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
        let before = self.pending.len();
        let done = self.segment.append(&self.buffer);
        let written = done.as_ref().map_or_else(|part| part.written, |()| before);
        self.pending.drain(..written.min(before));
        done.map_err(|part| PartlyWritten {
            written: part.written.saturating_sub(before),
            error: part.error,
        })
    }

    /// Goes on in the next segment, if it is made.
    fn switch(&mut self) -> Result<(), PartlyWritten> {
        if !self.is_asked {
            return Ok(());
        }
        let Some(next) = self.made.take().or_else(|| self.worker.made()) else {
            return Ok(());
        };
        let mut end = Vec::new();
        let record = LogRecord::Continued(next.number());
        encode(&record, self.segment.position(), &mut end);
        if let Err(part) = self.segment.append(&end) {
            self.made = Some(next);
            return Err(part);
        }
        self.packets.switch(next.number());
        (self.segment, self.is_asked) = (next, false);
        Ok(())
    }

    /// See [`super::Store::is_full`].
    pub fn is_full(&self) -> bool {
        !self.is_asked && self.segment.is_full()
    }

    /// See [`super::Store::rotate`].
    pub fn rotate(&mut self, mut state: State, now: Now) {
        if self.is_asked {
            return;
        }
        state.seen = Vec::new();
        self.packets.forget_below(&state.floors);
        let was_soon = now.mono.saturating_sub(self.header.now.mono) < FULL_SOON;
        let grown = if was_soon { self.size * GROWTH } else { 0 };
        let grown = grown.clamp(MIN_SEGMENT, MAX_SEGMENT);
        // States are to be the smaller part of what is written.
        let records = (records_of(&state, now).size_hint().0 * RECORD_LEN) as u64;
        self.size = grown.max(2 * records).min(LARGEST);
        let position = self.segment.position();
        self.header = SegmentHeader {
            number: position.number + 1,
            from: position.index,
            first: self.packets.first(),
            is_first_of_boot: false,
            now,
            ..self.header
        };
        self.worker.make(NextSegment {
            header: self.header,
            state,
            size: self.size,
        });
        self.is_asked = true;
    }

    /// Writes everything to disk.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        let written = self.append(std::iter::empty());
        written.map_err(|part| StoreError::Log(part.error))?;
        for number in self.segment.first()..=self.segment.number() {
            match self.directory.open(number) {
                Ok(file) => file.sync_data().map_err(StoreError::Log)?,
                Err(BadFile::Io(error)) => return Err(StoreError::Log(error)),
                // The next segment is made, and does not need it; or the next start says so.
                Err(BadFile::Damaged(_)) => {}
            }
        }
        self.directory.sync().map_err(StoreError::Log)
    }
}

/// The header of the first segment of a run, which follows every segment that is there.
pub(super) fn first_header(
    directory: &StateDirectory,
    before: RunId,
    is_first_of_boot: bool,
    now: Now,
) -> io::Result<SegmentHeader> {
    let run = random().map_err(io::Error::other)?;
    let last = directory.segments()?.last().copied().unwrap_or(0);
    let number = last.checked_add(1);
    let number = number.ok_or_else(|| io::Error::other("the log has no number left"))?;
    let boot = BootId::current();
    Ok(SegmentHeader {
        is_first_of_boot,
        ..SegmentHeader::of_run(run, before, number, boot, now)
    })
}
