//! One record of the spent log, as a value. [`super::codec`] gives its bytes.

use super::boot::BootId;
use crate::engine::{Close, EndReason, Event, Grant, Now, Spend, State};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::packet::PacketId;
use oneknock_shared::secret::GenerationId;

/// A random id, which tells the files of one run of the daemon from those of all others.
pub(super) type RunId = [u8; 16];

/// The first record of each segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub run: RunId,
    /// The run of which this one has read the state.
    pub before: RunId,
    pub number: u32,
    /// So many records of state follow.
    pub state: u32,
    /// The state is that before this record of the segment before; of a run's first segment,
    /// which has 0 here, that before the run.
    pub from: u32,
    /// The first segment that is needed for packets that no floor of the state refuses.
    pub first: u32,
    pub boot: BootId,
    /// Whether this is the first segment of the first run of this boot.
    pub is_first_of_boot: bool,
    /// When the state was taken.
    pub now: Now,
}

/// A note of the high-water mark, which is a record in a file of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MarkNote {
    /// Each note has a greater number than the one before.
    pub number: u64,
    /// Nothing later than this was accepted.
    pub until: Timestamp,
    pub run: RunId,
    pub boot: BootId,
    /// Whether the run has ended with everything on disk.
    pub is_clean: bool,
}

impl SegmentHeader {
    /// The header of the first segment of a run.
    pub fn of_run(run: RunId, before: RunId, number: u32, boot: BootId, now: Now) -> Self {
        Self {
            run,
            before,
            number,
            state: 0,
            from: 0,
            first: number,
            boot,
            is_first_of_boot: false,
            now,
        }
    }
}

/// One record. A timestamp at the end is the wall clock at the time of writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LogRecord {
    Header(SegmentHeader),
    Mark(MarkNote),
    /// A packet that is spent.
    Spent(Spend, Timestamp),
    /// A grant as it is from then on: made, renewed or, in a state, live.
    Granted(Grant, Now),
    /// A grant was ended before its time: by its key where there is no reason.
    Ended(Grant, Option<EndReason>, Timestamp),
    /// When an older generation ends, since a newer one was used.
    Retirement(GenerationId, Timestamp),
    /// A generation's replay floor.
    Floor(GenerationId, Timestamp),
    /// The replay floor of generations without a record.
    DefaultFloor(Timestamp),
    /// A key's last close of a target.
    Closed(Close),
    /// A packet that an earlier run has spent.
    Seen(GenerationId, Timestamp, PacketId),
    /// The last record of a segment: the log goes on in the segment of this number.
    Continued(u32),
}

impl LogRecord {
    /// The record of an event; none where nothing of it has to outlive the process. An expiry
    /// needs none: the record of the grant says when it ends.
    pub fn of(event: &Event, now: Now) -> Option<Self> {
        match event {
            Event::Granted { grant, .. } => Some(Self::Granted(grant.clone(), now)),
            Event::Closed { grant, .. } => Some(Self::Ended(grant.clone()?, None, now.wall)),
            Event::Ended { grant, why } if *why != EndReason::Expired => {
                Some(Self::Ended(grant.clone(), Some(*why), now.wall))
            }
            Event::Retiring {
                generation, ends, ..
            } => Some(Self::Retirement(*generation, *ends)),
            _ => None,
        }
    }
}

/// The records of a state, as many as the lower bound of their `size_hint` says.
pub(super) fn records_of(state: &State, now: Now) -> impl Iterator<Item = LogRecord> {
    let floors = state.floors.iter().map(|&(g, at)| LogRecord::Floor(g, at));
    let default = state.default_floor.map(LogRecord::DefaultFloor);
    let closes = state.closes.iter().cloned().map(LogRecord::Closed);
    let grants = state.grants.iter().cloned();
    let grants = grants.map(move |grant| LogRecord::Granted(grant, now));
    let ends = state.retirements.iter();
    let ends = ends.map(|&(g, at)| LogRecord::Retirement(g, at));
    let seen = state.seen.iter();
    let seen = seen.map(|&(generation, at, id)| LogRecord::Seen(generation, at, id));
    floors
        .chain(default)
        .chain(closes)
        .chain(grants)
        .chain(ends)
        .chain(seen)
}
