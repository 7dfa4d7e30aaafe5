//! The journal's thread: when it works, and what of it fails.

use super::super::keeper::Tidier;
use super::database::{JournalError, replaced, set_aside};
use super::projector::Projector;
use super::pruning::PORTION;
use super::rows::{expire, within};
use super::{JournalSettings, Shared, Stop, Wanted};
use crate::engine::Now;
use std::sync::Arc;
use std::time::Duration;

/// What failed is tried again after this time.
const RETRY: Duration = Duration::from_secs(5);
/// How often the journal is pruned, where it does not grow fast.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// It is pruned when so many rows were added, too.
const PRUNE_AFTER: usize = 10_000;

/// The thread's own.
pub(super) struct Worker {
    settings: JournalSettings,
    shared: Arc<Shared>,
    tidier: Tidier,
    /// None while the journal cannot be written.
    projector: Option<Projector>,
    /// It is pruned then, or when so many rows were added since the last time.
    prune_at: Duration,
    added: usize,
}

/// What there is to do.
struct Task {
    target: u64,
    now: Now,
    stop: Option<Stop>,
}

impl Worker {
    pub fn new(settings: JournalSettings, shared: Arc<Shared>, tidier: Tidier) -> Self {
        let now = settings.now.mono;
        Self {
            settings,
            shared,
            tidier,
            projector: None,
            prune_at: now,
            added: 0,
        }
    }

    pub fn run(mut self) {
        let mut task = self.task();
        while task.stop != Some(Stop::AtOnce) {
            let done = self.work(&task);
            let more = match &done {
                Ok(more) => *more,
                Err(error) => self.is_replaced(error),
            };
            if !more {
                self.tell(&task, done.as_ref().err());
                if task.stop.is_some() {
                    return;
                }
                self.wait(&task, done.is_err());
            }
            task = self.task();
        }
    }

    fn task(&self) -> Task {
        let wanted = self.shared.wanted();
        Task {
            target: wanted.target,
            now: wanted.now,
            stop: wanted.stop,
        }
    }

    /// Waits until there is something else to do; after a failure not for ever.
    fn wait(&self, done: &Task, failed: bool) {
        let wanted = self.shared.wanted();
        let is_asked = |w: &Wanted| w.stop.is_some() || !w.flushes.is_empty();
        let changed = &self.shared.changed;
        if failed {
            // What is published meanwhile waits: else a full disk would be asked each time.
            drop(changed.wait_timeout_while(wanted, RETRY, |w| !is_asked(w)));
            return;
        }
        let is_same = |w: &mut Wanted| (w.target, w.now) == (done.target, done.now) && !is_asked(w);
        drop(changed.wait_while(wanted, is_same));
    }

    /// Does a portion of what there is to do. Returns whether there is more.
    fn work(&mut self, task: &Task) -> Result<bool, JournalError> {
        let projector = if let Some(projector) = &mut self.projector {
            projector
        } else {
            let opened = Projector::open(&mut self.settings, &self.shared)?;
            self.projector.insert(opened)
        };
        if let Some(rows) = projector.read_on(task.target, task.now, &self.shared, &self.tidier)? {
            self.added += rows;
            return Ok(true);
        }
        let database = &projector.database;
        let portion = usize::from(PORTION);
        let expired = within(database, |change| expire(change, task.now, PORTION))?;
        let is_due = task.now.mono >= self.prune_at || self.added >= PRUNE_AFTER;
        if expired >= portion || !is_due || task.stop.is_some() {
            return Ok(expired >= portion);
        }
        let (keep, wall) = (self.shared.wanted().retention, task.now.wall);
        if projector.prune(keep, wall)?.is_portion() {
            return Ok(true);
        }
        self.prune_at = task.now.mono.saturating_add(PRUNE_EVERY);
        self.added = 0;
        Ok(false)
    }

    /// Begins again after a failure. A database that turns out to be damaged is moved aside,
    /// and the next one is made from what the log still has: whether that is so.
    fn is_replaced(&mut self, error: &JournalError) -> bool {
        let was_open = self.projector.take().is_some();
        if !error.is_damage() || !was_open || set_aside(&self.settings.directory).is_err() {
            return false;
        }
        self.shared.status().replaced = Some(replaced(error));
        true
    }

    /// Says how it is, and answers those who wait for what was read, or for an error.
    fn tell(&self, task: &Task, error: Option<&JournalError>) {
        self.shared.status().trouble = error.map(ToString::to_string);
        let mut wanted = self.shared.wanted();
        if error.is_none() {
            (wanted.done, wanted.done_at) = (task.target, task.now.mono);
        }
        let is_due = |target: u64| error.is_some() || target <= task.target;
        for (_, answer) in wanted.flushes.extract_if(.., |(target, _)| is_due(*target)) {
            let answered = error.map_or(Ok(()), |error| Err(error.to_string()));
            // Whoever asked may have gone.
            let _ = answer.send(answered);
        }
    }
}
