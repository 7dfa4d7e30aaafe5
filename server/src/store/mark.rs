//! The high-water mark: a synced note that says "nothing later than T was accepted", and
//! whether the last run ended cleanly.
//!
//! The log survives a kill, but after a power cut its last records may be missing: then T is
//! the floor. The mark is a small file of its own, written in place through a descriptor that
//! syncs: a knock after a pause waits for one synced write and nothing else.
//!
//! Two pages are written in turn. A write that a power cut interrupts spoils its own page alone,
//! and the packet that needed it was not accepted: the other page holds. (A page that rots
//! looks the same; the mark is then that of the other page, some seconds older.)

use super::directory::{FILE_MODE, MARK, StateDirectory, move_aside};
use crate::files::{self, Access, Existing, Unsafe};
use nix::fcntl::OFlag;
use oneknock_shared::knock::Timestamp;
use ring::digest::{SHA256, digest};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// How far ahead of a packet's timestamp the mark is raised, in milliseconds.
const AHEAD_MS: u64 = 5_000;
const FORMAT: &str = "oneknock mark 1";
/// Bytes that an interrupted write may spoil; a note is much shorter.
pub(super) const PAGE: usize = 4096;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Stands for the id of this boot where it cannot be read; equal to no boot's.
const UNKNOWN_BOOT: &str = "unknown";

/// What the mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MarkState {
    /// How the last run ended.
    Run {
        /// Nothing later than this was accepted.
        until: Timestamp,
        /// It ended with everything on disk.
        clean: bool,
        /// The machine has run on since: what was written is there.
        same_boot: bool,
    },
    /// There is no mark.
    Missing,
    /// It cannot be read; it was moved aside.
    Damaged,
}

/// The mark, open for raising.
#[derive(Debug)]
pub(super) struct HighWaterMark {
    directory: StateDirectory,
    boot: String,
    /// T.
    until: Timestamp,
    /// The greatest timestamp that was accepted.
    greatest: Timestamp,
    /// The file, in which each write is synced; none before a run has begun.
    file: Option<File>,
    /// The number of notes that this run has written.
    written: u64,
}

/// Reads the id of this boot of the machine. Where it cannot be read, the last run is taken for
/// one that a power cut has ended.
pub(super) fn boot_id() -> String {
    let id = fs::read_to_string(BOOT_ID).unwrap_or_else(|_| UNKNOWN_BOOT.into());
    id.trim().to_owned()
}

/// Writes the mark of a server that has accepted nothing yet. A mark that is there is kept.
pub(super) fn create(directory: &StateDirectory) -> io::Result<()> {
    let text = note_text(0, Timestamp(0), "none", true);
    let path = directory.file(MARK);
    match files::write(&path, &text, directory.owner, FILE_MODE, Existing::Keep) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

impl HighWaterMark {
    /// Reads the mark. A damaged one is moved aside; so is one that is not trusted, unread.
    pub fn open(directory: &StateDirectory, trusted: bool) -> io::Result<(Self, MarkState)> {
        let boot = boot_id();
        let path = directory.file(MARK);
        let access = Access::WrittenOnlyBy(directory.owner);
        let state = match files::read_bytes(&path, access) {
            Err(Unsafe::Io(error)) if error.kind() == io::ErrorKind::NotFound => MarkState::Missing,
            _ if !trusted => MarkState::Damaged,
            Ok(content) => read(&content, &boot).unwrap_or(MarkState::Damaged),
            Err(Unsafe::Io(error)) => return Err(error),
            Err(_) => MarkState::Damaged,
        };
        if state == MarkState::Damaged {
            move_aside(&path)?;
        }
        let until = match state {
            MarkState::Run { until, .. } => until,
            _ => Timestamp(0),
        };
        let mark = Self {
            directory: directory.clone(),
            boot,
            until,
            greatest: until,
            file: None,
            written: 0,
        };
        Ok((mark, state))
    }

    /// The id of this boot of the machine.
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// Removes the note of a clean stop: before anything is accepted. Nothing up to `until`
    /// counts as fresh after a power cut.
    pub fn begin(&mut self, until: Timestamp) -> io::Result<()> {
        self.greatest = self.greatest.max(until);
        let until = self.until.max(until);
        let text = note_text(0, until, &self.boot, false);
        // A new file, without a page of an earlier run.
        let whole = format!("{text:\0<0$}", 2 * PAGE);
        let (path, owner) = (self.directory.file(MARK), self.directory.owner);
        files::write(&path, &whole, owner, FILE_MODE, Existing::Replace)?;
        let flags = OFlag::O_DSYNC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let mut options = OpenOptions::new();
        let options = options.write(true).custom_flags(flags.bits());
        self.file = Some(options.open(path)?);
        (self.until, self.written) = (until, 0);
        Ok(())
    }

    /// Raises the mark where a packet of this timestamp needs it: before it is accepted.
    pub fn cover(&mut self, at: Timestamp) -> io::Result<()> {
        if at > self.until {
            self.write(Timestamp(at.0.saturating_add(AHEAD_MS)), false)?;
        }
        self.greatest = self.greatest.max(at);
        Ok(())
    }

    /// Writes the note of a clean stop, when everything else is on disk. The mark is lowered to
    /// the greatest timestamp that was accepted. Without a run nothing is written.
    pub fn end(mut self) -> io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        self.write(self.greatest.min(self.until), true)
    }

    fn write(&mut self, until: Timestamp, clean: bool) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Err(io::Error::other("no run has begun"));
        };
        let number = self.written + 1;
        let text = note_text(number, until, &self.boot, clean);
        let at = if number.is_multiple_of(2) { 0 } else { PAGE };
        let mut page = [0; PAGE];
        page[..text.len()].copy_from_slice(text.as_bytes());
        file.write_all_at(&page, at as u64)?;
        (self.until, self.written) = (until, number);
        Ok(())
    }
}

