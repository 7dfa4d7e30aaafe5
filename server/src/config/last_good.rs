//! The last good copy of the main file. With an error in the file a start of the daemon or the
//! machine goes by the copy: there is a guard, and a way in.
//!
//! A file that is not there is an error too, as long as the keys are there.
//!
//! Who has taken the daemon over can write the copy. He gains nothing by that: where there is
//! none, an error means no guard at all.

use super::main_file::{self, MainFile};
use super::{ConfigError, Paths, config_error, is_absent};
use crate::files::{self, Access, Existing, Owner, Unsafe};
use std::io;

/// The daemon's alone, as all of the state is.
const MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Saves the text of a main file that is good.
pub fn save(paths: &Paths, text: &str) -> io::Result<()> {
    let (path, owner) = (paths.last_good(), Owner::of_state());
    let is_saved =
        files::read(&path, Access::Exactly(owner, MODE)).is_ok_and(|saved| *saved == text);
    if !is_saved {
        files::make_folder(&paths.state(), owner, FOLDER_MODE)?;
        files::write(&path, text, owner, MODE, Existing::Replace)?;
    }
    Ok(())
}

/// Removes the copy: the guard is down for good, or is to be another one.
pub fn forget(paths: &Paths) -> io::Result<()> {
    match files::remove(&paths.last_good()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads the copy, for a main file that is invalid, or was removed. Where the keys are gone too
/// nothing is left that it was for.
#[must_use]
pub fn load(paths: &Paths) -> Option<MainFile> {
    if is_absent(&paths.main_file()) && is_absent(&paths.keys()) {
        return None;
    }
    read(paths).ok()
}

/// Reads the copy, following no symlink: what is read is what was looked at.
pub fn read(paths: &Paths) -> Result<MainFile, Vec<ConfigError>> {
    let path = paths.last_good();
    let text = files::read(&path, Access::Exactly(Owner::of_state(), MODE));
    let text = text.map_err(|error| {
        // No command that would have root change what lies in the daemon's directory.
        vec![match error {
            Unsafe::Kind { .. } | Unsafe::Access { .. } => {
                config_error(&path, "is not a plain file of the daemon's alone")
            }
            error => config_error(&path, error),
        }]
    })?;
    main_file::read(&path, &text)
}
