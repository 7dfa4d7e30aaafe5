//! The files of the state directory: their names, and how they are opened.
//!
//! All of them lie in the directory itself, whose parents are root's. Root opens them too, and
//! what the daemon's user could have put in their place leads it nowhere.

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
/// Others may write it.
pub(super) const WRITABLE: u32 = 0o022;

/// The name of the high-water mark.
pub(super) const MARK: &str = "mark";
/// The name of the run lock.
pub(super) const LOCK: &str = "lock";
/// What follows the name of a file that was moved aside.
pub(super) const DAMAGED: &str = ".damaged";
const SEGMENT: &str = "log";
const SNAPSHOT: &str = "snapshot";

/// The state directory and its owner, who owns all that is made in it.
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
    /// It says what the log never does, or others could have written it.
    Damaged(String),
    /// The system did not let it be read.
    Io(io::Error),
}

impl From<io::Error> for BadFile {
    fn from(error: io::Error) -> Self {
        // What the medium has lost does not come back.
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

    /// Opens a file that is there to read it, if nobody but its owner and root can have written
    /// it.
    pub fn open(&self, path: &Path) -> Result<File, BadFile> {
        // Without NONBLOCK a named pipe would never be opened.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(flags.bits()).open(path)?;
        let meta = file.metadata()?;
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

    /// What was created, removed or renamed in the directory is on disk.
    pub fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Moves the log out of the way, if there is any; an earlier one that was moved so gives
    /// way. The snapshots go first: without them the rest is no log.
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

/// Gives the file the name that says that it is damaged; an earlier one of that name gives way.
/// A file that is not there is none.
pub(super) fn move_aside(path: &Path) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(DAMAGED);
    rename_over(path, &path.with_file_name(name))
}

/// Renames a file, if it is there; what has the new name gives way.
pub(super) fn rename_over(from: &Path, to: &Path) -> io::Result<()> {
    remove(to)?;
    ignore_missing(fs::rename(from, to))
}

/// Removes a file, or a directory in its place; one that is not there is removed already.
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
