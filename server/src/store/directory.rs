//! The files of the state directory: their names, and how they are opened.
//!
//! All files lie in the directory itself, whose parents are root's, and are opened without
//! following a symlink: root opens them too, and the daemon's user could have put one there.

use crate::files::Owner;
use nix::fcntl::OFlag;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Mode of the state directory.
pub(super) const DIRECTORY_MODE: u32 = 0o700;
/// Mode of the files in it.
pub(super) const FILE_MODE: u32 = 0o600;
/// The mode bits that let others write.
pub(super) const WRITABLE: u32 = 0o022;

/// The name of the high-water mark.
pub(super) const MARK: &str = "mark";
/// The name of the run lock.
pub(super) const LOCK: &str = "lock";
/// The extension of files that were moved aside.
pub(super) const DAMAGED: &str = ".damaged";
const SEGMENT: &str = "log";
const SNAPSHOT: &str = "snapshot";

/// The state directory, and its owner, which all files in it get.
#[derive(Debug, Clone)]
pub(super) struct StateDirectory {
    pub path: PathBuf,
    pub owner: Owner,
}

/// The log's files, by their numbers.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct LogFiles {
    pub segments: BTreeSet<u32>,
    pub snapshots: BTreeSet<u32>,
}

/// Why a file of the log cannot be used.
#[derive(Debug)]
pub(super) enum BadFile {
    /// Its content is wrong, or others could have written it.
    Damaged(String),
    /// It cannot be opened or read, for a reason that may pass.
    Io(io::Error),
}

impl From<io::Error> for BadFile {
    fn from(error: io::Error) -> Self {
        // The medium has lost it, or a symlink stands in its place: that does not pass.
        let lost = [nix::Error::EIO, nix::Error::EUCLEAN, nix::Error::ELOOP];
        let code = error.raw_os_error();
        if lost.iter().any(|lost| code == Some(*lost as i32)) {
            return Self::Damaged(error.to_string());
        }
        Self::Io(error)
    }
}

impl StateDirectory {
    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The path of a segment.
    pub fn segment(&self, number: u32) -> PathBuf {
        self.path.join(format!("{number:08}.{SEGMENT}"))
    }

    /// The path of a snapshot.
    pub fn snapshot(&self, number: u32) -> PathBuf {
        self.path.join(format!("{number:08}.{SNAPSHOT}"))
    }

    /// The files of the log that are there.
    pub fn log_files(&self) -> io::Result<LogFiles> {
        let mut found = LogFiles::default();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let Some((stem, extension)) = name.to_str().and_then(|name| name.rsplit_once('.'))
            else {
                continue;
            };
            let number = stem.parse().ok();
            let Some(number) = number.filter(|number| format!("{number:08}") == stem) else {
                continue;
            };
            match extension {
                SEGMENT => drop(found.segments.insert(number)),
                SNAPSHOT => drop(found.snapshots.insert(number)),
                _ => {}
            }
        }
        Ok(found)
    }

    /// Opens a file for reading, where only the directory's owner and root can have written it.
    pub fn open(&self, path: &Path) -> Result<File, BadFile> {
        // Without NONBLOCK the call would wait for ever on a named pipe.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(flags.bits()).open(path)?;
        let meta = file.metadata()?;
        if meta.nlink() == 0 {
            // The maintenance thread has removed it meanwhile.
            return Err(BadFile::Io(io::ErrorKind::NotFound.into()));
        }
        let damaged = |what: &str| Err(BadFile::Damaged(what.into()));
        if !meta.is_file() || meta.nlink() != 1 {
            return damaged("it is not a plain file with one name");
        }
        if ![0, self.owner.uid].contains(&meta.uid()) {
            return damaged("it has another owner than the directory");
        }
        if meta.mode() & WRITABLE != 0 {
            return damaged("others may write it");
        }
        Ok(file)
    }

    /// Syncs the directory: names that were made, changed or removed are on disk.
    pub fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Moves the log's files aside. A log that was moved aside earlier is removed. The snapshots
    /// go first: without them the rest is no log, if this is interrupted.
    pub fn move_log_aside(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let ends = [SEGMENT, SNAPSHOT].map(|kind| format!(".{kind}{DAMAGED}"));
            if ends.iter().any(|end| name.ends_with(end)) {
                remove(&path)?;
            }
        }
        let files = self.log_files()?;
        let snapshots = files.snapshots.iter().map(|&number| self.snapshot(number));
        let segments = files.segments.iter().map(|&number| self.segment(number));
        for path in snapshots.chain(segments) {
            move_aside(&path)?;
        }
        self.sync()
    }
}

/// Renames a file to `*.damaged`, if it is there; an earlier file of that name is removed.
pub(super) fn move_aside(path: &Path) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(DAMAGED);
    rename_over(path, &path.with_file_name(name))
}

/// Renames a file, if it is there; what has the new name is removed.
pub(super) fn rename_over(from: &Path, to: &Path) -> io::Result<()> {
    remove(to)?;
    ignore_missing(fs::rename(from, to))
}

/// Removes a file, or a directory in its place, if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    ignore_missing(match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    })
}

fn ignore_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
