//! The journal's thread: when it works, and what it does after a failure.

use super::super::maintenance::CleanupHandle;
use super::database::{JournalError, replaced, set_aside};
use super::projector::Projector;
use super::{JournalSettings, Shared, Stop, Wanted};
use crate::engine::Now;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After a failure the thread tries again in this time.
const RETRY: Duration = Duration::from_secs(5);
/// A clean stop waits at most this long for the journal: the next start reads the rest.
const LAST: Duration = Duration::from_secs(5);
/// The journal is pruned this often,
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// and whenever so many records were read.
const PRUNE_AFTER: usize = 10_000;

/// The thread's own.
pub(super) struct Worker {
    settings: JournalSettings,
    shared: Arc<Shared>,
    cleanup: CleanupHandle,
    /// None before the database was opened, and after a failure.
    projector: Option<Projector>,
    /// When the journal is to be pruned, since boot.
    prune_at: Duration,
    /// Records that were read since it was pruned.
    added: usize,
}

/// What the thread was asked for, at a moment.
struct Task {
    target: u64,
    now: Now,
    stop: Option<Stop>,
}

impl Worker {
    pub fn new(settings: JournalSettings, shared: Arc<Shared>, cleanup: CleanupHandle) -> Self {
        let now = settings.now.mono;
        Self {
            settings,
            shared,
            cleanup,
            projector: None,
            prune_at: now,
            added: 0,
        }
    }

    pub fn run(mut self) {
        let mut task = self.task();
        let mut last = None;
        while task.stop != Some(Stop::AtOnce) {
            if task.stop.is_some() {
                let last = last.get_or_insert_with(|| Instant::now() + LAST);
                if Instant::now() > *last {
                    return;
                }
            }
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

    /// Waits until the thread is asked for something else; after a failure for [`RETRY`] at most.
    fn wait(&self, done: &Task, failed: bool) {
        let wanted = self.shared.wanted();
        let is_asked = |w: &Wanted| w.stop.is_some() || !w.flushes.is_empty();
        let changed = &self.shared.changed;
        if failed {
            // Published records wait: else a full disk would be tried for each of them.
            drop(changed.wait_timeout_while(wanted, RETRY, |w| !is_asked(w)));
            return;
        }
        let is_same = |w: &mut Wanted| (w.target, w.now) == (done.target, done.now) && !is_asked(w);
        drop(changed.wait_while(wanted, is_same));
    }

    /// Does a portion of the work. Returns whether there is more.
    fn work(&mut self, task: &Task) -> Result<bool, JournalError> {
        let projector = if let Some(projector) = &mut self.projector {
            projector
        } else {
            let opened = Projector::open(&mut self.settings, &self.shared)?;
            self.projector.insert(opened)
        };
        if let Some(rows) = projector.read_on(task.target, task.now, &self.shared, &self.cleanup)? {
            self.added += rows;
            return Ok(true);
        }
        let is_due = task.now.mono >= self.prune_at || self.added >= PRUNE_AFTER;
        if !is_due || task.stop.is_some() {
            return Ok(false);
        }
        let (keep, wall) = (self.shared.wanted().retention, task.now.wall);
        if projector.prune(keep, wall)?.is_portion() {
            return Ok(true);
        }
        self.prune_at = task.now.mono.saturating_add(PRUNE_EVERY);
        self.added = 0;
        Ok(false)
    }

    /// Closes the database after a failure. A database that turns out to be damaged is moved
    /// aside, and true is returned: the next one is made from the log.
    fn is_replaced(&mut self, error: &JournalError) -> bool {
        let was_open = self.projector.take().is_some();
        if !error.is_damage() || !was_open || set_aside(&self.settings.directory).is_err() {
            return false;
        }
        self.shared.status().replaced = Some(replaced(error));
        true
    }

    /// Publishes the status, and answers the flushes that are done, or all of them with an error.
    fn tell(&self, task: &Task, error: Option<&JournalError>) {
        self.shared.status().trouble = error.map(ToString::to_string);
        let mut wanted = self.shared.wanted();
        if error.is_none() {
            (wanted.done, wanted.done_at) = (task.target, task.now.mono);
        }
        let is_due = |target: u64| error.is_some() || target <= task.target;
        for (_, answer) in wanted.flushes.extract_if(.., |(target, _)| is_due(*target)) {
            let answered = error.map_or(Ok(()), |error| Err(error.to_string()));
            // The receiver may be gone.
            let _ = answer.send(answered);
        }
    }
}
