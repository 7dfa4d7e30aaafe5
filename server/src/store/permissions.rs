//! The permissions of the state. A file that others could only read is made private again. A
//! file that others could write may say anything, and is no state.

use super::directory::{
    DATABASE, DATABASE_PARTS, DIRECTORY_MODE, FILE_MODE, LOCK, MARK, StateDirectory,
};
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
    let Ok(directory) = StateDirectory::at(dir) else {
        return Vec::new();
    };
    let database = DATABASE_PARTS.map(|part| format!("{DATABASE}{part}"));
    let names = [MARK, LOCK].map(str::to_owned).into_iter().chain(database);
    let segments = directory.segments().unwrap_or_default().into_iter();
    let files = names.map(|name| directory.file(&name));
    let files = files.chain(segments.map(|number| directory.segment(number)));
    let all = files.map(|path| (path, FILE_MODE));
    let all = [(dir.to_path_buf(), DIRECTORY_MODE)].into_iter().chain(all);
    let insecure = all.filter_map(|(path, wanted)| {
        // The directory's own name may be a symlink: its parents are root's.
        let look = if path == dir {
            fs::metadata
        } else {
            fs::symlink_metadata
        };
        let meta = look(&path)
            .ok()
            .filter(|meta| meta.is_file() || meta.is_dir())?;
        let mode = meta.mode() & 0o7777;
        // A file of root's was put there by root.
        let is_strangers = ![0, directory.owner.uid].contains(&meta.uid());
        let writable = mode & 0o022 != 0 || is_strangers;
        (mode & 0o077 != 0 || writable).then_some(InsecurePath {
            path,
            writable,
            mode,
            wanted,
        })
    });
    insecure.collect()
}

/// Sets the modes that the paths should have: first that of the directory, since the files in a
/// private one are out of reach for others. Paths that were fixed stay in the list, and so do
/// writable ones that could not be fixed: their content counts for nothing. That another file
/// stays readable is no reason not to start, and a reader of the journal may have removed one.
pub(super) fn fix(insecure: &mut Vec<InsecurePath>) -> io::Result<()> {
    for one in insecure.iter().filter(|one| one.wanted == DIRECTORY_MODE) {
        set_mode(&one.path, one.wanted)?;
    }
    insecure.retain(|one| set_mode(&one.path, one.wanted).is_ok() || one.writable);
    Ok(())
}

/// Why a file is not trusted: others could write it, or put another one in its place.
pub(super) fn untrusted(
    insecure: &[InsecurePath],
    directory: &StateDirectory,
    is_it: impl Fn(&str) -> bool,
) -> Option<String> {
    let name = |one: &InsecurePath| one.path.file_name().unwrap_or_default().to_owned();
    let is_open = |one: &&InsecurePath| {
        one.writable && (one.path == directory.path || is_it(&name(one).to_string_lossy()))
    };
    insecure.iter().find(is_open).map(InsecurePath::what)
}

/// Sets the mode of the very file that was opened, without following a symlink: root does this
/// where the daemon's user could have put one.
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut options = File::options();
    let file = options.read(true).custom_flags(flags.bits()).open(path)?;
    file.set_permissions(Permissions::from_mode(mode))
}
