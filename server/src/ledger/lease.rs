//! The lease: a synced note beside the database that says "nothing later than T has been
//! accepted", and whether the last run ended cleanly.
//!
//! The database survives a kill, but after a power cut its last commits may be missing:
//! then T is the floor. It is a small file of its own, since a synced commit in the
//! database would hold up what follows it. And it is written in place, through a descriptor
//! that syncs: a knock after a pause waits for one write, not for a new file's name.
//!
//! Two pages of it are written in turn. A write that the power cut short spoils its own page
//! alone, and the packet that needed it was not accepted: the other page holds. (A page that
//! rots looks like that too; then the lease is as old as the other page, by some seconds.)

use crate::files::{self, Access, Existing, Owner, Unsafe};
use nix::fcntl::OFlag;
use oneknock_shared::knock::Timestamp;
use ring::digest::{SHA256, digest};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How far ahead of a packet's timestamp the lease is written, in milliseconds.
const LEASE_MS: u64 = 5_000;
/// Mode of the files of the state.
pub const FILE_MODE: u32 = 0o600;
const HEADER: &str = "oneknock lease 3";
/// What a disk may spoil at once, in bytes; a note is much shorter.
pub(super) const PAGE: usize = 4096;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What the note says.
#[derive(Debug, PartialEq, Eq)]
pub enum Noted {
    /// How the last run ended.
    Run {
        /// Nothing later than this was accepted.
        until: Timestamp,
        /// It ended with everything on disk.
        clean: bool,
        /// The machine has run on since: what was committed is there.
        same_boot: bool,
    },
    /// There is no note.
    Missing,
    /// It cannot be read; it was moved to `lease.damaged`.
    Damaged,
}

/// The note, held open for raising.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    owner: Owner,
    boot: String,
    until: Timestamp,
    greatest: Timestamp,
    /// From the beginning of a run: the file, in which each write is synced.
    file: Option<File>,
    /// How many notes this run has written.
    written: u64,
}

/// Writes the note of a server that has accepted nothing yet; one that is there is kept.
pub fn create(folder: &Path, owner: Owner) -> io::Result<()> {
    let text = text(0, Timestamp(0), "none", true);
    let path = folder.join("lease");
    match files::write(&path, &text, owner, FILE_MODE, Existing::Keep) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

impl Lease {
    /// Reads the note; writes nothing, but moves a damaged one aside.
    pub fn open(folder: &Path, owner: Owner) -> io::Result<(Self, Noted)> {
        // Unknown, it is like no other: the next start is taken for one after a power cut.
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_else(|_| "unknown".into());
        let boot = boot.trim().to_owned();
        let path = folder.join("lease");
        let noted = match files::read_bytes(&path, Access::WrittenOnlyBy(owner)) {
            Ok(content) => read(&content, &boot).unwrap_or(Noted::Damaged),
            Err(Unsafe::Io(error)) if error.kind() == io::ErrorKind::NotFound => Noted::Missing,
            Err(Unsafe::Io(error)) => return Err(error),
            Err(_) => Noted::Damaged,
        };
        if noted == Noted::Damaged {
            fs::rename(&path, folder.join("lease.damaged"))?;
        }
        let until = match noted {
            Noted::Run { until, .. } => until,
            _ => Timestamp(0),
        };
        let lease = Self {
            path,
            owner,
            boot,
            until,
            greatest: until,
            file: None,
            written: 0,
        };
        Ok((lease, noted))
    }

    /// Moves a note aside that may say anything, and reads nothing of it.
    pub fn distrusted(folder: &Path, owner: Owner) -> io::Result<(Self, Noted)> {
        match fs::rename(folder.join("lease"), folder.join("lease.damaged")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        let (lease, _) = Self::open(folder, owner)?;
        Ok((lease, Noted::Damaged))
    }

    /// Takes the mark of a clean stop away: to be done before anything is accepted.
    /// Nothing up to `until` counts as fresh after a power cut.
    pub fn begin(&mut self, until: Timestamp) -> io::Result<()> {
        self.greatest = self.greatest.max(until);
        let until = self.until.max(until);
        let text = text(0, until, &self.boot, false);
        // A new file, with no page of an earlier run in it.
        let whole = format!("{text:\0<0$}", 2 * PAGE);
        files::write(&self.path, &whole, self.owner, FILE_MODE, Existing::Replace)?;
        let flags = OFlag::O_DSYNC | OFlag::O_NOFOLLOW;
        let mut options = OpenOptions::new();
        let options = options.write(true).custom_flags(flags.bits());
        self.file = Some(options.open(&self.path)?);
        (self.until, self.written) = (until, 0);
        Ok(())
    }

    /// Takes the note away: from now on there is no state, until a run begins.
    pub fn void(&mut self) -> io::Result<()> {
        (self.until, self.greatest) = (Timestamp(0), Timestamp(0));
        self.file = None;
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }

    /// Sees to it that the note covers a packet of this timestamp, before it is accepted.
    pub fn cover(&mut self, at: Timestamp) -> io::Result<()> {
        if at > self.until {
            self.write(Timestamp(at.0.saturating_add(LEASE_MS)), false)?;
        }
        self.greatest = self.greatest.max(at);
        Ok(())
    }

    /// The mark of a clean stop; everything else must be on disk by now. The lease goes
    /// down to the greatest timestamp accepted. A run that has not begun leaves no mark.
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
        let text = text(number, until, &self.boot, clean);
        let at = if number.is_multiple_of(2) { 0 } else { PAGE };
        let page = format!("{text:\0<PAGE$}");
        file.write_all_at(page.as_bytes(), at as u64)?;
        (self.until, self.written) = (until, number);
        Ok(())
    }
}

pub(super) fn text(number: u64, until: Timestamp, boot: &str, clean: bool) -> String {
    let state = if clean { "clean" } else { "running" };
    let text = format!("{HEADER}\n{number}\n{}\n{boot}\n{state}\n", until.0);
    let sum = sum(&text);
    format!("{text}{sum}\n")
}

/// So that a page that is there in part is no note.
fn sum(text: &str) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    let first = digest
        .as_ref()
        .first_chunk()
        .map_or(0, |b| u64::from_be_bytes(*b));
    format!("{first:016x}")
}

