//! Reads the log back: the newest snapshot, and the segments from there on.

use super::directory::{BadFile, LogFiles, StateDirectory};
use super::fold::Fold;
use super::reader::{FileEnd, FileSummary, read_file};
use super::record::{FileHeader, FileKind, LogRecord};
use super::snapshot;
use std::io;

/// How the last run ended, which decides how its log may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastRun {
    /// With everything on disk.
    Clean,
    /// By a kill, in the same boot: everything that was written is there, and the last record
    /// may have been written in part.
    Killed,
    /// By a power cut: any part that was not synced may be missing. The high-water mark is a
    /// floor for every packet that was accepted.
    PowerCut,
}

/// Why there is no log to read.
#[derive(Debug)]
pub(super) enum NoLog {
    /// None of its files is there.
    Missing,
    /// No run can have left it so.
    Damaged(String),
    /// It cannot be read, for a reason that may pass.
    Io(io::Error),
}

impl From<io::Error> for NoLog {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads the log. A segment that was prepared and never used is removed.
pub(super) fn read_log(directory: &StateDirectory, last: LastRun) -> Result<Fold, NoLog> {
    let files = directory.log_files()?;
    let Some(&newest) = files.snapshots.last() else {
        let why = "it has no snapshot".into();
        let is_missing = files.segments.is_empty();
        return Err(if is_missing {
            NoLog::Missing
        } else {
            NoLog::Damaged(why)
        });
    };
    let mut fold = Fold::default();
    let header = snapshot::read(directory, newest, |record| fold.apply(record))
        .map_err(|bad| named(bad, newest, FileKind::Snapshot))?;
    if !(1..=newest).contains(&header.first) {
        return Err(NoLog::Damaged("its snapshot is of no log".into()));
    }
    if last == LastRun::PowerCut {
        read_what_is_left(directory, &files, header, &mut fold)?;
    } else {
        read_all(directory, &files, header, last, &mut fold)?;
    }
    Ok(fold)
}

fn named(bad: BadFile, number: u32, kind: FileKind) -> NoLog {
    let name = match kind {
        FileKind::Segment => "log",
        FileKind::Snapshot => "snapshot",
    };
    match bad {
        BadFile::Damaged(why) => NoLog::Damaged(format!("{number:08}.{name}: {why}")),
        BadFile::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            NoLog::Damaged(format!("{number:08}.{name} is missing"))
        }
        BadFile::Io(error) => NoLog::Io(error),
    }
}

/// Reads every segment from the first that is needed to the last: a row without a gap.
fn read_all(
    directory: &StateDirectory,
    files: &LogFiles,
    header: FileHeader,
    last: LastRun,
    fold: &mut Fold,
) -> Result<(), NoLog> {
    let mut number = header.first;
    loop {
        let found = read_segment(directory, number, header, fold)
            .map_err(|bad| named(bad, number, FileKind::Segment))?;
        let damaged = |what: &str| {
            let why = format!("{number:08}.log: {what}");
            Err(NoLog::Damaged(why))
        };
        if found.header.run != header.run {
            return damaged("it is of another run");
        }
        match found.end {
            FileEnd::Complete => number += 1,
            _ if number < header.number => return damaged("its end is missing"),
            FileEnd::Torn if last == LastRun::Clean => return damaged("its last record is torn"),
            FileEnd::Torn | FileEnd::Blank => break,
        }
    }
    remove_unused(directory, files, header, number)
}

/// Removes the segment after the last one, if it is there: it was prepared, or a run was killed
/// while it began. Any other segment there is damage.
fn remove_unused(
    directory: &StateDirectory,
    files: &LogFiles,
    header: FileHeader,
    last: u32,
) -> Result<(), NoLog> {
    let mut after = files.segments.range(last + 1..);
    let Some(&unused) = after.next() else {
        return Ok(());
    };
    if unused != last + 1 || after.next().is_some() {
        return Err(NoLog::Damaged(format!("{unused:08}.log follows a gap")));
    }
    let path = directory.segment(unused);
    let read = directory.open(&path);
    let read = read.and_then(|file| read_file(file, FileKind::Segment, unused, |_| {}));
    let found = read.map_err(|bad| named(bad, unused, FileKind::Segment))?;
    if found.header.run == header.run && found.records > 1 {
        let why = format!("{last:08}.log has no end, and the log goes on");
        return Err(NoLog::Damaged(why));
    }
    super::directory::remove(&path)?;
    Ok(())
}

/// After a power cut: reads the records that are there, up to the first gap.
fn read_what_is_left(
    directory: &StateDirectory,
    files: &LogFiles,
    header: FileHeader,
    fold: &mut Fold,
) -> Result<(), NoLog> {
    for &number in files.segments.range(header.first..) {
        match read_segment(directory, number, header, fold) {
            Ok(found) if found.end == FileEnd::Complete => {}
            Ok(_) | Err(BadFile::Damaged(_)) if number < header.number => {}
            Ok(_) | Err(BadFile::Damaged(_)) => break,
            Err(BadFile::Io(error)) => return Err(NoLog::Io(error)),
        }
    }
    Ok(())
}

fn read_segment(
    directory: &StateDirectory,
    number: u32,
    snapshot: FileHeader,
    fold: &mut Fold,
) -> Result<FileSummary, BadFile> {
    let file = directory.open(&directory.segment(number))?;
    let is_older = number < snapshot.number;
    let apply = |record: LogRecord| {
        if is_older {
            fold.apply_older(record);
        } else {
            fold.apply(record);
        }
    };
    read_file(file, FileKind::Segment, number, apply)
}
