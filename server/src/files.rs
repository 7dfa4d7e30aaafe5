//! Files that hold or decide about secrets: opened so that what is checked is what is
//! read, and written so that they are complete, private and durable, or not there.

use nix::fcntl::OFlag;
use nix::unistd::{Group, User};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;
use zeroize::Zeroizing;

/// A configuration or key file is never larger than this, in bytes.
const MAX_LEN: u64 = 1 << 20;

/// Mode of the folder of keys.
pub const KEY_FOLDER_MODE: u32 = 0o750;
/// Mode of a key file.
pub const KEY_FILE_MODE: u32 = 0o640;

/// What the daemon's user is called, and its group, where the machine has them.
pub const DAEMON: &str = "oneknock";

/// A user and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

impl Owner {
    /// Who owns configuration and keys: root, and the daemon's group where the machine has
    /// one, else the group root. The daemon reads them, and cannot change them.
    #[must_use]
    pub fn wanted() -> Self {
        let group = Group::from_name(DAEMON).ok().flatten();
        let gid = group.map_or(0, |g| g.gid.as_raw());
        Self { uid: 0, gid }
    }

    /// Who owns the state, which the daemon writes: its user where the machine has one,
    /// else root.
    #[must_use]
    pub fn of_state() -> Self {
        match User::from_name(DAEMON).ok().flatten() {
            Some(user) => Self {
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
            },
            None => Self::wanted(),
        }
    }

    /// As `chown` takes it.
    #[must_use]
    pub fn name(self) -> String {
        let user = if self.uid == 0 {
            "root".into()
        } else {
            self.uid.to_string()
        };
        let group = Group::from_gid(self.gid.into()).ok().flatten();
        format!("{user}:{}", group.map_or(self.gid.to_string(), |g| g.name))
    }
}

/// The number of a group, where there is such a group.
pub fn group_id(name: &str) -> io::Result<Option<u32>> {
    let group = Group::from_name(name)?;
    Ok(group.map(|group| group.gid.as_raw()))
}

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Unsafe {
    /// It cannot be opened or read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is a link, a folder, a device, or has a second name.
    #[error("is not a plain file with one name; mend it with: {mend}")]
    Kind {
        /// The command that mends it.
        mend: String,
    },
    /// Its owner, group or mode lets others at it.
    #[error("has owner {found} and mode {mode:04o}; mend it with: {mend}")]
    Access {
        /// The owner and group it has.
        found: String,
        /// The mode it has.
        mode: u32,
        /// The command that mends it.
        mend: String,
    },
    /// It is larger than any file of its kind.
    #[error("is larger than {MAX_LEN} bytes")]
    Large,
    /// It is not UTF-8.
    #[error("is not UTF-8 text")]
    Text,
}

/// How strict to be about owner and mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// This owner, group and mode exactly: secrets.
    Exactly(Owner, u32),
    /// This owner, and nobody else may write: decisions, but no secrets.
    WrittenOnlyBy(Owner),
}

impl Access {
    fn check(self, path: &Path, meta: &fs::Metadata) -> Result<(), Unsafe> {
        let mode = meta.mode() & 0o7777;
        let found = Owner {
            uid: meta.uid(),
            gid: meta.gid(),
        };
        let path = shell_word(path);
        let mend = match self {
            Self::Exactly(owner, want) if found != owner || mode != want => {
                format!("chown {} {path} && chmod {want:04o} {path}", owner.name())
            }
            Self::WrittenOnlyBy(owner) if found.uid != owner.uid || mode & 0o022 != 0 => {
                format!("chown {} {path} && chmod go-w {path}", owner.name())
            }
            _ => return Ok(()),
        };
        Err(Unsafe::Access {
            found: found.name(),
            mode,
            mend,
        })
    }
}

/// A link or a second name could be changed behind our back; a copy cannot.
fn not_plain(path: &Path) -> Unsafe {
    let path = shell_word(path);
    let mend = format!("cp --preserve=mode,ownership {path} {path}.new && mv {path}.new {path}");
    Unsafe::Kind { mend }
}

/// A path as a word for a shell: as it is where it is plain, else in single quotes.
#[must_use]
pub fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Reads a file, following no link, after looking at that very descriptor's owner, mode
/// and number of names. The text is wiped when dropped.
pub fn read(path: &Path, access: Access) -> Result<Zeroizing<String>, Unsafe> {
    let bytes = read_bytes(path, access)?;
    let text = str::from_utf8(&bytes).map_err(|_| Unsafe::Text)?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// As [`read`], whatever is in it.
pub fn read_bytes(path: &Path, access: Access) -> Result<Zeroizing<Vec<u8>>, Unsafe> {
    let file = open(path, access)?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_LEN + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(Unsafe::Large);
    }
    Ok(bytes)
}

/// Opens a file for reading, as [`read`] does.
pub fn open(path: &Path, access: Access) -> Result<File, Unsafe> {
    // Without NONBLOCK a named pipe would hold the daemon up for ever.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path);
    let file = match opened {
        Err(error) if error.raw_os_error() == Some(nix::Error::ELOOP as i32) => {
            return Err(not_plain(path));
        }
        other => other?,
    };
    let meta = file.metadata()?;
    if !meta.is_file() || meta.nlink() != 1 {
        return Err(not_plain(path));
    }
    access.check(path, &meta)?;
    Ok(file)
}

