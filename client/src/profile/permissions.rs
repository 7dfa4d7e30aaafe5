//! Files that are this user's alone.

use crate::error::Error;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::path::Path;

/// Opens a file if it and its folder are this user's alone. The descriptor that
/// is looked at is the one that is read.
pub fn open(folder: &Path, path: &Path) -> Result<File, Error> {
    let failed = |why| Error::File {
        what: "read",
        path: path.to_path_buf(),
        why,
    };
    // Asked before it is opened, since a pipe would hold the open up for ever.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(Error::InvalidProfile {
            path: path.to_path_buf(),
            why: "it is not a file".into(),
        });
    }
    check_folder(folder)?;
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    check_access(path, &meta, 0o077, "600", "others can read or change it")?;
    Ok(file)
}

/// Refuses a folder in which others could put or swap files.
pub fn check_folder(folder: &Path) -> Result<(), Error> {
    let meta = fs::metadata(folder);
    let failed = |why| Error::File {
        what: "read",
        path: folder.to_path_buf(),
        why,
    };
    let meta = meta.map_err(failed)?;
    check_access(
        folder,
        &meta,
        0o022,
        "700",
        "others can put their own profile into it",
    )
}

#[cfg(unix)]
fn check_access(
    path: &Path,
    meta: &fs::Metadata,
    forbidden: u32,
    mode: &str,
    why: &'static str,
) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt;
    let word = crate::ssh::shell_word(&path.display().to_string());
    let (why, mend) = if meta.uid() != rustix::process::geteuid().as_raw() {
        let mend = format!("if it is yours: chown \"$(id -u)\" {word} && chmod {mode} {word}");
        ("it belongs to another user", mend)
    } else if meta.mode() & forbidden != 0 {
        (why, format!("chmod {mode} {word}"))
    } else {
        return Ok(());
    };
    Err(Error::Unsafe {
        path: path.to_path_buf(),
        why,
        mend,
    })
}

/// Elsewhere the user's own folder is private by the system's doing.
#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps)] // The same signature as above.
fn check_access(_: &Path, _: &fs::Metadata, _: u32, _: &str, _: &'static str) -> Result<(), Error> {
    Ok(())
}

/// Makes it so that a new name in a folder survives a power cut.
#[cfg(unix)]
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Elsewhere a folder cannot be opened, and the system sees to it.
#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps)] // The same signature as above.
pub fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Makes a folder that is this user's alone, and those above it that are missing.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}
