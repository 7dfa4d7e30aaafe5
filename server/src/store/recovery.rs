//! Creates the state, and reads it back.

use super::boot::BootId;
use super::directory::{BadFile, MARK, SEGMENT, StateDirectory};
use super::fold::Fold;
use super::journal;
use super::mark::{self, HighWaterMark, MarkState};
use super::permissions::{InsecurePath, untrusted};
use super::reader::{SegmentEnd, SegmentReader};
use super::record::{MarkNote, RunId, SegmentHeader};
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

/// How the last run ended, which decides how its log may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LastRun {
    /// With everything on disk.
    Clean,
    /// By a kill, in the same boot: everything that was written is there, and the last record
    /// may have been written in part.
    Killed,
    /// By a power cut: any part that was not synced may be missing. The high-water mark is a
    /// floor for every packet that was accepted.
    PowerCut,
}

/// Creates the empty state, where there is no part of one.
pub(super) fn create(directory: &StateDirectory) -> io::Result<()> {
    let has_log = !directory.segments()?.is_empty();
    if has_log || directory.file(MARK).symlink_metadata().is_ok() {
        return Ok(());
    }
    let run = random().map_err(io::Error::other)?;
    let header = SegmentHeader {
        run,
        before: run,
        number: 1,
        state: 0,
        from: 0,
        first: 1,
        boot: BootId::default(),
        is_first_of_boot: false,
        now: Now {
            wall: Timestamp(0),
            mono: Duration::ZERO,
        },
    };
    Segment::create(directory, header, &State::default(), 0)?;
    journal::create(directory).map_err(io::Error::other)?;
    let note = MarkNote {
        number: 0,
        until: Timestamp(0),
        run,
        boot: BootId::default(),
        is_clean: true,
    };
    mark::create(directory, note).map(drop)
}

/// The parts of a store that was opened.
pub(super) struct Recovered {
    pub mark: HighWaterMark,
    /// Whether the next run is known to be the first one of this boot.
    pub is_first_of_boot: bool,
    pub recovery: Recovery,
}

/// Reads the state. Files that are damaged, or that others could have written, are moved aside.
pub(super) fn recover(
    directory: &StateDirectory,
    insecure: &[InsecurePath],
    now: Now,
) -> io::Result<Recovered> {
    let of_mark = untrusted(insecure, directory, |name| name == MARK);
    let of_log = untrusted(insecure, directory, |name| name.ends_with(SEGMENT));
    let (mark, state) = HighWaterMark::open(directory, of_mark.is_none())?;
    let note = match state {
        MarkState::Note(note) => Some(note),
        _ => None,
    };
    let same_boot = note.is_some_and(|note| note.boot.is_current());
    let log = match (of_log, note) {
        (Some(why), _) => Err(BadFile::Damaged(format!("it is not trusted: {why}"))),
        (None, None) => Ok(None),
        (None, Some(note)) => read_log(directory, note, same_boot),
    };
    let why = match log {
        Err(BadFile::Io(error)) => return Err(error),
        Err(BadFile::Damaged(why)) => {
            directory.move_log_aside()?;
            Some(format!(
                "the log is damaged ({why}); it was moved to *.damaged"
            ))
        }
        Ok(Some((fold, floor))) => {
            let (state, ended) = fold.finish(now, same_boot);
            return Ok(Recovered {
                mark,
                is_first_of_boot: !same_boot,
                recovery: Recovery::State {
                    state,
                    floor,
                    ended,
                },
            });
        }
        Ok(None) => None,
    };
    let why = match (state, why) {
        (MarkState::Missing, _) => "mark is missing".into(),
        (MarkState::Damaged, _) => {
            let why = of_mark.unwrap_or_else(|| "it cannot be read".into());
            format!("mark is damaged ({why}); it was moved to mark.damaged")
        }
        (_, why) => why.unwrap_or_else(|| "the log is missing".into()),
    };
    Ok(Recovered {
        mark,
        is_first_of_boot: note.is_some() && !same_boot,
        recovery: Recovery::Nothing(why),
    })
}

