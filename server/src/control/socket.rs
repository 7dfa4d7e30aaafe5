//! The control socket's connections: each has one command and its answer, or watches.
//! Every buffer and number is bounded, and no peer holds the daemon's loop up: each is a
//! task of its own, with a limit on its time.

use super::answers::{Answer, ErrorBody, Watching};
use super::bind::{self, NoSocket, SocketFile};
use super::protocol::{self, Command, MAX_LINE};
use super::watch::WatchMessage;
use serde::Serialize;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

/// Connections of other users than root at a time, and those among them that may watch.
const OTHERS: (usize, usize) = (12, 3);
/// Connections of root's at a time, and those among them that may watch: others cannot keep
/// root out.
const ROOTS: (usize, usize) = (12, 3);
/// An answer is never longer than this, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// Events that wait for a watcher; of more, the oldest are dropped and counted.
const BACKLOG: usize = 256;
/// How long a peer may take to send its command, and to read its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a watcher may read nothing while lines wait.
const WATCHERS_PATIENCE: Duration = Duration::from_secs(60);
/// Commands that wait for the loop.
const QUEUE: usize = 32;

/// A command, who sent it, and where its answer goes.
#[derive(Debug)]
pub struct Request {
    /// The peer's user.
    pub uid: u32,
    /// What it asks for.
    pub command: Command,
    /// The way back.
    pub reply: Reply,
}

/// The way back to a peer; one that is gone by now is none.
#[derive(Debug)]
pub struct Reply(oneshot::Sender<Outcome>);

#[derive(Debug)]
enum Outcome {
    Answer(String),
    /// Lines to begin with, and what comes then.
    Watch(Vec<String>, broadcast::Receiver<Arc<str>>),
}

impl Reply {
    /// Answers the command.
    pub fn send<T: Serialize>(self, result: Result<T, ErrorBody>) {
        // A peer that is gone needs no answer.
        let _ = self.0.send(Outcome::Answer(answer(result)));
    }
}

/// The limits of one kind of peer.
#[derive(Debug, Clone)]
struct Limits {
    connections: Arc<Semaphore>,
    watchers: Arc<Semaphore>,
}

impl Limits {
    fn new((connections, watchers): (usize, usize)) -> Self {
        Self {
            connections: Arc::new(Semaphore::new(connections)),
            watchers: Arc::new(Semaphore::new(watchers)),
        }
    }
}

/// The socket.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    file: SocketFile,
    roots: Limits,
    others: Limits,
    to_loop: mpsc::Sender<Request>,
    requests: mpsc::Receiver<Request>,
    events: broadcast::Sender<Arc<str>>,
    /// The user of a peer that was rejected since it was last asked for.
    rejected: Option<u32>,
}

impl Socket {
    /// Makes the socket; see [`bind::bind`].
    pub fn bind(path: &Path, group: Option<&str>) -> Result<Self, NoSocket> {
        let (listener, file) = bind::bind(path, group)?;
        let (to_loop, requests) = mpsc::channel(QUEUE);
        Ok(Self {
            listener,
            file,
            roots: Limits::new(ROOTS),
            others: Limits::new(OTHERS),
            to_loop,
            requests,
            events: broadcast::channel(BACKLOG).0,
            rejected: None,
        })
    }

    /// The next command. Nothing is lost when this is given up and called again.
    pub async fn next(&mut self) -> Request {
        loop {
            tokio::select! {
                // The sender is held here: the queue has no end.
                Some(request) = self.requests.recv() => return request,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => self.accept(stream),
                    // Out of descriptors: it would be ready for ever.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
            }
        }
    }

    fn accept(&mut self, stream: UnixStream) {
        // A peer without credentials may do nothing.
        let Ok(peer) = stream.peer_cred() else { return };
        self.admit(stream, peer.uid());
    }

    fn admit(&mut self, stream: UnixStream, uid: u32) {
        if !self.file.may_use(uid) {
            self.rejected = Some(uid);
            return reject(&stream, "this user may not use the control socket");
        }
        let limits = if uid == 0 { &self.roots } else { &self.others };
        let Ok(permit) = Arc::clone(&limits.connections).try_acquire_owned() else {
            return reject(&stream, "too many connections: try again");
        };
        let peer = Peer {
            uid,
            stream: BufReader::new(stream),
            watchers: Arc::clone(&limits.watchers),
            _permit: permit,
        };
        tokio::spawn(peer.serve(self.to_loop.clone()));
    }

    /// Lets a peer watch from now on, beginning with these.
    pub fn watch(&self, reply: Reply, first: impl IntoIterator<Item = WatchMessage>) {
        let first = first.into_iter().map(|one| line(&one)).collect();
        // A peer that is gone needs nothing.
        let _ = reply.0.send(Outcome::Watch(first, self.events.subscribe()));
    }