/// A note: five lines, and their checksum.
pub(super) fn note_text(number: u64, until: Timestamp, boot: &str, clean: bool) -> String {
    let state = if clean { "clean" } else { "running" };
    let text = format!("{FORMAT}\n{number}\n{}\n{boot}\n{state}\n", until.0);
    let sum = checksum(&text);
    format!("{text}{sum}\n")
}

/// The checksum of a note: SHA-256 (FIPS 180-4), cut to 8 bytes, in hexadecimal. A page that
/// was written in part is no note.
fn checksum(text: &str) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    let first = digest.as_ref().first_chunk();
    format!("{:016x}", first.map_or(0, |b| u64::from_be_bytes(*b)))
}

/// Reads the newest note that is whole, whatever the other page holds.
fn read(bytes: &[u8], boot: &str) -> Option<MarkState> {
    let pages = bytes.chunks(PAGE).take(2);
    let notes = pages.filter_map(|page| note(page, boot));
    notes
        .max_by_key(|(number, _)| *number)
        .map(|(_, note)| note)
}

/// Reads the note that a page begins with. The rest of the page is zero.
fn note(page: &[u8], boot: &str) -> Option<(u64, MarkState)> {
    let end = page.iter().position(|byte| *byte == 0);
    let page = str::from_utf8(&page[..end.unwrap_or(page.len())]).ok()?;
    let mut ends = page.match_indices('\n').map(|(at, _)| at + 1);
    let (body, rest) = page.split_at(ends.nth(4)?);
    let sum = rest.strip_suffix('\n')?;
    let rest = body.strip_prefix(FORMAT)?.strip_prefix('\n')?;
    let mut lines = rest.split_terminator('\n');
    let (number, until) = (decimal(lines.next()?)?, decimal(lines.next()?)?);
    let of_boot = lines.next()?;
    let clean = match lines.next()? {
        "clean" => true,
        "running" => false,
        _ => return None,
    };
    let state = MarkState::Run {
        until: Timestamp(until),
        clean,
        same_boot: of_boot == boot && boot != UNKNOWN_BOOT,
    };
    (sum == checksum(body)).then_some((number, state))
}

fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::super::tests::me;
    use super::*;
    use std::path::Path;

    const T: Timestamp = Timestamp(1_800_000_000_000);

    #[test]
    fn written_note_is_read_back() {
        for (then, now, same_boot) in [
            ("a", "a", true),
            ("a", "b", false),
            ("unknown", "unknown", false),
        ] {
            for clean in [true, false] {
                let state = read(note_text(0, T, then, clean).as_bytes(), now);
                let want = MarkState::Run {
                    until: T,
                    clean,
                    same_boot,
                };
                assert_eq!(state, Some(want), "{then} {now} {clean}");
            }
        }
    }

    #[test]
    fn cut_or_edited_note_is_no_note() {
        let whole = note_text(7, T, "boot", false);
        for end in 0..whole.len() {
            assert_eq!(read(&whole.as_bytes()[..end], "boot"), None, "{end}");
        }
        for (at, _) in whole.char_indices() {
            let mut other = whole.clone();
            other.replace_range(at..=at, "~");
            assert_eq!(read(other.as_bytes(), "boot"), None, "{at}");
        }
    }

    fn until(path: &Path) -> Option<(Timestamp, bool)> {
        match read(&fs::read(path).unwrap(), "any") {
            Some(MarkState::Run { until, clean, .. }) => Some((until, clean)),
            _ => None,
        }
    }

    #[test]
    fn spoilt_page_leaves_the_note_before_it() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = StateDirectory {
            path: temporary.path().into(),
            owner: me(),
        };
        let path = directory.file(MARK);
        create(&directory).unwrap();
        let (mut mark, _) = HighWaterMark::open(&directory, true).unwrap();
        mark.begin(T).unwrap();
        let mut before = (T, false);
        for step in 1..=5_u64 {
            mark.cover(Timestamp(T.0 + step * 10_000)).unwrap();
            let now = (Timestamp(T.0 + step * 10_000 + AHEAD_MS), false);
            assert_eq!(until(&path), Some(now));
            let whole = fs::read(&path).unwrap();
            for (cut, with) in [(0, 0), (20, 0), (60, 0), (0, 0xff), (40, 0xff)] {
                let mut spoilt = whole.clone();
                let at = if step % 2 == 0 { 0 } else { PAGE };
                spoilt[at + cut..at + PAGE].fill(with);
                fs::write(&path, &spoilt).unwrap();
                assert_eq!(until(&path), Some(before), "{step} {cut} {with}");
            }
            fs::write(&path, &whole).unwrap();
            before = now;
        }
        mark.end().unwrap();
        assert_eq!(until(&path), Some((Timestamp(T.0 + 50_000), true)));
    }

    #[test]
    fn covered_packet_raises_nothing() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = StateDirectory {
            path: temporary.path().into(),
            owner: me(),
        };
        create(&directory).unwrap();
        let (mut mark, _) = HighWaterMark::open(&directory, true).unwrap();
        mark.begin(T).unwrap();
        let at = |ms: u64| Timestamp(T.0 + ms);
        for (packet, want) in [(0, 0), (1, 5_001), (5_001, 5_001), (5_002, 10_002)] {
            mark.cover(at(packet)).unwrap();
            let found = until(&directory.file(MARK));
            assert_eq!(found, Some((at(want), false)), "{packet}");
        }
    }
}
