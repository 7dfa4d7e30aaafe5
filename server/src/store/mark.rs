//! The high-water mark: a synced note that says "nothing later than T was accepted", and
//! whether the last run ended cleanly.
//!
//! The log survives a kill, but after a power cut its last records may be missing: then T is
//! the floor. The mark is a small file of its own, written in place through a descriptor that
//! syncs: a knock after a pause waits for one synced write and nothing else.
//!
//! Two pages are written in turn, each of which begins with a record. A write that a power cut
//! interrupts spoils its own page alone, and the packet that needed it was not accepted: the
//! other page holds. (A page that rots looks the same; the mark is then that of the other page,
//! some seconds older.)

use super::boot::BootId;
use super::codec::{RECORD_LEN, RecordPosition, decode, encode};
use super::directory::{MARK, StateDirectory};
use super::record::{LogRecord, MarkNote, RunId};
use crate::files::{self, Access, Unsafe};
use nix::fcntl::OFlag;
use oneknock_shared::knock::Timestamp;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// How far ahead of a packet's timestamp the mark is raised, in milliseconds.
pub(super) const AHEAD_MS: u64 = 5_000;
/// Bytes that an interrupted write may spoil; a note is much shorter.
pub(super) const PAGE: usize = 4096;
const POSITION: RecordPosition = RecordPosition {
    run: [0; 16],
    number: 0,
    index: 0,
};

/// The mark, open for raising.
#[derive(Debug)]
pub(super) struct HighWaterMark {
    directory: StateDirectory,
    note: MarkNote,
    /// The greatest timestamp that was accepted.
    greatest: Timestamp,
    /// The file, in which each write is synced; none before a run has begun.
    file: Option<File>,
}

impl HighWaterMark {
    /// Reads the mark, and the note that is in it, or why there is none. A damaged mark is moved
    /// aside; so is one that is not trusted for this reason, unread.
    pub fn open(
        directory: &StateDirectory,
        untrusted: Option<String>,
    ) -> io::Result<(Self, Result<MarkNote, String>)> {
        let access = Access::WrittenOnlyBy(directory.owner);
        let note = match (files::read_bytes(&directory.file(MARK), access), untrusted) {
            (Err(Unsafe::Io(error)), _) if error.kind() == io::ErrorKind::NotFound => {
                Err("mark is missing".into())
            }
            (_, Some(why)) => Err(move_aside(directory, &why)?),
            (Err(Unsafe::Io(error)), _) => return Err(error),
            (bytes, _) => match bytes.ok().and_then(|bytes| read(&bytes)) {
                Some(note) => Ok(note),
                None => Err(move_aside(directory, "it cannot be read")?),
            },
        };
        let (until, run) = match &note {
            Ok(note) => (note.until, note.run),
            Err(_) => (Timestamp(0), RunId::default()),
        };
        let mark = Self {
            directory: directory.clone(),
            note: MarkNote {
                number: 0,
                until,
                run,
                boot: BootId::current(),
                is_clean: false,
            },
            greatest: until,
            file: None,
        };
        Ok((mark, note))
    }

    /// The run that has written the mark.
    pub fn run(&self) -> RunId {
        self.note.run
    }

    /// Removes the note of a clean stop, for this run: before anything is accepted. Nothing up to
    /// `until` counts as fresh after a power cut.
    pub fn begin(&mut self, until: Timestamp, run: RunId) -> io::Result<()> {
        let note = MarkNote {
            number: 0,
            until: self.note.until.max(until),
            run,
            ..self.note
        };
        self.file = Some(create(&self.directory, note)?);
        (self.note, self.greatest) = (note, self.greatest.max(until));
        Ok(())
    }

    /// Raises the mark where a packet of this timestamp needs it: before it is accepted.
    pub fn cover(&mut self, at: Timestamp) -> io::Result<()> {
        if at > self.note.until {
            self.write(Timestamp(at.0.saturating_add(AHEAD_MS)), false)?;
        }
        self.greatest = self.greatest.max(at);
        Ok(())
    }

    /// Writes the note of a clean stop, when everything else is on disk. The mark is lowered to
    /// the greatest timestamp that was accepted.
    pub fn end(mut self) -> io::Result<()> {
        self.write(self.greatest.min(self.note.until), true)
    }

    fn write(&mut self, until: Timestamp, is_clean: bool) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Err(io::Error::other("no run has begun"));
        };
        let note = MarkNote {
            number: self.note.number + 1,
            until,
            is_clean,
            ..self.note
        };
        let at = if note.number.is_multiple_of(2) {
            0
        } else {
            PAGE
        };
        file.write_all_at(&page(note), at as u64)?;
        self.note = note;
        Ok(())
    }
}

fn move_aside(directory: &StateDirectory, why: &str) -> io::Result<String> {
    directory.move_aside(MARK, "")?;
    Ok(format!(
        "mark is damaged ({why}); it was moved to mark.damaged"
    ))
}

/// Writes a mark that says this, without a page of an earlier run, and opens it for raising.
pub(super) fn create(directory: &StateDirectory, note: MarkNote) -> io::Result<File> {
    let mut new = directory.unnamed()?;
    io::Write::write_all(&mut new, &[page(note), vec![0; PAGE]].concat())?;
    directory.name(new, &directory.file(MARK))?;
    let flags = OFlag::O_DSYNC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut options = OpenOptions::new();
    let options = options.write(true).custom_flags(flags.bits());
    options.open(directory.file(MARK))
}

/// A page that begins with a note.
pub(super) fn page(note: MarkNote) -> Vec<u8> {
    let mut page = Vec::with_capacity(PAGE);
    encode(&LogRecord::Mark(note), POSITION, &mut page);
    page.resize(PAGE, 0);
    page
}

/// Reads the newest note that is whole, whatever the other page holds.
pub(super) fn read(bytes: &[u8]) -> Option<MarkNote> {
    let pages = bytes.chunks(PAGE).take(2);
    let notes = pages.filter_map(|page| match decode(page.get(..RECORD_LEN)?, POSITION) {
        Ok(LogRecord::Mark(note)) => Some(note),
        _ => None,
    });
    notes.max_by_key(|note| note.number)
}
