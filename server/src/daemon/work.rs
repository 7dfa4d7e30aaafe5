//! What takes time is done by a worker thread, one thing after the other: reading
//! configuration, dumps of connections, questions to the journal. What follows from it is
//! done on the loop.

use super::Daemon;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What the loop does when a piece of work is done.
pub(super) type Then = Box<dyn FnOnce(&mut Daemon) + Send>;
type Job = Box<dyn FnOnce() -> Then + Send>;

/// Jobs that wait: each comes from the control socket, whose peers are few, or from the
/// daemon itself.
const QUEUE: usize = 64;

/// The worker.
#[derive(Debug)]
pub(super) struct Worker {
    jobs: SyncSender<Job>,
    done: UnboundedReceiver<Then>,
}

impl Worker {
    /// Starts it.
    pub fn start() -> Self {
        let (jobs, queue) = sync_channel::<Job>(QUEUE);
        let (tell, done): (UnboundedSender<Then>, _) = unbounded_channel();
        std::thread::spawn(move || {
            for job in queue {
                if tell.send(job()).is_err() {
                    return;
                }
            }
        });
        Self { jobs, done }
    }

    /// Has `job` done, and then, on the loop, what it returns. False where too much waits:
    /// then it is not done.
    #[must_use]
    pub fn run<T>(&self, job: impl FnOnce() -> T + Send + 'static) -> bool
    where
        T: FnOnce(&mut Daemon) + Send + 'static,
    {
        let job: Job = Box::new(move || Box::new(job()));
        !matches!(
            self.jobs.try_send(job),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_))
        )
    }

    /// What the loop is to do next. Nothing is lost when this is given up and called again.
    pub async fn next(&mut self) -> Then {
        match self.done.recv().await {
            Some(then) => then,
            // The thread lives as long as the daemon.
            None => std::future::pending().await,
        }
    }
}
