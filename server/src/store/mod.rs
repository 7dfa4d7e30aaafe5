//! The spent log holds what must outlive the daemon so that no packet is accepted twice. The
//! journal holds what people want to know later.
//!
//! ```text
//! lock                 the run lock: one process at a time
//! mark                 the high-water mark: nothing later was accepted; synced ahead
//! 00000007.snapshot    the state that all records before segment 7 add up to
//! 00000007.log         segment 7: records of 192 bytes, of spent packets and their outcomes
//! 00000008.log         the next segment, prepared
//! journal.db           history and last use, projected from the log by a thread
//! ```
//!
//! One write appends a batch of packets to a preallocated file. The hot path syncs nothing but
//! the mark, and the mark at most every 5 seconds. A written record survives a kill. After a
//! power cut the last records may be missing, and the mark is the floor instead. A state that
//! is missing or damaged is never taken for an empty one.

mod codec;
mod directory;
mod errors;
mod fields;
mod fold;
mod journal;
mod lock;
mod maintenance;
mod mark;
mod opening;
mod permissions;
mod reader;
mod record;
mod recovery;
mod run;
mod segment;
mod snapshot;
mod spent_ids;

pub use errors::{StoreError, StoreOpenError};
pub use journal::{
    ConnectionFilter, GenerationUse, HistoryRow, JournalStatus, granted_since_boot, history,
    opened_targets, uses,
};
pub use opening::Recovery;
pub use permissions::{InsecurePath, insecure_paths};

use crate::engine::{Event, Now, Spend, State};
use crate::files::{self, Owner};
use directory::{DIRECTORY_MODE, StateDirectory};
use journal::JournalSettings;
use mark::HighWaterMark;
use oneknock_shared::knock::Timestamp;
use oneknock_shared::secret::GenerationId;
use run::Run;
use std::fs::File;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// The default of [`Store::set_history_retention`].
const RETENTION: Duration = Duration::from_secs(90 * 24 * 3600);

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
    /// Whether the last run was in this boot of the machine.
    same_boot: bool,
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
        let (_lock, directory) = lock::take(dir)?;
        opening::create(&directory).map_err(failed)
    }

    /// Opens and locks the state, and reads it back. Nothing can be spent before
    /// [`Store::begin`]. Fails where the directory is missing, locked, or cannot be read and
    /// written; a damaged state is no error but [`Recovery::Nothing`].
    pub fn open(dir: &Path, now: Now) -> Result<(Self, Recovery), StoreOpenError> {
        let failed = |error| StoreOpenError::Io(dir.into(), error);
        let (lock, directory) = lock::take(dir)?;
        // A run that was killed while it wrote a file has left it without a name.
        files::remove_unfinished(dir).map_err(failed)?;
        let mut insecure = insecure_paths(dir);
        permissions::fix(&mut insecure).map_err(failed)?;
        let recovered = opening::recover(&directory, &insecure, now).map_err(failed)?;
        let store = Self {
            directory,
            mark: recovered.mark,
            run: None,
            same_boot: recovered.same_boot,
            insecure,
            retention: RETENTION,
            _lock: lock,
        };
        Ok((store, recovered.recovery))
    }

    /// The paths that others could read or write when the state was opened. Their permissions
    /// are fixed.
    #[must_use]
    pub fn insecure(&self) -> &[InsecurePath] {
        &self.insecure
    }

    /// Begins a run with this state, which is the whole state: packets that could still pass the
    /// time window, floors, closes, grants. It is on disk when the call returns. `mark` is at
    /// least the greatest of the floors that were raised since [`Store::open`]; 0 where none
    /// was. Fails where the disk refuses; the state is then as it was before.
    pub fn begin(&mut self, state: &State, mark: Timestamp, now: Now) -> Result<(), StoreError> {
        let (directory, retention) = (self.directory.clone(), self.retention);
        let untrusted = self.untrusted_journal();
        let (boot, first_of_boot) = (self.mark.boot().to_owned(), !self.same_boot);
        let journal = |first_segment| JournalSettings {
            directory,
            untrusted,
            boot,
            first_of_boot,
            first_segment,
            retention,
            now,
        };
        self.run = None;
        let begin_mark = || self.mark.begin(mark);
        self.run = Some(Run::begin(
            &self.directory,
            state,
            begin_mark,
            journal,
            now,
        )?);
        Ok(())
    }

    fn untrusted_journal(&self) -> Option<String> {
        let names = journal::FILES.map(|name| self.directory.file(name));
        opening::untrusted(&self.insecure, &self.directory, |path| {
            names.iter().any(|name| name == path)
        })
    }

    /// Records outcomes, after the kernel was told: grants, their ends, retirements. Other
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

    /// Whether the segment is full and the next one is ready: [`Store::rotate`] is due.
    pub fn is_full(&mut self) -> bool {
        self.run.as_mut().is_some_and(Run::is_full)
    }

    /// Goes on in the next segment, and waits for no disk. The state is what everything that was
    /// recorded has come to; its `seen` is not read, since the segments have the packets. A
    /// thread writes the snapshot, and removes the segments all of whose packets are refused by
    /// the floors of the state. Does nothing where the next segment is not ready. After an error
    /// the log goes on in the old segment.
    pub fn rotate(&mut self, state: State, now: Now) -> Result<(), StoreError> {
        self.begun()?.rotate(state, now)
    }

    /// The error of the thread that prepares segments and writes snapshots, while it lasts. The
    /// thread tries again every 5 seconds, and the log goes on.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.run.as_ref().and_then(Run::trouble)
    }

    /// Sets how long the history is kept, counted back from its newest row; 90 days without.
    pub fn set_history_retention(&mut self, retention: Duration) {
        self.retention = retention;
        if let Some(run) = &self.run {
            run.journal.set_retention(retention);
        }
    }

    /// What is wrong with the journal, if anything.
    #[must_use]
    pub fn journal_status(&self) -> JournalStatus {
        let run = self.run.as_ref();
        run.map(|run| run.journal.status()).unwrap_or_default()
    }

    /// Gives the receiver of one answer: when everything that was noted until now is in the
    /// journal, or why it cannot be. To wait for it is to wait for a disk. None before a run has
    /// begun.
    #[must_use]
    pub fn flush_journal(&self) -> Option<Receiver<Result<(), String>>> {
        self.run.as_ref().map(Run::flush_journal)
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
        run.journal.finish();
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
