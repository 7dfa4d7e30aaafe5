//! The run lock: one process at a time has the state.

use super::directory::{FILE_MODE, LOCK, StateDirectory};
use super::errors::StoreOpenError;
use crate::files::{self, Owner};
use nix::fcntl::OFlag;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Locks a state directory until the file is dropped.
pub(super) fn take(dir: &Path) -> Result<(File, StateDirectory), StoreOpenError> {
    let failed = |error| StoreOpenError::Io(dir.into(), error);
    let meta = fs::metadata(dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StoreOpenError::Missing(dir.into()),
        _ => failed(error),
    })?;
    let directory = StateDirectory {
        path: dir.into(),
        owner: Owner {
            uid: meta.uid(),
            gid: meta.gid(),
        },
    };
    let lock = open(&directory).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok((lock, directory)),
        Err(TryLockError::WouldBlock) => Err(StoreOpenError::Locked(dir.into())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Opens the lock file, following no symlink and never waiting. A new one gets the directory's
/// owner: root may create it, and the daemon need it later.
fn open(directory: &StateDirectory) -> io::Result<File> {
    let path = directory.file(LOCK);
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(FILE_MODE);
    options.custom_flags(flags.bits());
    let lock = match options.clone().create_new(true).open(&path) {
        Ok(made) => {
            files::give(&made, directory.owner)?;
            made
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(&path)?,
        Err(error) => return Err(error),
    };
    if lock.metadata()?.is_file() {
        Ok(lock)
    } else {
        Err(io::Error::other("lock is not a plain file"))
    }
}
