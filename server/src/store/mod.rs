//! The spent log holds what must outlive the daemon so that no packet is accepted twice. The
//! journal holds what people want to know later.
//!
//! ```text
//! lock            the run lock: one process at a time
//! mark            the high-water mark: nothing later was accepted; synced ahead
//! 00000007.log    segment 7: a state, and records of spent packets and their outcomes
//! 00000008.log    the next segment, whose state is that at some record of segment 7
//! journal.db      history and last use, projected from the log by a thread
//! ```
//!
//! One write appends a batch of packets to a preallocated file. The hot path syncs nothing but
//! the mark, and the mark at most every 5 seconds. A written record survives a kill. After a
//! power cut the last records may be missing, and the mark is the floor instead. A state that
//! is missing or damaged is never taken for an empty one.

mod boot;
mod codec;
mod directory;
mod errors;
mod fold;
mod journal;
mod mark;
mod packets;
mod permissions;
mod reader;
mod record;
mod recovery;
mod run;
mod segment;
mod worker;

pub use errors::{StoreError, StoreOpenError};
pub use journal::{
    ConnectionFilter, GenerationUse, HistoryRow, granted_since_boot, history, knows_all_since_boot,
    opened_targets, uses,
};
pub use permissions::{InsecurePath, insecure_paths};
pub use recovery::Recovery;
pub use worker::StoreStatus;

use crate::engine::{Event, Now, Spend, State};
use crate::files::{self, Owner};
use directory::{DATABASE, DIRECTORY_MODE, StateDirectory};
use mark::HighWaterMark;
use oneknock_shared::knock::Timestamp;
use oneknock_shared::secret::GenerationId;
use run::Run;
use std::fs::File;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use worker::WorkerSettings;

/// The default of [`Store::set_history_retention`].
const RETENTION: Duration = Duration::from_secs(90 * 24 * 3600);

/// A clean stop waits at most this long for the journal.
const JOURNAL_WITHIN: Duration = Duration::from_secs(5);

/// A log in which packets are spent: a packet is fresh for one call at most.
pub trait SpentLog {
    /// Spends these packets, in their order, and says of each whether it was fresh. The answer
    /// has the length of the batch. After an error none of them may be accepted, and the caller
    /// has to take all of them for spent: some may be in the log.
    fn spend(&mut self, batch: &[Spend], now: Now) -> Result<Vec<bool>, StoreError>;
}

/// The state directory, open and locked by this process.
#[derive(Debug)]
pub struct Store {
    directory: StateDirectory,
    mark: HighWaterMark,
    /// None before [`Store::begin`].
    run: Option<Run>,
    is_first_of_boot: bool,
    insecure: Vec<InsecurePath>,
    retention: Duration,
    _lock: File,
}

impl Store {
    /// Creates the directory and the empty state of a server that has accepted nothing yet. A
    /// state that is there, even in part, is left as it is. Fails where the directory cannot be
    /// written, or is locked.
    pub fn create(dir: &Path, owner: Owner) -> Result<(), StoreOpenError> {
        let failed = |error| StoreOpenError::Io(dir.into(), error);
        files::make_folder(dir, owner, DIRECTORY_MODE).map_err(failed)?;
        let (_lock, directory) = StateDirectory::lock(dir)?;
        recovery::create(&directory).map_err(failed)
    }

    /// Opens and locks the state, and reads it back. Nothing can be spent before
    /// [`Store::begin`]. Fails where the directory is missing, locked, or cannot be read and
    /// written; a damaged state is no error but [`Recovery::Nothing`].
    pub fn open(dir: &Path, now: Now) -> Result<(Self, Recovery), StoreOpenError> {
        let failed = |error| StoreOpenError::Io(dir.into(), error);
        let (lock, directory) = StateDirectory::lock(dir)?;
        // A run that was killed while it wrote a file has left it without a name.
        files::remove_unfinished(dir).map_err(failed)?;
        let mut insecure = insecure_paths(dir);
        permissions::fix(&mut insecure).map_err(failed)?;
        let recovered = recovery::recover(&directory, &insecure, now);
        let (mark, is_first_of_boot, recovery) = recovered.map_err(failed)?;
        let store = Self {
            directory,
            mark,
            run: None,
            is_first_of_boot,
            insecure,
            retention: RETENTION,
            _lock: lock,
        };
        Ok((store, recovery))
    }

