//! One call at a time changes a server's configuration.

use super::Failure;
use crate::config::Paths;
use crate::files;
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

/// The right to change keys and marker, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct EditLock {
    _file: File,
}

impl EditLock {
    /// Waits until no other call has it, and removes what a killed one has left.
    pub fn wait(paths: &Paths) -> Result<Self, Failure> {
        let path = paths.edit_lock();
        let failed = |error: io::Error| Failure::io(&path, &error);
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let options = options.mode(0o600).custom_flags(flags.bits());
        let file = options.open(&path).map_err(failed)?;
        file.lock().map_err(failed)?;
        files::remove_unfinished(&paths.keys()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}
