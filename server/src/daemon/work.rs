//! What takes time is done by a worker thread, one thing after the other: reading
//! configuration, dumps of connections, questions to the journal. What follows from it is
//! done on the loop.

use super::Daemon;
use std::sync::mpsc::{Sender, channel};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What the loop does when a piece of work is done.
pub(super) type Then = Box<dyn FnOnce(&mut Daemon) + Send>;
type Job = Box<dyn FnOnce() -> Then + Send>;

/// The worker.
#[derive(Debug)]
pub(super) struct Worker {
    /// Few wait: each comes from the control socket, whose peers are few, or from the daemon
    /// itself. None is refused, since one may end connections.
    jobs: Sender<Job>,
    done: UnboundedReceiver<Then>,
}

impl Worker {
    /// Starts it.
    pub fn start() -> Self {
        let (jobs, queue) = channel::<Job>();
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

    /// Has `job` done, and then, on the loop, what it returns.
    pub fn run<T>(&self, job: impl FnOnce() -> T + Send + 'static)
    where
        T: FnOnce(&mut Daemon) + Send + 'static,
    {
        let job: Job = Box::new(move || Box::new(job()));
        // Without the thread the daemon ends: see `next`.
        let _ = self.jobs.send(job);
    }

    /// What the loop is to do next; nothing is lost when this is given up and called again.
    /// `None` where the thread has ended: then the daemon is to end too, and to be started
    /// again.
    pub async fn next(&mut self) -> Option<Then> {
        self.done.recv().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loop_learns_that_the_thread_has_ended() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mut worker = Worker::start();
        worker.run(|| |_: &mut Daemon| ());
        worker.run(|| -> fn(&mut Daemon) { panic!("a job that fails") });
        assert!(runtime.block_on(worker.next()).is_some());
        assert!(runtime.block_on(worker.next()).is_none());
        // What comes later is not waited for.
        worker.run(|| |_: &mut Daemon| ());
        assert!(runtime.block_on(worker.next()).is_none());
    }
}
