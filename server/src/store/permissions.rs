//! Who else could get at the state. What others could only read is made private again;
//! what others could write may say anything, and is no state.

use super::directory::{DIRECTORY_MODE, FILE_MODE, LOCK, LogFiles, MARK, StateDirectory, WRITABLE};
use super::journal;
use crate::files::Owner;
use nix::fcntl::OFlag;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The state directory, or a file in it, that is not the daemon's alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InsecurePath {
    /// Which.
    pub path: PathBuf,
    /// Whether others could write it, and not just read.
    pub writable: bool,
    /// The mode that it has, or had.
    pub mode: u32,
    /// The mode that it should have.
    pub wanted: u32,
}

impl InsecurePath {
    /// What is wrong, in words.
    #[must_use]
    pub fn what(&self) -> String {
        let could = if self.writable { "write" } else { "read" };
        format!("others may {could} it (mode {:04o})", self.mode)
    }
}

/// The insecure paths of a state directory. What is not there, or no plain file, is none.
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
        // The directory's name may be a symlink of root's.
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
        // What is root's, root has put there.
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

/// Gives them the mode that they should have. The directory comes first: once it is private
/// nobody else gets at the rest. Of the list those remain that were changed, and those that
/// others could write: of these the content counts for nothing.
pub(super) fn fix(insecure: &mut Vec<InsecurePath>) -> io::Result<()> {
    let mut kept = Vec::new();
    for one in insecure.drain(..) {
        match set_mode(&one.path, one.wanted) {
            Ok(()) => kept.push(one),
            Err(error) if one.wanted == DIRECTORY_MODE => return Err(error),
            // A file of another owner is moved aside by whoever reads it.
            Err(_) if one.writable => kept.push(one),
            // That others can read a file on is no reason not to start; and a reader of the
            // journal may have removed its log as it ended.
            Err(_) => {}
        }
    }
    *insecure = kept;
    Ok(())
}

/// A symlink in its place does not lead the change elsewhere, whenever it was put there: root
/// may do this where the daemon's user could have.
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut options = File::options();
    let file = options.read(true).custom_flags(flags.bits()).open(path)?;
    file.set_permissions(Permissions::from_mode(mode))
}
