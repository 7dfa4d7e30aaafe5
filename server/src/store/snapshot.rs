//! A snapshot: the state that all records before a segment add up to. Its file is complete or
//! not there.

use super::directory::{BadFile, StateDirectory};
use super::reader::{FileEnd, read_file};
use super::record::{FileHeader, FileKind, LogRecord};
use super::segment::write_file;
use crate::engine::State;
use std::io;

/// Writes the snapshot before segment `header.number`. It does not hold the packets of the
/// state: the segments from `header.first` on do.
pub(super) fn write(
    directory: &StateDirectory,
    header: FileHeader,
    state: &State,
) -> io::Result<()> {
    let floors = state.floors.iter().map(|&(g, at)| LogRecord::Floor(g, at));
    let default = state.default_floor.map(LogRecord::DefaultFloor);
    let closes = state.closes.iter().cloned().map(LogRecord::Close);
    let grants = state.grants.iter().cloned().map(LogRecord::Grant);
    let ends = state.retirements.iter();
    let ends = ends.map(|&(g, at)| LogRecord::Retirement(g, at));
    let all = floors.chain(default).chain(closes).chain(grants);
    let all = all.chain(ends).chain([LogRecord::End]);
    let made = write_file(directory, header, 0, all)?;
    let path = directory.snapshot(header.number);
    made.temporary.persist(path)?;
    directory.sync()
}

/// Hands each record of the snapshot before a segment to `each`.
pub(super) fn read(
    directory: &StateDirectory,
    number: u32,
    each: impl FnMut(LogRecord),
) -> Result<FileHeader, BadFile> {
    let file = directory.open(&directory.snapshot(number))?;
    let found = read_file(file, FileKind::Snapshot, number, each)?;
    if found.end != FileEnd::Complete {
        return Err(BadFile::Damaged("it has no end".into()));
    }
    Ok(found.header)
}
