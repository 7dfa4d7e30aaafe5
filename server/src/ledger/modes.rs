//! Who else could get at the state. What others could only read is made private again;
//! what others could write may say anything, and is no state.

use super::{FILE, FILE_MODE};
use nix::fcntl::OFlag;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Mode of the folder of the state.
pub const FOLDER_MODE: u32 = 0o700;
/// Others may write it.
const WRITABLE: u32 = 0o022;

/// A folder or file of the state that is not the daemon's alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loose {
    /// Which.
    pub path: PathBuf,
    /// Whether others could write it, and not just read.
    pub writable: bool,
    /// The mode that it has.
    pub mode: u32,
    /// The mode that it should have.
    pub wanted: u32,
}

impl Loose {
    /// What is the matter, in words.
    #[must_use]
    pub fn what(&self) -> String {
        let could = if self.writable { "write" } else { "read" };
        format!("others may {could} it (mode {:04o})", self.mode)
    }
}

/// All that is loose in a state's folder; what is not there, or no plain file, is not.
#[must_use]
pub fn look(folder: &Path) -> Vec<Loose> {
    let Ok(of_folder) = fs::symlink_metadata(folder) else {
        return Vec::new();
    };
    let files = ["lease", "lock", FILE];
    let parts = ["-wal", "-shm"].map(|part| format!("{FILE}{part}"));
    let files = files.into_iter().map(str::to_owned).chain(parts);
    let mut all = vec![(folder.to_path_buf(), FOLDER_MODE)];
    all.extend(files.map(|name| (folder.join(name), FILE_MODE)));
    let loose = all.into_iter().filter_map(|(path, wanted)| {
        let meta = fs::symlink_metadata(&path).ok()?;
        if !meta.is_file() && !meta.is_dir() {
            return None;
        }
        let mode = meta.mode() & 0o7777;
        // What is root's, root has put there.
        let is_strangers = ![0, of_folder.uid()].contains(&meta.uid());
        let writable = mode & WRITABLE != 0 || is_strangers;
        (mode & 0o077 != 0 || writable).then_some(Loose {
            path,
            writable,
            mode,
            wanted,
        })
    });
    loose.collect()
}

/// Gives them the mode that they should have, and keeps those of the list that it was done
/// to. The folder comes first: once it is private nobody else gets at the rest. That others
/// can read a file on is no reason not to start.
pub fn tighten(loose: &mut Vec<Loose>) -> io::Result<()> {
    let mut mended = Vec::new();
    for one in loose.drain(..) {
        match set_mode(&one.path, one.wanted) {
            Ok(()) => mended.push(one),
            // A reader of the history may have taken the log away as it ended.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if one.writable => return Err(error),
            Err(_) => {}
        }
    }
    *loose = mended;
    Ok(())
}

/// A link in its place does not lead the change elsewhere, whenever it was put there: root
/// may do this where the daemon's user could have.
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut options = File::options();
    let file = options.read(true).custom_flags(flags.bits()).open(path)?;
    file.set_permissions(Permissions::from_mode(mode))
}
