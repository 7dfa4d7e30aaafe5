//! The ledger: what must outlive the daemon so that nothing is accepted twice, and the
//! record of what was.
//!
//! A packet is recorded before it is granted: in a database whose commits survive
//! a kill, and covered by the lease, which survives a power cut. A state that is missing
//! or damaged is never taken for an empty one.

mod checkpoint;
mod columns;
mod connect;
mod history;
mod lease;
mod modes;
mod rows;
mod store;
mod tidy;
mod uses;

pub use history::{Entry, read as history};
pub use modes::{Loose, look as loose};
pub use uses::{Use, read as uses};

use crate::files::{self, Owner};
use crate::gate::{Accepted, Forgotten, Lost, Memory, Now, Place};
use checkpoint::{Checkpoints, Job};
use lease::{FILE_MODE, Lease, Noted};
use nix::fcntl::OFlag;
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::KeyName;
use oneknock_shared::secret::GenerationId;
use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The database's name in the state's folder.
const FILE: &str = "ledger.db";
/// All that the database is made of.
const DATABASE_FILES: [&str; 3] = ["ledger.db", "ledger.db-wal", "ledger.db-shm"];
/// After so many pages the write-ahead log is moved: well before [`connect::LONG_LOG`].
const MOVE_AFTER: usize = 6_000;
/// How often the history is cut, where it does not grow fast.
const CUT_EVERY: Duration = Duration::from_secs(3600);

/// The state's folder, held by this process alone.
#[derive(Debug)]
pub struct Ledger {
    folder: PathBuf,
    owner: Owner,
    database: Connection,
    /// What of the database is known to be there.
    known: rows::Known,
    lease: Lease,
    checkpoints: Checkpoints,
    /// Pages in the log since it was last moved.
    unmoved: usize,
    /// The history is cut then, or when so many claims have ended as a key has rows.
    cut: Duration,
    ended: usize,
    loose: Vec<Loose>,
    _lock: File,
}

/// Why the state cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The folder is missing or cannot be read or written.
    #[error("the state in {0}: {1}")]
    Io(PathBuf, io::Error),
    /// There is no such folder.
    #[error(
        "the state in {0} is missing: \"oneknockctl new-state\" makes a new one, if this machine's clock is right"
    )]
    Missing(PathBuf),
    /// Another daemon has it.
    #[error("the state in {0} is in use by a running oneknockd")]
    Locked(PathBuf),
    /// The database cannot be opened, though nothing says that it is damaged: the disk is
    /// full, or another program has locked it.
    #[error("the state in {0}: {DATABASE}: {1}", DATABASE = FILE)]
    Database(PathBuf, rusqlite::Error),
}

/// Why something was not recorded. Nothing of it was, and nothing may be granted.
#[derive(Debug, thiserror::Error)]
pub enum Unrecorded {
    /// The lease could not be written.
    #[error("lease: {0}")]
    Lease(#[from] io::Error),
    /// The database did not take it.
    #[error("{DATABASE}: {0}", DATABASE = FILE)]
    Database(#[from] rusqlite::Error),
}

impl Unrecorded {
    /// Whether the database is damaged: [`Ledger::renew`] puts another in its place.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Database(error) if store::is_damage(error))
    }
}

/// What a start finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// The state of the last run.
    State {
        /// What was recorded.
        memory: Memory,
        /// After a power cut: the lease. Nothing that is not later may be accepted from
        /// any generation that there is.
        floor: Option<Timestamp>,
    },
    /// The state is missing or was damaged; the text says which, and what became of it.
    Nothing(String),
}

impl Ledger {
    /// Makes the empty state of a server that has accepted nothing yet. A state that is
    /// there is kept.
    pub fn create(folder: &Path, owner: Owner) -> Result<(), Unusable> {
        let failed = |error| Unusable::Io(folder.into(), error);
        files::make_folder(folder, owner, modes::FOLDER_MODE).map_err(failed)?;
        store::create(folder, owner)?;
        lease::create(folder, owner).map_err(failed)
    }

