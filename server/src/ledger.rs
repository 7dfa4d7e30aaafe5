//! What must outlive the daemon so that nothing is accepted twice.
//!
//! The lease is a synced note that says "nothing later than T has been accepted". It is
//! raised ahead of the packet that needs it, and T is the floor of every generation at
//! the next start: after a kill or a power cut nothing that was accepted before can be
//! accepted again, and a fresh knock waits at most the lease's length.

use crate::files::{self, Access, Existing, Owner};
use nix::fcntl::OFlag;
use oneknock_shared::knock::Timestamp;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How far ahead of a packet's timestamp the lease is written, in milliseconds.
const LEASE_MS: u64 = 5_000;
const FILE_MODE: u32 = 0o600;
const HEADER: &str = "oneknock lease 1";

/// The state's folder, held by this process alone.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    owner: Owner,
    lease: Timestamp,
    greatest: Timestamp,
    _lock: File,
}

/// Why the state cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The folder is missing or cannot be read or written.
    #[error("the state in {0}: {1}")]
    Io(PathBuf, io::Error),
    /// Another daemon has it.
    #[error("the state in {0} is in use by another oneknockd")]
    Locked(PathBuf),
}

/// What a start finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// The lease: nothing that is not later may be accepted.
    Lease(Timestamp),
    /// No lease, or a damaged one (which was moved aside): nothing that was made before
    /// `now + skew` may be accepted.
    Nothing(&'static str),
}

impl Ledger {
    /// Makes the empty state of a server that has accepted nothing yet. A state that is
    /// there is kept.
    pub fn create(folder: &Path, owner: Owner) -> io::Result<()> {
        files::make_folder(folder, owner, 0o700)?;
        let path = folder.join("lease");
        match files::write(&path, &text(Timestamp(0)), owner, FILE_MODE, Existing::Keep) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    /// Opens the state and says what it holds.
    pub fn open(folder: &Path) -> Result<(Self, Found), Unusable> {
        let failed = |error| Unusable::Io(folder.into(), error);
        let meta = fs::metadata(folder).map_err(failed)?;
        let owner = Owner {
            uid: meta.uid(),
            gid: meta.gid(),
        };
        let lock = open_lock(&folder.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Unusable::Locked(folder.into())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let path = folder.join("lease");
        let found = match files::read(&path, Access::WrittenOnlyBy(owner)) {
            Err(files::Unsafe::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                Found::Nothing("is missing")
            }
            Ok(content) => match parse(&content) {
                Some(lease) => Found::Lease(lease),
                None => Found::Nothing("is damaged; it was moved to lease.damaged"),
            },
            Err(files::Unsafe::Io(error)) => return Err(failed(error)),
            Err(_) => {
                Found::Nothing("is not a plain file of the daemon's; it was moved to lease.damaged")
            }
        };
        if found != Found::Nothing("is missing") && matches!(found, Found::Nothing(_)) {
            fs::rename(&path, folder.join("lease.damaged")).map_err(failed)?;
        }
        let lease = match found {
            Found::Lease(lease) => lease,
            Found::Nothing(_) => Timestamp(0),
        };
        Ok((
            Self {
                path,
                owner,
                lease,
                greatest: lease,
                _lock: lock,
            },
            found,
        ))
    }

    /// Records that a packet of this timestamp is accepted, durably. Where this fails,
    /// nothing may be granted.
    pub fn record(&mut self, at: Timestamp) -> io::Result<()> {
        if at > self.lease {
            self.write(Timestamp(at.0.saturating_add(LEASE_MS)))?;
        }
        self.greatest = self.greatest.max(at);
        Ok(())
    }

    /// Writes the floor that replaces a missing state, so that it holds after a restart.
    pub fn begin(&mut self, floor: Timestamp) -> io::Result<()> {
        self.greatest = floor;
        self.write(floor)
    }

    /// A clean stop: the lease goes down to the greatest timestamp accepted, so that the
    /// next start is not deaf for a moment.
    pub fn close(mut self) -> io::Result<()> {
        if self.greatest < self.lease {
            self.write(self.greatest)
        } else {
            Ok(())
        }
    }

    fn write(&mut self, lease: Timestamp) -> io::Result<()> {
        files::write(
            &self.path,
            &text(lease),
            self.owner,
            FILE_MODE,
            Existing::Replace,
        )?;
        self.lease = lease;
        Ok(())
    }
}

/// Opens the lock, following no link and waiting for nobody; writes nothing.
fn open_lock(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let lock = options
        .mode(FILE_MODE)
        .custom_flags(flags.bits())
        .open(path)?;
    if lock.metadata()?.is_file() {
        Ok(lock)
    } else {
        Err(io::Error::other("lock is not a plain file"))
    }
}

fn text(lease: Timestamp) -> String {
    format!("{HEADER}\n{}\n", lease.0)
}

fn parse(text: &str) -> Option<Timestamp> {
    let number = text
        .strip_prefix(HEADER)?
        .strip_prefix('\n')?
        .strip_suffix('\n')?;
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| number.parse().ok().map(Timestamp)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let me = Owner {
            uid: nix::unistd::getuid().as_raw(),
            gid: nix::unistd::getgid().as_raw(),
        };
        let path = dir.path().join("state");
        Ledger::create(&path, me).unwrap();
        (dir, path)
    }

    fn found(path: &Path) -> Found {
        Ledger::open(path).unwrap().1
    }

    #[test]
    fn a_new_state_forbids_nothing() {
        let (_dir, path) = folder();
        assert_eq!(found(&path), Found::Lease(Timestamp(0)));
    }

    #[test]
    fn after_a_kill_nothing_accepted_before_can_pass() {
        let (_dir, path) = folder();
        let (mut ledger, _) = Ledger::open(&path).unwrap();
        ledger.record(Timestamp(1_000)).unwrap();
        ledger.record(Timestamp(6_001)).unwrap();
        drop(ledger);
        assert_eq!(found(&path), Found::Lease(Timestamp(11_001)));
    }

    #[test]
    fn after_a_clean_stop_the_floor_is_the_last_packet() {
        let (_dir, path) = folder();
        let (mut ledger, _) = Ledger::open(&path).unwrap();
        ledger.record(Timestamp(1_000)).unwrap();
        ledger.close().unwrap();
        assert_eq!(found(&path), Found::Lease(Timestamp(1_000)));
        Ledger::open(&path).unwrap().0.close().unwrap();
        assert_eq!(found(&path), Found::Lease(Timestamp(1_000)));
    }

    #[test]
    fn a_missing_or_damaged_state_is_never_taken_for_an_empty_one() {
        let (_dir, path) = folder();
        fs::write(path.join("lease"), "oneknock lease 1\n12").unwrap();
        assert!(matches!(found(&path), Found::Nothing(_)));
        assert!(path.join("lease.damaged").exists());
        assert_eq!(found(&path), Found::Nothing("is missing"));
    }

    #[test]
    fn one_daemon_at_a_time() {
        let (_dir, path) = folder();
        let _first = Ledger::open(&path).unwrap();
        assert!(matches!(Ledger::open(&path), Err(Unusable::Locked(_))));
    }
}