/// The last note that is whole, whatever the other page holds.
fn read(bytes: &[u8], boot: &str) -> Option<Noted> {
    let notes = bytes
        .chunks(PAGE)
        .take(2)
        .filter_map(|page| note(page, boot));
    let last = notes.max_by_key(|(number, _)| *number);
    last.map_or_else(|| note_2(bytes, boot), |(_, noted)| Some(noted))
}

/// The note as it was in version 2: one, written anew each time.
fn note_2(bytes: &[u8], boot: &str) -> Option<Noted> {
    let text = str::from_utf8(bytes).ok()?;
    let text = text.strip_prefix("oneknock lease 2\n")?;
    let lines: Vec<&str> = text.strip_suffix('\n')?.split('\n').collect();
    let &[until, of_boot, state] = &lines[..] else {
        return None;
    };
    noted(Timestamp(decimal(until)?), of_boot, state, boot)
}

/// The note that a page begins with. What follows it is nothing.
fn note(page: &[u8], boot: &str) -> Option<(u64, Noted)> {
    let end = page
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(page.len());
    let page = str::from_utf8(&page[..end]).ok()?;
    let mut ends = page.match_indices('\n').map(|(at, _)| at + 1);
    let (body, rest) = page.split_at(ends.nth(4)?);
    let sum = rest.strip_suffix('\n')?;
    let rest = body.strip_prefix(HEADER)?.strip_prefix('\n')?;
    let mut lines = rest.split_terminator('\n');
    let (number, until) = (decimal(lines.next()?)?, Timestamp(decimal(lines.next()?)?));
    let (of_boot, state) = (lines.next()?, lines.next()?);
    let noted = noted(until, of_boot, state, boot)?;
    (sum == self::sum(body)).then_some((number, noted))
}

fn noted(until: Timestamp, of_boot: &str, state: &str, boot: &str) -> Option<Noted> {
    let clean = match state {
        "clean" => true,
        "running" => false,
        _ => return None,
    };
    Some(Noted::Run {
        until,
        clean,
        same_boot: of_boot == boot && boot != "unknown",
    })
}

fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Timestamp = Timestamp(1_800_000_000_000);

    #[test]
    fn what_is_written_is_read() {
        for (then, now, same_boot) in [
            ("a", "a", true),
            ("a", "b", false),
            ("unknown", "unknown", false),
        ] {
            for clean in [true, false] {
                let noted = read(text(0, T, then, clean).as_bytes(), now);
                let want = Noted::Run {
                    until: T,
                    clean,
                    same_boot,
                };
                assert_eq!(noted, Some(want), "{then} {now} {clean}");
            }
        }
    }

    #[test]
    fn a_cut_or_edited_note_is_no_note() {
        let whole = text(7, T, "boot", false);
        for end in 0..whole.len() {
            assert_eq!(read(&whole.as_bytes()[..end], "boot"), None, "{end}");
        }
        for (at, _) in whole.char_indices() {
            let mut other = whole.clone();
            other.replace_range(at..=at, "~");
            assert_eq!(read(other.as_bytes(), "boot"), None, "{at}");
        }
    }

    #[test]
    fn a_note_of_version_2_is_taken_up() {
        let old = |boot| read(b"oneknock lease 2\n1800\nthat\nclean\n", boot);
        let until = Timestamp(1800);
        let want = |same_boot| Noted::Run {
            until,
            clean: true,
            same_boot,
        };
        assert_eq!(old("that"), Some(want(true)));
        assert_eq!(old("this"), Some(want(false)));
        assert_eq!(read(b"oneknock lease 2\n12", "that"), None);
    }

    fn until(path: &Path) -> Option<(Timestamp, bool)> {
        match read(&fs::read(path).unwrap(), "any") {
            Some(Noted::Run { until, clean, .. }) => Some((until, clean)),
            _ => None,
        }
    }

    #[test]
    fn a_page_that_was_spoilt_leaves_the_note_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let owner = Owner {
            uid: nix::unistd::getuid().as_raw(),
            gid: nix::unistd::getgid().as_raw(),
        };
        let path = folder.path().join("lease");
        create(folder.path(), owner).unwrap();
        let (mut lease, _) = Lease::open(folder.path(), owner).unwrap();
        lease.begin(T).unwrap();
        let mut before = (T, false);
        for step in 1..=5_u64 {
            lease.cover(Timestamp(T.0 + step * 10_000)).unwrap();
            let now = (Timestamp(T.0 + step * 10_000 + LEASE_MS), false);
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
        lease.end().unwrap();
        assert_eq!(until(&path), Some((Timestamp(T.0 + 50_000), true)));
    }
}
