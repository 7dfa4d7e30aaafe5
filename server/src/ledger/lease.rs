//! The lease: a synced note beside the database that says "nothing later than T has been
//! accepted", and whether the last run ended cleanly.
//!
//! The database survives a kill, but after a power cut its last commits may be missing:
//! then T is the floor. It is a small file of its own, since a synced commit in the
//! database would hold up what follows it.

use crate::files::{self, Access, Existing, Owner, Unsafe};
use oneknock_shared::knock::Timestamp;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// How far ahead of a packet's timestamp the lease is written, in milliseconds.
const LEASE_MS: u64 = 5_000;
/// Mode of the files of the state.
pub const FILE_MODE: u32 = 0o600;
const HEADER: &str = "oneknock lease 2";
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
    begun: bool,
}

/// Writes the note of a server that has accepted nothing yet; one that is there is kept.
pub fn create(folder: &Path, owner: Owner) -> io::Result<()> {
    let text = text(Timestamp(0), "none", true);
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
        let noted = match files::read(&path, Access::WrittenOnlyBy(owner)) {
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
            begun: false,
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
        self.write(self.until.max(until), false)?;
        self.begun = true;
        Ok(())
    }

    /// Takes the note away: from now on there is no state, until a run begins.
    pub fn void(&mut self) -> io::Result<()> {
        (self.until, self.greatest) = (Timestamp(0), Timestamp(0));
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::File::open(folder)?.sync_all()
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
        if !self.begun {
            return Ok(());
        }
        self.write(self.greatest.min(self.until), true)
    }

    fn write(&mut self, until: Timestamp, clean: bool) -> io::Result<()> {
        let text = text(until, &self.boot, clean);
        files::write(&self.path, &text, self.owner, FILE_MODE, Existing::Replace)?;
        self.until = until;
        Ok(())
    }
}

fn text(until: Timestamp, boot: &str, clean: bool) -> String {
    let state = if clean { "clean" } else { "running" };
    format!("{HEADER}\n{}\n{boot}\n{state}\n", until.0)
}

fn read(text: &str, boot: &str) -> Option<Noted> {
    let rest = text.strip_prefix(HEADER)?.strip_prefix('\n')?;
    let mut lines = rest.strip_suffix('\n')?.split('\n');
    let (number, of_boot, state) = (lines.next()?, lines.next()?, lines.next()?);
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let until = Timestamp(number.parse().ok().filter(|_| digits)?);
    let clean = match state {
        "clean" => true,
        "running" => false,
        _ => return None,
    };
    lines.next().is_none().then_some(Noted::Run {
        until,
        clean,
        same_boot: of_boot == boot && boot != "unknown",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let until = Timestamp(1_800_000_000_000);
        for (then, now, same_boot) in [
            ("a", "a", true),
            ("a", "b", false),
            ("unknown", "unknown", false),
        ] {
            for clean in [true, false] {
                let noted = read(&text(until, then, clean), now);
                let want = Noted::Run {
                    until,
                    clean,
                    same_boot,
                };
                assert_eq!(noted, Some(want), "{then} {now} {clean}");
            }
        }
    }

    #[test]
    fn a_cut_or_edited_note_is_no_note() {
        let whole = text(Timestamp(1_800), "boot", false);
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end], "boot"), None, "{end}");
        }
        for bad in ["-1", "+1", "", "1 ", "99999999999999999999"] {
            assert_eq!(read(&whole.replace("1800", bad), "boot"), None, "{bad}");
        }
        assert_eq!(read(&format!("{whole}more\n"), "boot"), None);
    }
}
