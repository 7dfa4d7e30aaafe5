//! Why the state cannot be used, and why something was not recorded.

use std::io;
use std::path::PathBuf;

/// Why the state cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum StoreOpenError {
    /// The directory, or a file in it, cannot be read or written: no permission, a full disk.
    #[error("the state in {0} cannot be used: {1}")]
    Io(PathBuf, #[source] io::Error),
    /// There is no such directory.
    #[error("the state in {0} is missing")]
    Missing(PathBuf),
    /// Another process has it.
    #[error("the state in {0} is in use by a running oneknockd")]
    Locked(PathBuf),
}

/// Why something was not recorded. Nothing of it was, as far as the caller is concerned, and
/// nothing may be granted.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No run has begun: [`super::Store::begin`].
    #[error("nothing is recorded before the run has begun")]
    NotBegun,
    /// The high-water mark could not be written.
    #[error("the high-water mark cannot be written: {0}")]
    Mark(#[source] io::Error),
    /// The log could not be written.
    #[error("the spent log cannot be written: {0}")]
    Log(#[source] io::Error),
}
