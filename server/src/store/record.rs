//! One record of the spent log, as a value. [`super::codec`] gives its 192 bytes.

use crate::engine::{Close, EndReason, Event, Grant, Now, Spend};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::KeyName;
use oneknock_shared::packet::PacketId;
use oneknock_shared::secret::GenerationId;
use std::net::IpAddr;
use std::sync::Arc;

/// A random id, which tells the files of one run of the daemon from those of all others.
pub(super) type RunId = [u8; 16];

/// The kind of a file of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    /// A part of the log.
    Segment,
    /// The state that all records before a segment add up to.
    Snapshot,
}

/// The first record of each file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub kind: FileKind,
    pub run: RunId,
    /// The number of the segment; of a snapshot, the number of the segment that follows it.
    pub number: u32,
    /// Of a snapshot: the first segment that is needed for packets that no floor refuses. Of a
    /// segment: its own number.
    pub first: u32,
}

/// One record. `wall` is the wall clock at the time of writing, in whole milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LogRecord {
    /// The first record of a file.
    Header(FileHeader),
    /// A packet that is spent.
    Spent { spend: Spend, wall: Timestamp },
    /// A grant was made or renewed.
    Granted {
        grant: Grant,
        renewed: bool,
        from: IpAddr,
        now: Now,
    },
    /// A grant was closed by its key.
    Closed { grant: Grant, wall: Timestamp },
    /// A grant ended otherwise, before its time.
    Ended {
        grant: Grant,
        why: EndReason,
        wall: Timestamp,
    },
    /// An older generation ends, since a newer one was used.
    Retiring {
        key: Arc<KeyName>,
        generation: GenerationId,
        number: u32,
        ends: Timestamp,
        newer: u32,
        wall: Timestamp,
    },
    /// A generation's replay floor.
    Floor(GenerationId, Timestamp),
    /// The replay floor of generations without a record.
    DefaultFloor(Timestamp),
    /// A key's last close of a target.
    Close(Close),
    /// A grant that had not ended.
    Grant(Grant),
    /// When an older generation ends.
    Retirement(GenerationId, Timestamp),
    /// A packet that an earlier run has spent.
    Seen(GenerationId, Timestamp, PacketId),
    /// The last record of a segment: the log goes on in the next one.
    Continued,
    /// The last record of a snapshot.
    End,
}

impl LogRecord {
    /// The record of an event; none where nothing of it has to outlive the process. An expiry
    /// needs none: the record of the grant says when it ends.
    pub fn of(event: &Event, now: Now) -> Option<Self> {
        let wall = now.wall;
        Some(match event {
            Event::Granted {
                grant,
                renewed,
                from,
                ..
            } => Self::Granted {
                grant: grant.clone(),
                renewed: *renewed,
                from: *from,
                now,
            },
            Event::Closed { grant, .. } => Self::Closed {
                grant: grant.clone()?,
                wall,
            },
            Event::Ended { grant, why } if *why != EndReason::Expired => Self::Ended {
                grant: grant.clone(),
                why: *why,
                wall,
            },
            Event::Retiring {
                key,
                generation,
                number,
                ends,
                newer,
            } => Self::Retiring {
                key: Arc::clone(key),
                generation: *generation,
                number: *number,
                ends: *ends,
                newer: *newer,
                wall,
            },
            Event::Junk(_)
            | Event::Rejected(_)
            | Event::Accepted { .. }
            | Event::Ended { .. }
            | Event::Restored(_) => return None,
        })
    }
}
