//! Creates the state, and reads it back.

use super::boot::BootId;
use super::directory::{BadFile, MARK, SEGMENT, StateDirectory, damaged};
use super::fold::Fold;
use super::journal;
use super::mark::{self, HighWaterMark};
use super::permissions::{InsecurePath, untrusted};
use super::reader::{SegmentEnd, SegmentReader};
use super::record::{MarkNote, SegmentHeader};
use super::segment::Segment;
use crate::engine::{EndReason, Grant, Now, State};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::secret::random;
use std::io;
use std::time::Duration;

/// What [`super::Store::open`] has read back.
#[derive(Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The state of the last run.
    State {
        /// What was recorded. Its grants have not ended.
        state: State,
        /// After a power cut: the replay floor of every generation that there is or will be.
        floor: Option<Timestamp>,
        /// The grants that have ended since they were recorded.
        ended: Vec<(Grant, EndReason)>,
    },
    /// No state: it was missing or damaged. The text says which, and what became of it. Packets
    /// may have been accepted that nothing is known of.
    Nothing(String),
}

/// Creates the empty state, where there is no part of one.
pub(super) fn create(directory: &StateDirectory) -> io::Result<()> {
    let has_log = !directory.segments()?.is_empty();
    if has_log || directory.file(MARK).symlink_metadata().is_ok() {
        return Ok(());
    }
    let run = random().map_err(io::Error::other)?;
    let boot = BootId::default();
    let now = Now {
        wall: Timestamp(0),
        mono: Duration::ZERO,
    };
    let header = SegmentHeader::of_run(run, run, 1, boot, now);
    Segment::create(directory, header, &State::default(), 0)?;
    journal::create(directory).map_err(io::Error::other)?;
    let note = MarkNote {
        number: 0,
        until: Timestamp(0),
        run,
        boot,
        is_clean: true,
    };
    mark::create(directory, note).map(drop)
}

/// Reads the state. Files that are damaged, or that others could have written, are moved aside.
/// Returns also whether the next run is known to be the first one of this boot.
pub(super) fn recover(
    directory: &StateDirectory,
    insecure: &[InsecurePath],
    now: Now,
) -> io::Result<(HighWaterMark, bool, Recovery)> {
    let of_mark = untrusted(insecure, directory, |name| name == MARK);
    let of_log = untrusted(insecure, directory, |name| name.ends_with(SEGMENT));
    let (mark, note) = HighWaterMark::open(directory, of_mark)?;
    let same_boot = note.as_ref().is_ok_and(|note| note.boot.is_current());
    let is_first_of_boot = note.is_ok() && !same_boot;
    let log = match (of_log, &note) {
        (Some(why), _) => Err(BadFile::Damaged(format!("it is not trusted: {why}"))),
        (None, Err(_)) => Ok(None),
        (None, Ok(note)) => read_log(directory, note, same_boot),
    };
    let recovery = match (log, note) {
        (Err(BadFile::Io(error)), _) => return Err(error),
        (Err(BadFile::Damaged(why)), note) => {
            directory.move_log_aside()?;
            let why = format!("the log is damaged ({why}); it was moved to *.damaged");
            Recovery::Nothing(note.err().unwrap_or(why))
        }
        (Ok(_), Err(why)) => Recovery::Nothing(why),
        (Ok(None), Ok(_)) => Recovery::Nothing("the log is missing".into()),
        (Ok(Some(fold)), Ok(note)) => {
            let is_cut = !note.is_clean && !same_boot;
            let (state, ended) = fold.finish(now, same_boot);
            Recovery::State {
                state,
                floor: is_cut.then_some(note.until),
                ended,
            }
        }
    };
    Ok((mark, is_first_of_boot, recovery))
}

/// Reads the log of the run that has left this note; none where no segment is there: the state
/// that the newest segment begins with, and every record after that; of older segments the
/// packets. The newest segment may have been made, and not be in use yet.
///
/// After a kill everything that was written is there, and the last record may have been written
/// in part. After a power cut any part that was not synced may be missing, and each segment is
/// read up to its first gap: the high-water mark is a floor for every packet that was accepted.
fn read_log(
    directory: &StateDirectory,
    note: &MarkNote,
    same_boot: bool,
) -> Result<Option<Fold>, BadFile> {
    let Some(&newest) = directory.segments()?.last() else {
        return Ok(None);
    };
    let mut fold = Fold::default();
    let mut reader = SegmentReader::open(directory, newest)?;
    reader.read_state(|record| fold.apply(record, false))?;
    let is_cut = !note.is_clean && !same_boot;
    let tolerate = |end: Result<SegmentEnd, BadFile>| match end {
        Err(BadFile::Damaged(_)) if is_cut => Ok(SegmentEnd::Continued),
        end => end,
    };
    let header = reader.header;
    let mut before = SegmentEnd::Continued;
    for number in header.first..newest {
        before = tolerate(read_older(directory, number, &header, &mut fold))?;
    }
    let start = reader.index;
    let end = tolerate(reader.read_rest(|_, record| fold.apply(record, false)))?;
    let is_in_use = reader.index > start || end != SegmentEnd::Blank;
    let is_torn = [before, end].contains(&SegmentEnd::Torn);
    let why = if ![header.run, header.before].contains(&note.run) {
        "it is not of the run that wrote the mark"
    } else if end == SegmentEnd::Continued {
        "the segment after it is missing"
    } else if before != SegmentEnd::Continued && is_in_use {
        "the segment before it has no end"
    } else if is_torn && note.is_clean {
        "the last record of the log is torn"
    } else {
        return Ok(Some(fold));
    };
    tolerate(Err(damaged(newest, why))).map(|_| Some(fold))
}

/// Reads a segment before the newest one, which has this header.
fn read_older(
    directory: &StateDirectory,
    number: u32,
    newest: &SegmentHeader,
    fold: &mut Fold,
) -> Result<SegmentEnd, BadFile> {
    let mut older = SegmentReader::open(directory, number)?;
    if older.header.run != newest.run {
        return Err(damaged(number, "it is of another run"));
    }
    let is_last = number + 1 == newest.number;
    let end = older.read_rest(|index, record| {
        fold.apply(record, !is_last || index < newest.from);
    })?;
    let is_whole = if is_last {
        older.index >= newest.from
    } else {
        end == SegmentEnd::Continued
    };
    is_whole
        .then_some(end)
        .ok_or_else(|| damaged(number, "its end is missing"))
}