/// Looks at a folder's owner and mode; a link is not followed.
pub fn check_folder(path: &Path, access: Access) -> Result<(), Unsafe> {
    let meta = fs::symlink_metadata(path)?;
    if !meta.is_dir() {
        return Err(Unsafe::Io(io::ErrorKind::NotADirectory.into()));
    }
    access.check(path, &meta)
}

/// What a file is called before it is complete; its name begins so.
pub(crate) const UNFINISHED: &str = ".new-";

/// Whether the name begins with a dot: nobody's file, or one that was never completed.
#[must_use]
pub fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b".")
}

/// Whether a call of [`write`] is making it just now, or was killed over it.
#[must_use]
pub fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes())
}

/// Removes what calls of [`write`] have left that were killed. For whoever knows that
/// nobody writes just now.
pub fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if is_unfinished(&entry.path()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// What to do where the file is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Fail with [`io::ErrorKind::AlreadyExists`], leaving it as it is.
    Keep,
    /// Put the new one in its place, at once.
    Replace,
}

/// Writes a file: private from its first byte on, complete and on disk before it gets
/// its name. A crash leaves the old file, the new one, or none; never a part.
pub fn write(
    path: &Path,
    text: &str,
    owner: Owner,
    mode: u32,
    existing: Existing,
) -> io::Result<()> {
    let folder = folder_of(path);
    let mut file = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(folder)?;
    give(file.as_file(), owner)?;
    file.as_file()
        .set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    match existing {
        Existing::Keep => file.persist_noclobber(path)?,
        Existing::Replace => file.persist(path)?,
    };
    File::open(folder)?.sync_all()
}

/// Removes a file so that a power cut does not bring it back.
pub fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    File::open(folder_of(path))?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// Gives an open file to its owner; where it is his, nothing is asked of the kernel, which
/// lets root alone give files away.
pub fn give(file: &File, owner: Owner) -> io::Result<()> {
    let meta = file.metadata()?;
    let is = Owner {
        uid: meta.uid(),
        gid: meta.gid(),
    };
    if is == owner {
        return Ok(());
    }
    fchown(file, Some(owner.uid), Some(owner.gid))
}

/// Makes a folder with this owner and mode; one that is there is left as it is.
/// Returns whether it was made.
pub fn make_folder(path: &Path, owner: Owner, mode: u32) -> io::Result<bool> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error),
    }
    let folder = File::open(path)?;
    give(&folder, owner)?;
    folder.set_permissions(Permissions::from_mode(mode))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    fn me() -> Owner {
        Owner {
            uid: nix::unistd::getuid().as_raw(),
            gid: nix::unistd::getgid().as_raw(),
        }
    }

    fn secret_file() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("laptop.toml");
        write(&path, "text", me(), KEY_FILE_MODE, Existing::Keep).unwrap();
        (dir, path)
    }

    #[test]
    fn what_was_written_is_read() {
        let (_dir, path) = secret_file();
        let text = read(&path, Access::Exactly(me(), KEY_FILE_MODE)).unwrap();
        assert_eq!(*text, "text");
    }

    #[test]
    fn a_file_is_never_overwritten_unasked() {
        let (_dir, path) = secret_file();
        let error = write(&path, "other", me(), 0o640, Existing::Keep).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn any_other_mode_is_refused_with_the_command_that_mends_it() {
        let (_dir, path) = secret_file();
        for mode in [0o644, 0o660, 0o600, 0o4640, 0o641] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = read(&path, Access::Exactly(me(), KEY_FILE_MODE)).unwrap_err();
            let want = format!("chmod 0640 {}", path.display());
            assert!(error.to_string().contains(&want), "{mode:o}: {error}");
        }
    }

    #[test]
    fn another_owner_or_group_is_refused() {
        let (_dir, path) = secret_file();
        for owner in [Owner { uid: 12345, ..me() }, Owner { gid: 12345, ..me() }] {
            let result = read(&path, Access::Exactly(owner, KEY_FILE_MODE));
            assert!(matches!(result, Err(Unsafe::Access { .. })));
        }
    }

    #[test]
    fn links_folders_and_second_names_are_refused() {
        let (dir, path) = secret_file();
        let access = Access::Exactly(me(), KEY_FILE_MODE);
        let link = dir.path().join("link.toml");
        symlink(&path, &link).unwrap();
        assert!(matches!(read(&link, access), Err(Unsafe::Kind { .. })));
        assert!(matches!(read(dir.path(), access), Err(Unsafe::Kind { .. })));
        fs::hard_link(&path, dir.path().join("second.toml")).unwrap();
        assert!(matches!(read(&path, access), Err(Unsafe::Kind { .. })));
    }

    #[test]
    fn a_configuration_that_others_may_write_is_refused() {
        let (_dir, path) = secret_file();
        let access = Access::WrittenOnlyBy(me());
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(read(&path, access).is_ok());
        fs::set_permissions(&path, Permissions::from_mode(0o664)).unwrap();
        assert!(matches!(read(&path, access), Err(Unsafe::Access { .. })));
    }

    #[test]
    fn a_path_in_a_message_is_one_word_for_the_shell() {
        assert_eq!(
            shell_word(Path::new("/etc/oneknock/keys/a.toml")),
            "/etc/oneknock/keys/a.toml"
        );
        assert_eq!(shell_word(Path::new("/tmp/it's $x")), r"'/tmp/it'\''s $x'");
        assert_eq!(shell_word(Path::new("")), "''");
    }
}
