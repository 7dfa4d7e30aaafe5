//! The files of the state directory: their names, and how they are opened, locked, moved aside.
//!
//! All files lie in the directory itself, whose parents are root's, and are opened without
//! following a symlink: root opens them too, and the daemon's user could have put one there.

use super::errors::StoreOpenError;
use crate::files::{self, Access, Owner, Unsafe};
use nix::fcntl::OFlag;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Mode of the state directory.
pub(super) const DIRECTORY_MODE: u32 = 0o700;
/// Mode of the files in it.
pub(super) const FILE_MODE: u32 = 0o600;

/// The name of the high-water mark.
pub(super) const MARK: &str = "mark";
/// The name of the run lock.
pub(super) const LOCK: &str = "lock";
/// The name of the journal's database.
pub(super) const DATABASE: &str = "journal.db";
/// What the names of the database's files end with.
pub(super) const DATABASE_PARTS: [&str; 4] = ["", "-wal", "-shm", "-journal"];
/// What the names of segments end with.
pub(super) const SEGMENT: &str = ".log";
/// What the names of files end with that were moved aside.
const DAMAGED: &str = ".damaged";

/// The state directory, and its owner, which all files in it get.
#[derive(Debug, Clone)]
pub(super) struct StateDirectory {
    pub path: PathBuf,
    pub owner: Owner,
}

/// Why a segment cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadFile {
    /// Its content is wrong, or others could have written it, or it is missing.
    #[error("{0}")]
    Damaged(String),
    /// It cannot be opened or read, for a reason that may pass.
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for BadFile {
    fn from(error: io::Error) -> Self {
        // The medium has lost it: that does not pass.
        let lost = [nix::Error::EIO, nix::Error::EUCLEAN];
        let code = error.raw_os_error();
        if lost.iter().any(|lost| code == Some(*lost as i32)) {
            Self::Damaged(error.to_string())
        } else {
            Self::Io(error)
        }
    }
}

/// Says what is wrong with a segment.
pub(super) fn damaged(number: u32, what: &str) -> BadFile {
    BadFile::Damaged(format!("{number:08}{SEGMENT}: {what}"))
}

impl StateDirectory {
    /// The directory of this path, which has to be there.
    pub fn at(path: &Path) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        let (uid, gid) = (meta.uid(), meta.gid());
        Ok(Self {
            path: path.into(),
            owner: Owner { uid, gid },
        })
    }

    /// Locks the directory for this process, until the file is dropped.
    pub fn lock(path: &Path) -> Result<(File, Self), StoreOpenError> {
        let failed = |error| StoreOpenError::Io(path.into(), error);
        let directory = Self::at(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreOpenError::Missing(path.into()),
            _ => failed(error),
        })?;
        let lock = directory.open_lock().map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok((lock, directory)),
            Err(TryLockError::WouldBlock) => Err(StoreOpenError::Locked(path.into())),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Opens the lock file, following no symlink and never waiting. A new one gets the
    /// directory's owner: root may create it, and the daemon need it later.
    fn open_lock(&self) -> io::Result<File> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(FILE_MODE);
        options.custom_flags(flags.bits());
        let path = self.file(LOCK);
        let lock = match options.clone().create_new(true).open(&path) {
            Ok(made) => {
                files::give(&made, self.owner)?;
                made
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(&path)?,
            Err(error) => return Err(error),
        };
        if !lock.metadata()?.is_file() {
            return Err(io::Error::other("lock is not a plain file"));
        }
        Ok(lock)
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The path of a segment.
    pub fn segment(&self, number: u32) -> PathBuf {
        self.path.join(format!("{number:08}{SEGMENT}"))
    }

    /// The numbers of the segments that are there.
    pub fn segments(&self) -> io::Result<BTreeSet<u32>> {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(SEGMENT));
            let number = number.and_then(|number| number.parse().ok());
            found.extend(number.filter(|&number| self.segment(number).ends_with(&name)));
        }
        Ok(found)
    }

    /// Opens a segment for reading, where only the directory's owner can have written it.
    pub fn open(&self, number: u32) -> Result<File, BadFile> {
        let access = Access::WrittenOnlyBy(self.owner);
        files::open(&self.segment(number), access).map_err(|error| match error {
            Unsafe::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                damaged(number, "it is missing")
            }
            Unsafe::Io(error) => error.into(),
            Unsafe::Access { .. } => damaged(number, "others may write it"),
            _ => damaged(number, "it is not a plain file with one name"),
        })
    }

    /// Creates a file that has no name yet, and is private from the beginning.
    pub fn unnamed(&self) -> io::Result<NamedTempFile> {
        let file = tempfile::Builder::new()
            .prefix(files::UNFINISHED)
            .permissions(Permissions::from_mode(FILE_MODE))
            .tempfile_in(&self.path)?;
        files::give(file.as_file(), self.owner)?;
        Ok(file)
    }

    /// Gives a file its path in here, when its content is on disk; one that is there is replaced.
    pub fn name(&self, file: NamedTempFile, path: &Path) -> io::Result<File> {
        file.as_file().sync_all()?;
        let file = file.persist(path)?;
        self.sync()?;
        Ok(file)
    }

    /// Syncs the directory: names that were made, changed or removed are on disk.
    pub fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Moves the log aside. One that was moved aside earlier is removed.
    pub fn move_log_aside(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            if name
                .to_string_lossy()
                .ends_with(&format!("{SEGMENT}{DAMAGED}"))
            {
                remove(&self.path.join(name))?;
            }
        }
        // The newest first: the rest is no log, if this is interrupted.
        for &number in self.segments()?.iter().rev() {
            self.move_aside(&format!("{number:08}{SEGMENT}"), "")?;
        }
        self.sync()
    }

    /// Renames `{name}{part}` to `{name}.damaged{part}`, if it is there; an earlier file of that
    /// name is removed.
    pub fn move_aside(&self, name: &str, part: &str) -> io::Result<()> {
        let (from, to) = (format!("{name}{part}"), format!("{name}{DAMAGED}{part}"));
        remove(&self.file(&to))?;
        ignore_missing(fs::rename(self.file(&from), self.file(&to)))
    }
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
