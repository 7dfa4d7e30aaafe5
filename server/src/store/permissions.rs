//! The permissions of the state. A file that others could only read is made private again. A
//! file that others could write may say anything, and is no state.

use super::directory::{DIRECTORY_MODE, FILE_MODE, LOCK, LogFiles, MARK, StateDirectory, WRITABLE};
use super::journal;
use crate::files::Owner;
use nix::fcntl::OFlag;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The state directory, or a file in it, that others can read or write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InsecurePath {
    /// The path.
    pub path: PathBuf,
    /// Whether others could write it; they could read it in any case.
    pub writable: bool,
    /// The mode that was found.
    pub mode: u32,
    /// The mode that it should have.
    pub wanted: u32,
}

impl InsecurePath {
    /// A sentence that says what is wrong.
    #[must_use]
    pub fn what(&self) -> String {
        let could = if self.writable { "write" } else { "read" };
        format!("others may {could} it (mode {:04o})", self.mode)
    }
}

/// Finds the insecure paths of a state directory. A path that is not there, or no plain file,
/// is not reported.
#[must_use]
pub fn insecure_paths(dir: &Path) -> Vec<InsecurePath> {
    let Ok(of_directory) = fs::metadata(dir) else {
        return Vec::new();
    };
    let owner = Owner {
        uid: of_directory.uid(),
        gid: of_directory.gid(),
    };
    let path = dir.to_path_buf();
    let directory = StateDirectory { path, owner };
    let LogFiles {
        segments,
        snapshots,
    } = directory.log_files().unwrap_or_default();
    let mut all = vec![(dir.to_path_buf(), DIRECTORY_MODE)];
    let names = [MARK, LOCK].into_iter().chain(journal::FILES);
    let files = names.map(|name| directory.file(name));
    let files = files.chain(snapshots.into_iter().map(|n| directory.snapshot(n)));
    let files = files.chain(segments.into_iter().map(|n| directory.segment(n)));
    all.extend(files.map(|path| (path, FILE_MODE)));
    let insecure = all.into_iter().filter_map(|(path, wanted)| {
        // The directory's own name may be a symlink: its parents are root's.
        let meta = if path == dir {
            fs::metadata(&path)
        } else {
            fs::symlink_metadata(&path)
        };
        let meta = meta.ok()?;
        if !meta.is_file() && !meta.is_dir() {
            return None;
        }
        let mode = meta.mode() & 0o7777;
        // A file of root's was put there by root.
        let is_strangers = ![0, owner.uid].contains(&meta.uid());
        let writable = mode & WRITABLE != 0 || is_strangers;
        (mode & 0o077 != 0 || writable).then_some(InsecurePath {
            path,
            writable,
            mode,
            wanted,
        })
    });
    insecure.collect()
}

/// Sets the modes that the paths should have. The directory comes first in the list: once it is
/// private, the files in it are out of reach for others. Paths that were fixed stay in the list,
/// and so do writable ones that could not be fixed: their content counts for nothing.
pub(super) fn fix(insecure: &mut Vec<InsecurePath>) -> io::Result<()> {
    let mut kept = Vec::new();
    for one in insecure.drain(..) {
        match set_mode(&one.path, one.wanted) {
            Ok(()) => kept.push(one),
            Err(error) if one.wanted == DIRECTORY_MODE => return Err(error),
            // A file of another owner: opening it moves it aside.
            Err(_) if one.writable => kept.push(one),
            // That a file stays readable is no reason not to start; and another reader of the
            // journal may have removed its write-ahead log meanwhile.
            Err(_) => {}
        }
    }
    *insecure = kept;
    Ok(())
}

/// Sets the mode of the very file that was opened, without following a symlink: root does this
/// where the daemon's user could have put one.
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut options = File::options();
    let file = options.read(true).custom_flags(flags.bits()).open(path)?;
    file.set_permissions(Permissions::from_mode(mode))
}