    /// Opens the state and says what it holds. Before anything is accepted:
    /// [`Ledger::begin`].
    pub fn open(folder: &Path, now: Now) -> Result<(Self, Found), Unusable> {
        let failed = |error| Unusable::Io(folder.into(), error);
        let (lock, owner) = take_lock(folder)?;
        // What a run has left that was killed over it.
        files::remove_unfinished(folder).map_err(failed)?;
        let mut loose = modes::look(folder);
        modes::tighten(&mut loose).map_err(failed)?;
        // What lies in a folder that others could write, they could have put there.
        let is_open = loose.iter().any(|l| l.writable && l.path == folder);
        let distrusted = |names: &[&str]| {
            let named = |l: &&Loose| names.iter().any(|name| l.path == folder.join(name));
            let found = loose.iter().find(|l| l.writable && (is_open || named(l)));
            found.map(Loose::what)
        };
        let (lease_is, database_is) = (distrusted(&["lease"]), distrusted(&DATABASE_FILES));
        let (mut lease, noted) = match &lease_is {
            Some(_) => Lease::distrusted(folder, owner),
            None => Lease::open(folder, owner),
        }
        .map_err(failed)?;
        let same_boot = matches!(
            noted,
            Noted::Run {
                same_boot: true,
                ..
            }
        );
        let (database, found) = match (store::open(folder, now, same_boot, database_is)?, noted) {
            (Err(why), _) => {
                // Without a lease an empty database is no state, whatever happens next.
                lease.void().map_err(failed)?;
                store::create(folder, owner)?;
                (store::open_new(folder)?, Found::Nothing(why))
            }
            (Ok((database, _)), Noted::Missing) => {
                (database, Found::Nothing("lease is missing".into()))
            }
            (Ok((database, _)), Noted::Damaged) => {
                let what =
                    lease_is.map_or("is damaged".into(), |why| format!("is not trusted: {why}"));
                let why = format!("lease {what}; it was moved to lease.damaged");
                (database, Found::Nothing(why))
            }
            (
                Ok((database, memory)),
                Noted::Run {
                    until,
                    clean,
                    same_boot,
                },
            ) => {
                let floor = (!clean && !same_boot).then_some(until);
                (database, Found::State { memory, floor })
            }
        };
        let ledger = Self {
            folder: folder.into(),
            owner,
            database,
            known: rows::Known::new(),
            lease,
            checkpoints: Checkpoints::start(folder),
            unmoved: 0,
            cut: Duration::ZERO,
            ended: 0,
            loose: std::mem::take(&mut loose),
            _lock: lock,
        };
        Ok((ledger, found))
    }

    /// What others could get at when the state was opened, and cannot any more.
    #[must_use]
    pub fn was_loose(&self) -> &[Loose] {
        &self.loose
    }

    /// Begins a run: with these floors, which hold from now on, and without the mark of a
    /// clean stop. `lease` is at least the greatest of the floors.
    pub fn begin(&mut self, forgotten: &Forgotten, lease: Timestamp) -> Result<(), Unrecorded> {
        rows::within(&self.database, || tidy::forget(&self.database, forgotten))?;
        store::begin_log(&self.database)?;
        Ok(self.lease.begin(lease)?)
    }

    /// Records accepted packets and what they open or close, in their order: all of them,
    /// or none.
    pub fn record(&mut self, batch: &[Accepted], now: Now) -> Result<(), Unrecorded> {
        if let Some(last) = batch.iter().map(|accepted| accepted.at).max() {
            self.lease.cover(last)?;
        }
        rows::record(&self.database, &mut self.known, batch, now)?;
        // About so many: a page for each of three tables, and more where many go together.
        self.unmoved += 3 + batch.len() / 4;
        if self.unmoved >= MOVE_AFTER && self.checkpoints.ask(Job::Move) {
            self.unmoved = 0;
        }
        Ok(())
    }

    /// Notes when the keys of recorded packets were last used, and from where: it may be
    /// done after the grant, since nothing that is accepted depends on it.
    pub fn note_uses(&self, batch: &[Accepted], now: Now) -> Result<(), Unrecorded> {
        Ok(rows::note_uses(&self.database, batch, now)?)
    }

    /// Takes back what recorded packets opened or closed, since it could not be made so.
    /// The packets stay recorded: they are spent.
    pub fn undo(&mut self, batch: &[Accepted], now: Now) -> Result<(), Unrecorded> {
        Ok(rows::undo(&mut self.database, batch, now)?)
    }

