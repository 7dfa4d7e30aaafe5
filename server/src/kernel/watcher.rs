//! A thread of its own that reads the kernel's notifications, and hands the latest news to
//! the daemon's loop.

use super::netlink::Netlink;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::sync::watch::Sender;

/// How long after an error a new socket is tried.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What such a thread tells. The thread ends when this is dropped.
#[derive(Debug)]
pub struct Watcher<T> {
    news: Arc<Sender<Option<T>>>,
    /// The other end of what the thread waits for: it is readable when this is dropped.
    _stop: UnixStream,
}

/// What such a thread does.
pub trait Watch<T>: Send + 'static {
    /// The thread's name.
    const NAME: &'static str;

    /// Opens its socket, at first and after each error.
    fn open(&self) -> io::Result<Netlink>;

    /// Reads until [`WatchThread::wait`] says that the thread is to end.
    fn read(&mut self, socket: Netlink, thread: &WatchThread<T>) -> io::Result<()>;

    /// Tells that it cannot read; it is tried again after [`RETRY_AFTER`].
    fn fail(&mut self, error: io::Error, thread: &WatchThread<T>);
}

/// The thread's side.
#[derive(Debug)]
pub struct WatchThread<T> {
    news: Arc<Sender<Option<T>>>,
    stop: UnixStream,
}

/// Why a wait has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadEvent {
    /// The thread is to end.
    Stop,
    /// There is something to read.
    Readable,
    /// The time is over.
    TimedOut,
}

impl<T: Send + Sync + 'static> Watcher<T> {
    /// Starts the thread, in this thread's network namespace.
    pub(super) fn spawn<W: Watch<T>>(mut watch: W) -> io::Result<Self> {
        let mut socket = Ok(watch.open()?);
        let (stop, there) = UnixStream::pair()?;
        let (watcher, thread) = Self::new(stop, there);
        let run = move || {
            loop {
                match socket.and_then(|socket| watch.read(socket, &thread)) {
                    Ok(()) => return,
                    Err(error) => watch.fail(error, &thread),
                }
                if !matches!(
                    thread.wait(None, Some(RETRY_AFTER)),
                    Ok(ThreadEvent::TimedOut)
                ) {
                    return;
                }
                socket = watch.open();
            }
        };
        thread::Builder::new().name(W::NAME.into()).spawn(run)?;
        Ok(watcher)
    }

    fn new(stop: UnixStream, there: UnixStream) -> (Self, WatchThread<T>) {
        let news = Arc::new(Sender::new(None));
        let thread = WatchThread {
            news: Arc::clone(&news),
            stop: there,
        };
        (Self { news, _stop: stop }, thread)
    }

    /// Waits for news. A wait that is dropped loses nothing. There may be one waiter at a
    /// time.
    pub async fn wait(&self) -> T {
        let mut updates = self.news.subscribe();
        loop {
            if let Some(news) = self.take() {
                return news;
            }
            // The sender is here: it cannot be gone.
            let _ = updates.changed().await;
        }
    }

    /// What [`Watcher::wait`] would give at once.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        let mut taken = None;
        self.news.send_if_modified(|news| {
            taken = news.take();
            false
        });
        taken
    }
}

impl<T> WatchThread<T> {
    /// Tells what `merge` makes of the news that were not taken yet: there is one slot, so
    /// that nothing grows where the loop does not take them.
    pub fn tell(&self, merge: impl FnOnce(Option<T>) -> T) {
        self.news
            .send_modify(|news| *news = Some(merge(news.take())));
    }

    /// Waits until there is something to read, at most for this long, or until the thread is
    /// to end.
    pub fn wait(
        &self,
        socket: Option<&Netlink>,
        time: Option<Duration>,
    ) -> io::Result<ThreadEvent> {
        let milliseconds = time.map(|time| PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX));
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let socket: Option<BorrowedFd> = socket.map(AsFd::as_fd);
        let fds = std::iter::once(self.stop.as_fd()).chain(socket);
        let mut fds: Vec<PollFd> = fds.map(readable).collect();
        match poll(&mut fds, milliseconds.unwrap_or(PollTimeout::NONE)) {
            Ok(0) | Err(Errno::EINTR) => Ok(ThreadEvent::TimedOut),
            Ok(_) if fds[0].any().unwrap_or(true) => Ok(ThreadEvent::Stop),
            Ok(_) => Ok(ThreadEvent::Readable),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
#[path = "tests/watcher.rs"]
mod tests;