    /// How many watch.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.events.receiver_count()
    }

    /// Tells those who watch.
    pub fn publish(&self, event: &WatchMessage) {
        // Without a watcher there is no receiver.
        let _ = self.events.send(line(event).into());
    }

    /// The user of a peer that was rejected since the last call.
    pub fn take_rejected(&mut self) -> Option<u32> {
        self.rejected.take()
    }

    /// Waits until every answer is written, a second at most.
    pub async fn finish(&mut self) {
        // Who watches hears no more.
        self.events = broadcast::channel(1).0;
        let (connections, _) = ROOTS;
        let all = u32::try_from(connections).unwrap_or(u32::MAX);
        let idle = self.roots.connections.acquire_many(all);
        // A peer that does not read by then does without.
        let _ = timeout(Duration::from_secs(1), idle).await;
    }
}

/// One connection.
struct Peer {
    uid: u32,
    stream: BufReader<UnixStream>,
    watchers: Arc<Semaphore>,
    _permit: OwnedSemaphorePermit,
}

impl Peer {
    async fn serve(mut self, to_loop: mpsc::Sender<Request>) {
        let Ok(Ok(bytes)) = timeout(PATIENCE, self.read()).await else {
            return;
        };
        let command = match protocol::parse(&bytes) {
            Ok(command) => command,
            Err(bad) => return self.answer(answer::<()>(Err(ErrorBody::new(bad)))).await,
        };
        let is_watch = command == Command::Watch;
        let watching = is_watch.then(|| Arc::clone(&self.watchers).try_acquire_owned());
        if matches!(watching, Some(Err(_))) {
            let many = ErrorBody::new("too many are watching");
            return self.answer(answer::<()>(Err(many))).await;
        }
        let (reply, answered) = oneshot::channel();
        let request = Request {
            uid: self.uid,
            command,
            reply: Reply(reply),
        };
        if to_loop.send(request).await.is_err() {
            return;
        }
        match answered.await {
            Ok(Outcome::Answer(text)) => self.answer(text).await,
            Ok(Outcome::Watch(first, events)) => {
                // What a watcher does not read in time ends the connection.
                let _ = self.watch(first, events).await;
            }
            // The daemon ends.
            Err(_) => {}
        }
    }

    /// The command's line without its end; of one that is too long, as much as shows that.
    async fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        let most = MAX_LINE as u64 + 2;
        let mut limited = (&mut self.stream).take(most);
        limited.read_until(b'\n', &mut line).await?;
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() <= MAX_LINE {
            // The peer's side has ended within a line.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line)
    }

    async fn answer(&mut self, text: String) {
        // A peer that does not read it does without.
        let _ = timeout(PATIENCE, self.stream.get_mut().write_all(text.as_bytes())).await;
    }

    async fn watch(
        &mut self,
        first: Vec<String>,
        mut events: broadcast::Receiver<Arc<str>>,
    ) -> io::Result<()> {
        let begin = answer(Ok::<_, ErrorBody>(Watching {}));
        for text in std::iter::once(begin).chain(first) {
            self.put(&text).await?;
        }
        let mut byte = [0];
        loop {
            let text = tokio::select! {
                event = events.recv() => match event {
                    Ok(text) => text,
                    Err(RecvError::Lagged(dropped)) => line(&WatchMessage::Dropped { dropped }).into(),
                    Err(RecvError::Closed) => return Ok(()),
                },
                // A watcher has nothing more to say; its side may have ended.
                _ = self.stream.read(&mut byte) => return Ok(()),
            };
            self.put(&text).await?;
        }
    }

    async fn put(&mut self, text: &str) -> io::Result<()> {
        let written = self.stream.get_mut().write_all(text.as_bytes());
        timeout(WATCHERS_PATIENCE, written).await?
    }
}

fn line(value: &impl Serialize) -> String {
    // Maps with text keys, numbers and texts: there is nothing that could fail.
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    text
}

fn answer<T: Serialize>(result: Result<T, ErrorBody>) -> String {
    let text = line(&Answer::of(result));
    if text.len() <= MAX_ANSWER {
        return text;
    }
    let long = ErrorBody::new("the answer is too long");
    line(&Answer::of::<()>(Err(long)))
}

fn reject(stream: &UnixStream, why: &str) {
    let text = answer::<()>(Err(ErrorBody::new(why)));
    // A new connection has room for it; a peer that is gone needs none.
    let _ = stream.try_write(text.as_bytes());
}

#[cfg(test)]
mod tests;