    /// Notes claims that ended before their time.
    pub fn lose(&mut self, lost: &Lost, now: Now) -> Result<(), Unrecorded> {
        Ok(rows::lose(&mut self.database, lost, now)?)
    }

    /// The places whose live claim one of these generations has opened or renewed last.
    pub fn opened_by<T>(
        &self,
        generations: &BTreeMap<GenerationId, T>,
    ) -> Result<Vec<(KeyName, Place)>, Unrecorded> {
        Ok(uses::opened_by(&self.database, generations)?)
    }

    /// Every place that grants have opened, live or in the history: of a key, of one of its
    /// generations, or to an address; of all without.
    pub fn places(
        &self,
        key: Option<&KeyName>,
        number: Option<u32>,
        address: Option<IpAddr>,
    ) -> Result<BTreeSet<Place>, Unrecorded> {
        Ok(uses::places(&self.database, key, number, address)?)
    }

    /// Keeps the ledger small: forgets what the gate has forgotten, moves claims that have
    /// ended to the history, and cuts that to `keep` and to so many rows for each key. Not
    /// more than some at once: returns whether there is more to be done.
    pub fn tidy(
        &mut self,
        forgotten: &Forgotten,
        keep: Duration,
        now: Now,
    ) -> Result<bool, Unrecorded> {
        let (database, portion) = (&self.database, usize::from(tidy::PORTION));
        let gone = rows::within(database, || tidy::forget(database, forgotten))?;
        let ended = rows::within(database, || tidy::end_expired(database, now))?;
        self.ended += ended;
        let mut more = gone.max(ended) >= portion;
        if now.mono >= self.cut || self.ended >= usize::from(tidy::ROWS_OF_KEY) {
            let cut = rows::within(database, || tidy::cut(database, keep, now))?;
            if cut >= portion {
                more = true;
            } else {
                (self.cut, self.ended) = (now.mono.saturating_add(CUT_EVERY), 0);
            }
        }
        if !more {
            // Where another job waits, the next time will do.
            self.checkpoints.ask(Job::Sync);
        }
        Ok(more)
    }

    /// Puts a new database in the place of a damaged one, which is moved aside, and fills
    /// it from what the gate knows: all but the history. Returns the damaged one's name.
    pub fn renew(&mut self, memory: &Memory, now: Now) -> Result<String, Unusable> {
        let (database, aside) = store::renew(&self.folder, self.owner, memory, now)?;
        self.database = database;
        self.known.clear();
        self.checkpoints = Checkpoints::start(&self.folder);
        Ok(aside)
    }

    /// A clean stop: everything is on disk, then the mark is made. Where a reader of the
    /// database prevents that, the next start is one after a kill.
    pub fn close(self) -> Result<(), Unrecorded> {
        drop(self.checkpoints);
        if store::close(self.database)? {
            self.lease.end()?;
        }
        Ok(())
    }
}

/// Takes the lock of a state, which is the folder's owner's.
fn take_lock(folder: &Path) -> Result<(File, Owner), Unusable> {
    let failed = |error| Unusable::Io(folder.into(), error);
    let meta = fs::metadata(folder).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unusable::Missing(folder.into()),
        _ => failed(error),
    })?;
    let owner = Owner {
        uid: meta.uid(),
        gid: meta.gid(),
    };
    let lock = open_lock(&folder.join("lock"), owner).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok((lock, owner)),
        Err(TryLockError::WouldBlock) => Err(Unusable::Locked(folder.into())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Opens the lock, following no link and waiting for nobody; writes nothing. One that is
/// made is the folder's owner's: root may make it, and the daemon have it later.
fn open_lock(path: &Path, owner: Owner) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(FILE_MODE);
    options.custom_flags(flags.bits());
    let lock = match options.clone().create_new(true).open(path) {
        Ok(made) => {
            files::give(&made, owner)?;
            made
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path)?,
        Err(error) => return Err(error),
    };
    if lock.metadata()?.is_file() {
        Ok(lock)
    } else {
        Err(io::Error::other("lock is not a plain file"))
    }
}

#[cfg(test)]
mod tests;
