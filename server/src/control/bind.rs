//! The control socket in the file system: a directory that no other user can write to, a lock of
//! the daemon whose it is, and a socket that is private from its first moment.

use super::lock::RunLock;
use crate::files::{self, Access, Owner};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// Why there can be no control socket.
#[derive(Debug, thiserror::Error)]
#[error("control socket {path}: {why}")]
pub struct NoSocket {
    path: PathBuf,
    why: String,
}

/// The socket's file. Removed when dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    group: Option<u32>,
    made: (u64, u64),
    _lock: RunLock,
}

/// Makes the socket. One that a killed daemon left is replaced, one of a living daemon is
/// not. Besides its owner and root, `group` may use it.
pub fn bind(path: &Path, group: Option<&str>) -> Result<(UnixListener, SocketFile), NoSocket> {
    let failed = |why: String| NoSocket {
        path: path.into(),
        why,
    };
    let said = |error: io::Error| failed(error.to_string());
    let group = match group.map(|name| (name, files::group_id(name))) {
        None => None,
        Some((_, Ok(Some(group)))) => Some(group),
        Some((name, Ok(None))) => return Err(failed(format!("there is no group {name}"))),
        Some((name, Err(error))) => return Err(failed(format!("group {name}: {error}"))),
    };
    let dir = path.parent().unwrap_or(Path::new("/"));
    make_directory(dir).map_err(|error| failed(format!("{}: {error}", dir.display())))?;
    check_directory(dir)
        .map_err(|error| failed(format!("its directory {} {error}", dir.display())))?;
    let lock = RunLock::take(&lock_path(path)).map_err(said)?;
    let lock = lock.ok_or_else(|| failed("another oneknockd has it".into()))?;
    // What has the lock may remove what is there, but only a socket.
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(failed("something that is no socket is there".into()));
        }
        _ => {}
    }
    let new = beside(path, ".new");
    let listener = listen(&new, group).map_err(said)?;
    fs::rename(&new, path).map_err(said)?;
    let made = fs::symlink_metadata(path).map_err(said)?;
    let file = SocketFile {
        path: path.into(),
        group,
        made: (made.dev(), made.ino()),
        _lock: lock,
    };
    Ok((listener, file))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn make_directory(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(dir) {
        // Whatever the umask is: a group that may use the socket must get to it.
        Ok(()) => fs::set_permissions(dir, Permissions::from_mode(0o755)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// A user who can write to the directory could put another socket in the daemon's place.
fn check_directory(dir: &Path) -> Result<(), files::Unsafe> {
    let us = Owner {
        uid: nix::unistd::geteuid().as_raw(),
        gid: 0,
    };
    let ours = files::check_folder(dir, Access::WrittenOnlyBy(us));
    ours.or_else(|_| files::check_folder(dir, Access::WrittenOnlyBy(Owner { uid: 0, gid: 0 })))
}

/// The lock of the daemon whose socket this is.
fn lock_path(path: &Path) -> PathBuf {
    beside(path, ".lock")
}

/// Whether a daemon lives whose socket this is, also where the socket was removed.
#[must_use]
pub fn is_alive(path: &Path) -> bool {
    RunLock::is_held(&lock_path(path))
}

/// No one can connect before it listens, and it listens when its mode is set.
fn listen(path: &Path, group: Option<u32>) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    if let Some(group) = group {
        chown(path, None, Some(group)).map_err(|error| give_hint(&error))?;
    }
    fs::set_permissions(path, Permissions::from_mode(mode(group)))?;
    socket.listen(16)?;
    UnixListener::from_std(std::os::unix::net::UnixListener::from(socket))
}

fn give_hint(error: &io::Error) -> io::Error {
    let what = format!(
        "the socket cannot be given to control_group ({error}): besides root only a member of a group can, and systemd has to let him: SupplementaryGroups=GROUP and SystemCallFilter=@chown in \"systemctl edit oneknockd\""
    );
    io::Error::new(error.kind(), what)
}

fn mode(group: Option<u32>) -> u32 {
    if group.is_some() { 0o660 } else { 0o600 }
}

impl SocketFile {
    /// Whether a peer of this user may use the socket: root, the daemon's own user, and
    /// the group's members where there is one. Who is a member the kernel has judged when
    /// it connected, by the socket's mode and group, as long as those are the daemon's.
    #[must_use]
    pub fn may_use(&self, uid: u32) -> bool {
        uid == 0 || uid == nix::unistd::geteuid().as_raw() || self.is_as_made()
    }

    fn is_as_made(&self) -> bool {
        let Some(group) = self.group else {
            return false;
        };
        fs::symlink_metadata(&self.path).is_ok_and(|meta| {
            let is_it = (meta.dev(), meta.ino()) == self.made;
            is_it && meta.gid() == group && meta.mode() & 0o7777 == mode(self.group)
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A socket that nothing listens on does no harm: the next daemon start replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    }

    fn directory() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join("run/control");
        (dir, path)
    }

    #[test]
    fn the_socket_is_private_and_its_directory_is_made() {
        let (_dir, path) = directory();
        let runtime = runtime();
        let _inside = runtime.enter();
        let _socket = bind(&path, None).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o755);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_living_daemons_socket_is_not_taken_and_a_dead_ones_is() {
        let (_dir, path) = directory();
        let runtime = runtime();
        let _inside = runtime.enter();
        let first = bind(&path, None).unwrap();
        let error = bind(&path, None).unwrap_err();
        assert!(error.to_string().contains("another oneknockd"), "{error}");
        UnixStream::connect(&path).unwrap();
        drop(first);
        assert!(!path.exists());
        // As a kill leaves it: a socket that nothing listens on.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(UnixStream::connect(&path).is_err());
        let _second = bind(&path, None).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let (_dir, path) = directory();
        let runtime = runtime();
        let _inside = runtime.enter();
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, "precious").unwrap();
        let error = bind(&path, None).unwrap_err();
        assert!(error.to_string().contains("no socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let (dir, path) = directory();
        let runtime = runtime();
        let _inside = runtime.enter();
        fs::create_dir(path.parent().unwrap()).unwrap();
        let mode = Permissions::from_mode(0o1777);
        fs::set_permissions(path.parent().unwrap(), mode).unwrap();
        let error = bind(&path, None).unwrap_err().to_string();
        assert!(error.contains("chmod go-w"), "{error}");
        drop(dir);
    }

    #[test]
    fn another_users_peer_is_refused_unless_the_group_was_asked_for() {
        let (_dir, path) = directory();
        let runtime = runtime();
        let _inside = runtime.enter();
        let me = nix::unistd::geteuid().as_raw();
        let (listener, place) = bind(&path, None).unwrap();
        assert!(place.may_use(0) && place.may_use(me) && !place.may_use(65534));
        drop((listener, place));
        let group = nix::unistd::Group::from_gid(nix::unistd::getegid());
        let group = group.unwrap().unwrap().name;
        let (listener, place) = bind(&path, Some(&group)).unwrap();
        assert!(place.may_use(65534));
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        assert!(!place.may_use(65534));
        drop((listener, place));
    }
}