    /// Begins a run with this state, which is the whole state: packets that could still pass the
    /// time window, floors, closes, grants. It is on disk when the call returns. `mark` is at
    /// least the greatest of the floors that were raised since [`Store::open`]; 0 where none
    /// was. Fails where the disk refuses; the state is then as it was before.
    pub fn begin(&mut self, state: &State, mark: Timestamp, now: Now) -> Result<(), StoreError> {
        self.run = None;
        let is_first = self.is_first_of_boot;
        let header = run::first_header(&self.directory, self.mark.run(), is_first, now);
        let header = header.map_err(StoreError::Log)?;
        let is_journal = |name: &str| name.starts_with(DATABASE);
        let settings = WorkerSettings {
            directory: self.directory.clone(),
            header,
            untrusted: permissions::untrusted(&self.insecure, &self.directory, is_journal),
            retention: self.retention,
        };
        self.run = Some(Run::begin(settings, state, &mut self.mark, mark)?);
        Ok(())
    }

    /// Records outcomes, before the kernel is told: grants, their ends, retirements. Other
    /// events are skipped. After an error the outcomes are kept, and written before everything
    /// that is recorded next.
    pub fn note(&mut self, events: &[Event], now: Now) -> Result<(), StoreError> {
        self.begun()?.note(events, now)
    }

    /// Records floors that no packet has raised: those of generations without a record, which a
    /// reload has brought. After an error they are kept, and written before everything that is
    /// recorded next.
    pub fn raise_floors(&mut self, floors: &[(GenerationId, Timestamp)]) -> Result<(), StoreError> {
        self.begun()?.raise_floors(floors)
    }

    /// Whether the segment is nearly full: [`Store::rotate`] is due.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.run.as_ref().is_some_and(Run::is_full)
    }

    /// Has a thread make the next segment, and waits for no disk. The log goes on in it once it
    /// is made. The state is what everything that was recorded has come to; its `seen` is not
    /// read, since the segments have the packets. The segments all of whose packets are refused
    /// by the floors of the state are removed. Does nothing while a segment is being made.
    pub fn rotate(&mut self, state: State, now: Now) -> Result<(), StoreError> {
        self.begun()?.rotate(state, now);
        Ok(())
    }

    /// Sets how long the run that begins next keeps the history, counted back from its newest
    /// row; 90 days without.
    pub fn set_history_retention(&mut self, retention: Duration) {
        self.retention = retention;
    }

    /// What is wrong with the log's files and the journal, if anything.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        let run = self.run.as_ref();
        run.map(|run| run.worker.status()).unwrap_or_default()
    }

    /// Gives the receiver of one answer: when everything that was noted until now is in the
    /// journal, or why it cannot be. To wait for it is to wait for a disk. None before a run has
    /// begun.
    #[must_use]
    pub fn flush_journal(&self) -> Option<Receiver<Result<(), String>>> {
        self.run.as_ref().map(|run| run.worker.flush())
    }

    /// Stops cleanly: syncs the log, notes the clean stop in the mark, and lets the journal read
    /// the rest for 5 seconds at most. Where no run has begun the state stays as it was. After
    /// an error the next start is one after a kill.
    pub fn close(self) -> Result<(), StoreError> {
        let Some(mut run) = self.run else {
            return Ok(());
        };
        run.sync()?;
        self.mark.end().map_err(StoreError::Mark)?;
        // The next start reads what the journal lacks then.
        let _ = run.worker.flush().recv_timeout(JOURNAL_WITHIN);
        Ok(())
    }

    fn begun(&mut self) -> Result<&mut Run, StoreError> {
        self.run.as_mut().ok_or(StoreError::NotBegun)
    }
}

impl SpentLog for Store {
    fn spend(&mut self, batch: &[Spend], now: Now) -> Result<Vec<bool>, StoreError> {
        let run = self.run.as_mut().ok_or(StoreError::NotBegun)?;
        run.spend(&mut self.mark, batch, now)
    }
}

#[cfg(test)]
mod tests;