/// Reads the log of the run that has left this note; none where no segment is there. Returns the
/// floor too, after a power cut.
fn read_log(
    directory: &StateDirectory,
    note: MarkNote,
    same_boot: bool,
) -> Result<Option<(Fold, Option<Timestamp>)>, BadFile> {
    let last = match (note.is_clean, same_boot) {
        (true, _) => LastRun::Clean,
        (false, true) => LastRun::Killed,
        (false, false) => LastRun::PowerCut,
    };
    let Some(&newest) = directory.segments()?.last() else {
        return Ok(None);
    };
    let mut fold = Fold::default();
    if last == LastRun::PowerCut {
        read_what_is_left(directory, newest, &mut fold)?;
        return Ok(Some((fold, Some(note.until))));
    }
    read_all(directory, newest, (note.run, last), &mut fold)?;
    Ok(Some((fold, None)))
}

/// Reads the state that the newest segment begins with, and every record after it; of older
/// segments the packets. The newest segment may have been made, and not be in use yet.
fn read_all(
    directory: &StateDirectory,
    newest: u32,
    (run, last): (RunId, LastRun),
    fold: &mut Fold,
) -> Result<(), BadFile> {
    let (mut reader, header) = read_state(directory, newest, fold)?;
    if ![header.run, header.before].contains(&run) {
        let why = "it is not of the run that wrote the mark";
        return Err(of(newest, BadFile::Damaged(why.into())));
    }
    let mut before = SegmentEnd::Continued;
    for number in header.first..newest {
        let damaged = |what: &str| Err(of(number, BadFile::Damaged(what.into())));
        if before != SegmentEnd::Continued {
            return damaged("the segment before it has no end");
        }
        let mut older = SegmentReader::open(directory, number).map_err(|bad| of(number, bad))?;
        if older.header.run != header.run {
            return damaged("it is of another run");
        }
        let end = read_older(&mut older, &header, fold);
        before = end.map_err(|bad| of(number, bad))?;
        if number + 1 == newest && older.index < header.from {
            return damaged("its end is missing");
        }
    }
    let start = reader.index;
    let end = reader.read_rest(|_, record| fold.apply(record));
    let end = end.map_err(|bad| of(newest, bad))?;
    let is_in_use = reader.index > start || end != SegmentEnd::Blank;
    let damaged = |what: &str| Err(of(newest, BadFile::Damaged(what.into())));
    match (before, end) {
        (_, SegmentEnd::Continued) => damaged("the segment after it is missing"),
        (SegmentEnd::Blank | SegmentEnd::Torn, _) if is_in_use => {
            damaged("the segment before it has no end")
        }
        (SegmentEnd::Torn, _) | (_, SegmentEnd::Torn) if last == LastRun::Clean => {
            damaged("the last record of the log is torn")
        }
        _ => Ok(()),
    }
}

/// After a power cut: reads the records that are there, of each segment up to the first gap. The
/// state that the newest segment begins with was synced before the segment got its name.
fn read_what_is_left(
    directory: &StateDirectory,
    newest: u32,
    fold: &mut Fold,
) -> Result<(), BadFile> {
    let (mut reader, header) = read_state(directory, newest, fold)?;
    let ignore_damage = |read: Result<SegmentEnd, BadFile>| match read {
        Err(BadFile::Io(error)) => Err(BadFile::Io(error)),
        _ => Ok(()),
    };
    for number in header.first..newest {
        let older = SegmentReader::open(directory, number);
        ignore_damage(older.and_then(|mut older| read_older(&mut older, &header, fold)))?;
    }
    ignore_damage(reader.read_rest(|_, record| fold.apply(record)))
}

fn read_state(
    directory: &StateDirectory,
    number: u32,
    fold: &mut Fold,
) -> Result<(SegmentReader, SegmentHeader), BadFile> {
    let read = SegmentReader::open(directory, number).and_then(|mut reader| {
        reader.read_state(|record| fold.apply(record))?;
        Ok((reader.header, reader))
    });
    let (header, reader) = read.map_err(|bad| of(number, bad))?;
    Ok((reader, header))
}

/// Reads a segment before the newest one, which has this header.
fn read_older(
    older: &mut SegmentReader,
    newest: &SegmentHeader,
    fold: &mut Fold,
) -> Result<SegmentEnd, BadFile> {
    let is_last = older.header.number + 1 == newest.number;
    older.read_rest(|index, record| {
        if is_last && index >= newest.from {
            fold.apply(record);
        } else {
            fold.apply_older(&record);
        }
    })
}

/// Says of which segment it is.
fn of(number: u32, bad: BadFile) -> BadFile {
    match bad {
        BadFile::Damaged(why) => BadFile::Damaged(format!("{number:08}.log: {why}")),
        other @ BadFile::Io(_) => other,
    }
}
