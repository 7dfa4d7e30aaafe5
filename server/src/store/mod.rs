//! What must outlive the daemon, so that no packet is accepted twice: the spent log. And what
//! people want to know of it later: the journal.
//!
//! ```text
//! lock                 one process at a time
//! mark                 the high-water mark: nothing later was accepted; synced ahead
//! 00000007.snapshot    what all records before segment 7 come to
//! 00000007.log         records of 192 bytes: packets that are spent, and what came of them
//! 00000008.log         the next segment, prepared
//! journal.db           history and last use, made of the log by a thread
//! ```
//!
//! A batch of packets is appended by one write, into room that is there already; nothing on
//! that way is synced but the mark, and that only every 5 seconds. What is written survives a
//! kill. After a power cut the last records may be missing, and the mark is the floor instead.
//! A state that is missing or damaged is never taken for an empty one.

mod codec;
mod directory;
mod errors;
mod fields;
mod fold;
mod journal;
mod keeper;
mod lock;
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

/// How long the history is kept, where nothing else is said.
const RETENTION: Duration = Duration::from_secs(90 * 24 * 3600);

/// Where packets are spent: what is in it was accepted by no more than one call.
pub trait SpentLog {
    /// Spends these packets, and says of each whether it was fresh. On an error none of them
    /// may be accepted, and all are to be taken for spent.
    fn spend(&mut self, batch: &[Spend], now: Now) -> Result<Vec<bool>, StoreError>;
}

/// The state directory, held by this process alone.
#[derive(Debug)]
pub struct Store {
    directory: StateDirectory,
    mark: HighWaterMark,
    /// From the beginning of a run.
    run: Option<Run>,
    same_boot: bool,
    insecure: Vec<InsecurePath>,
    retention: Duration,
    _lock: File,
}

impl Store {
    /// Makes the empty state of a server that has accepted nothing yet. One that is there, even
    /// in part, is left as it is.
    pub fn create(dir: &Path, owner: Owner) -> Result<(), StoreOpenError> {
        let failed = |error| StoreOpenError::Io(dir.into(), error);
        files::make_folder(dir, owner, DIRECTORY_MODE).map_err(failed)?;
        let (_lock, directory) = lock::take(dir)?;
        opening::create(&directory).map_err(failed)
    }

    /// Opens the state and says what it holds. Before anything is accepted: [`Store::begin`].
    pub fn open(dir: &Path, now: Now) -> Result<(Self, Recovery), StoreOpenError> {
        let failed = |error| StoreOpenError::Io(dir.into(), error);
        let (lock, directory) = lock::take(dir)?;
        // What a run has left that was killed over it.
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

    /// What others could get at when the state was opened, and cannot any more.
    #[must_use]
    pub fn insecure(&self) -> &[InsecurePath] {
        &self.insecure
    }

    /// Begins a run with this state, without the note of a clean stop. The floors of the state
    /// hold from now on; `mark` is at least the greatest of those that are not from the log.
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

    /// Records what came of spent packets, and how grants ended: after the kernel was told. On
    /// an error it is written before whatever is recorded next.
    pub fn note(&mut self, events: &[Event], now: Now) -> Result<(), StoreError> {
        self.begun()?.note(events, now)
    }

    /// Records floors that no packet has raised: of generations that came without a record. On
    /// an error they are written before whatever is recorded next.
    pub fn raise_floors(
        &mut self,
        floors: &[(GenerationId, Timestamp)],
        now: Now,
    ) -> Result<(), StoreError> {
        self.begun()?.raise_floors(floors, now)
    }

    /// Whether the log is to be brought to the next segment, which is ready: [`Store::rotate`].
    pub fn is_full(&mut self) -> bool {
        self.run.as_mut().is_some_and(Run::is_full)
    }

    /// Brings the log to the next segment; waits for nothing. The state is that after everything
    /// that was recorded; its packets are in the log already and may be missing in it. A thread
    /// writes it down, and removes the segments all of whose packets its floors refuse. Where
    /// the next segment is not ready the log goes on in this one.
    pub fn rotate(&mut self, state: State, now: Now) -> Result<(), StoreError> {
        self.begun()?.rotate(state, now)
    }

    /// What the disk refuses to the thread that prepares segments and writes snapshots. It is
    /// tried again, and the log goes on meanwhile.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.run.as_ref().and_then(Run::trouble)
    }

    /// How long the history is kept, counted from its newest row.
    pub fn set_history_retention(&mut self, retention: Duration) {
        self.retention = retention;
        if let Some(run) = &self.run {
            run.journal.set_retention(retention);
        }
    }

    /// How the journal is.
    #[must_use]
    pub fn journal_status(&self) -> JournalStatus {
        let run = self.run.as_ref();
        run.map(|run| run.journal.status()).unwrap_or_default()
    }

    /// Gets an answer when everything that was noted until now is in the journal, or why it is
    /// not: at once, before a run has begun. Whoever waits for it waits for a disk.
    #[must_use]
    pub fn flush_journal(&self) -> Option<Receiver<Result<(), String>>> {
        self.run.as_ref().map(|run| run.journal.flush())
    }

    /// A clean stop: everything is on disk, then the mark says so. A run that has not begun
    /// leaves the state as it was.
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
