//! The control socket's connections: each has one command and its answer, or watches.
//! Every buffer and number is bounded, and nothing here waits: a peer that is slow,
//! silent or hostile costs the daemon a place among few, for a few seconds.

use super::answers::{Answer, Failed, Watched, Watching};
use super::bind::{self, NoSocket, Place};
use super::protocol::{self, Command, MAX_LINE};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};

/// Connections at a time.
const CONNECTIONS: usize = 16;
/// Those among them that may watch.
const WATCHERS: usize = 4;
/// An answer is never longer than this, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// Lines that wait for a watcher are never longer than this together, in bytes.
const MAX_WAITING: usize = 1 << 16;
/// How long a peer may take to send its command, and to read its answer.
const PATIENCE: u32 = 5;
/// How long a watcher may read nothing while lines wait.
const WATCHERS_PATIENCE: u32 = 60;

/// A command and who sent it.
#[derive(Debug)]
pub struct Request {
    /// The connection to answer on.
    pub id: u64,
    /// The peer's user.
    pub uid: u32,
    /// What it asks for.
    pub command: Command,
}

/// The socket and its connections.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    place: Place,
    connections: Vec<Connection>,
    next: u64,
    /// Accepting failed; not again before the next tick.
    is_resting: bool,
    /// Peers turned away since the last tick, and the last one's user.
    refused: Option<u32>,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// Its command is still coming.
    Asking,
    /// Its command is with the daemon.
    Asked,
    /// What is left to write is all.
    Answered,
    Watching,
}

#[derive(Debug)]
struct Connection {
    id: u64,
    uid: u32,
    stream: UnixStream,
    stage: Stage,
    input: Vec<u8>,
    output: VecDeque<u8>,
    /// Events left out since the last line.
    lost: u64,
    /// Ticks since it last did what it must.
    idle: u32,
}

impl Socket {
    /// Makes the socket; see [`bind::bind`].
    pub fn bind(path: &Path, group: Option<&str>) -> Result<Self, NoSocket> {
        let (listener, place) = bind::bind(path, group)?;
        Ok(Self {
            listener,
            place,
            connections: Vec::new(),
            next: 0,
            is_resting: false,
            refused: None,
        })
    }

    /// The next command. Nothing is lost when this is given up and called again.
    pub async fn next(&mut self) -> Request {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Request> {
        self.accept(cx);
        loop {
            let mut asked = None;
            self.connections.retain_mut(|connection| {
                if asked.is_some() {
                    return true;
                }
                match connection.poll(cx) {
                    Poll::Pending => true,
                    Poll::Ready(Ok(())) => {
                        asked = Some((connection.id, connection.uid, connection.line()));
                        true
                    }
                    Poll::Ready(Err(_)) => false,
                }
            });
            let Some((id, uid, line)) = asked else {
                return Poll::Pending;
            };
            // Whoever came after it is served before its next one.
            self.connections.rotate_left(1);
            match protocol::parse(&line) {
                Ok(command) => return Poll::Ready(Request { id, uid, command }),
                Err(bad) => self.answer(id, &Answer::of::<()>(Err(Failed::new(bad)))),
            }
        }
    }

    fn accept(&mut self, cx: &mut Context<'_>) {
        for _ in 0..CONNECTIONS {
            if self.is_resting {
                return;
            }
            match self.listener.poll_accept(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok((stream, _))) => {
                    // Whose credentials cannot be told is nobody.
                    if let Ok(peer) = stream.peer_cred() {
                        self.admit(stream, peer.uid());
                    }
                }
                // Out of descriptors: it would be ready for ever.
                Poll::Ready(Err(_)) => self.is_resting = true,
            }
        }
        // More may wait; the others come first.
        cx.waker().wake_by_ref();
    }

    fn admit(&mut self, stream: UnixStream, uid: u32) {
        if !self.place.may_use(uid) {
            self.refused = Some(uid);
            turn_away(&stream, "this user may not use the control socket");
            return;
        }
        if self.connections.len() == CONNECTIONS {
            // Others cannot keep root out.
            let other = self.connections.iter().position(|c| c.uid != 0);
            match other {
                Some(other) if uid == 0 => drop(self.connections.remove(other)),
                _ => return turn_away(&stream, "too many connections: try again"),
            }
        }
        self.next += 1;
        self.connections.push(Connection {
            id: self.next,
            uid,
            stream,
            stage: Stage::Asking,
            input: Vec::new(),
            output: VecDeque::new(),
            lost: 0,
            idle: 0,
        });
    }

    fn connection(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|c| c.id == id)
    }

    /// Answers a command; a peer that is gone by now is none.
    pub fn answer(&mut self, id: u64, answer: &Answer) {
        let Some(connection) = self.connection(id) else {
            return;
        };
        let mut text = line(answer);
        if text.len() > MAX_ANSWER {
            let long = Failed::new("the answer is too long");
            text = line(&Answer::of::<()>(Err(long)));
        }
        connection.output.extend(text.as_bytes());
        connection.stage = Stage::Answered;
        connection.idle = 0;
    }

    /// Lets a peer watch from now on, beginning with these.
    pub fn watch(&mut self, id: u64, first: impl IntoIterator<Item = Watched>) {
        if self.watchers() == WATCHERS && !self.makes_room(id) {
            let many = Failed::new("too many are watching");
            return self.answer(id, &Answer::of::<()>(Err(many)));
        }
        self.answer(id, &Answer::of(Ok(Watching {})));
        if let Some(connection) = self.connection(id) {
            connection.stage = Stage::Watching;
            for one in first {
                connection.push(&line(&one));
            }
        }
    }

    /// Lets another go for root, whom others cannot keep out here either.
    fn makes_room(&mut self, id: u64) -> bool {
        let is_roots = self.connection(id).is_some_and(|c| c.uid == 0);
        let is_others = |c: &Connection| c.stage == Stage::Watching && c.uid != 0;
        match self.connections.iter().position(is_others) {
            Some(other) if is_roots => {
                self.connections.remove(other);
                true
            }
            _ => false,
        }
    }

    /// How many watch.
    #[must_use]
    pub fn watchers(&self) -> usize {
        let watching = |c: &&Connection| c.stage == Stage::Watching;
        self.connections.iter().filter(watching).count()
    }

    /// Tells those who watch.
    pub fn publish(&mut self, event: &Watched) {
        let text = line(event);
        for connection in &mut self.connections {
            if connection.stage == Stage::Watching {
                connection.push(&text);
            }
        }
    }

    /// To be called once a second: lets go of whoever does nothing. Returns the user of a
    /// peer that was turned away since the last call.
    pub fn tick(&mut self) -> Option<u32> {
        self.is_resting = false;
        self.connections.retain_mut(Connection::tick);
        self.refused.take()
    }

    /// Waits until every answer is written, a second at most.
    pub async fn finish(&mut self) {
        let written = poll_fn(|cx| {
            self.connections.retain_mut(|c| c.flush(cx).is_pending());
            if self.connections.is_empty() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        // A peer that does not read by then does without.
        let _ = tokio::time::timeout(Duration::from_secs(1), written).await;
    }
}

fn line(value: &impl serde::Serialize) -> String {
    // Maps with text keys, numbers and texts: there is nothing that could fail.
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    text
}

fn turn_away(stream: &UnixStream, why: &str) {
    let answer = Answer::of::<()>(Err(Failed::new(why)));
    // A new connection has room for it; a peer that is gone needs none.
    let _ = stream.try_write(line(&answer).as_bytes());
}

impl Connection {
    /// Ready when a command is there, or when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.flush(cx) {
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) if self.stage == Stage::Answered => {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            _ => {}
        }
        match self.stage {
            Stage::Asking | Stage::Watching => self.read(cx),
            Stage::Asked | Stage::Answered => Poll::Pending,
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            let read = buffer.filled();
            // The end of the peer's side; and whoever watches has nothing more to say.
            if read.is_empty() || self.stage == Stage::Watching {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            self.input.extend(read);
            if read.contains(&b'\n') || self.input.len() > MAX_LINE {
                self.stage = Stage::Asked;
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// The command's line without its end; one that is too long is cut, and still too
    /// long.
    fn line(&mut self) -> Vec<u8> {
        let mut line = std::mem::take(&mut self.input);
        if let Some(end) = line.iter().position(|&byte| byte == b'\n') {
            line.truncate(end);
        }
        line
    }

    /// Ready when nothing is left to write.
    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let stream = Pin::new(&mut self.stream);
            let written = ready!(stream.poll_write(cx, self.output.as_slices().0))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.drain(..written);
            self.idle = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Adds a line for a watcher, or counts it where there is no room.
    fn push(&mut self, text: &str) {
        let note = if self.lost > 0 {
            line(&Watched::Lost { lost: self.lost })
        } else {
            String::new()
        };
        if self.output.len() + note.len() + text.len() > MAX_WAITING {
            self.lost = self.lost.saturating_add(1);
            return;
        }
        self.output.extend(note.as_bytes());
        self.output.extend(text.as_bytes());
        self.lost = 0;
    }

    /// A second has passed; returns whether the connection may stay.
    fn tick(&mut self) -> bool {
        let patience = match self.stage {
            Stage::Watching if self.output.is_empty() => return true,
            Stage::Watching => WATCHERS_PATIENCE,
            Stage::Asking | Stage::Asked | Stage::Answered => PATIENCE,
        };
        self.idle += 1;
        self.idle <= patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: u32 = 65534;

    /// A socket that others may use, and what a test does with it.
    fn with(test: impl FnOnce(&mut Socket)) {
        let dir = tempfile::tempdir().unwrap();
        let group = nix::unistd::Group::from_gid(nix::unistd::getegid());
        let group = group.unwrap().unwrap().name;
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().unwrap();
        runtime.block_on(async {
            let path = dir.path().join("run/control");
            test(&mut Socket::bind(&path, Some(&group)).unwrap());
        });
    }

    /// Lets a peer in, and gives its end.
    fn peer(socket: &mut Socket, uid: u32) -> std::os::unix::net::UnixStream {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        socket.admit(UnixStream::from_std(ours).unwrap(), uid);
        theirs
    }

    fn uids(socket: &Socket) -> Vec<u32> {
        socket.connections.iter().map(|c| c.uid).collect()
    }

    #[test]
    fn others_cannot_keep_root_out() {
        with(|socket| {
            let peers: Vec<_> = (0..CONNECTIONS).map(|_| peer(socket, OTHER)).collect();
            let _late = peer(socket, OTHER);
            assert_eq!(uids(socket), [OTHER; CONNECTIONS]);
            let _root = peer(socket, 0);
            assert_eq!(uids(socket).len(), CONNECTIONS);
            assert_eq!(uids(socket).last(), Some(&0));
            drop(peers);
        });
    }

    #[test]
    fn who_asks_nothing_is_let_go_and_who_watches_may_stay() {
        with(|socket| {
            let _idle = peer(socket, 0);
            let _watcher = peer(socket, 0);
            socket.watch(2, []);
            socket.connections[1].output.clear();
            for _ in 0..100 {
                socket.tick();
            }
            let left: Vec<u64> = socket.connections.iter().map(|c| c.id).collect();
            assert_eq!(left, [2]);
        });
    }

    #[test]
    fn what_waits_for_a_watcher_is_bounded_and_the_rest_counted() {
        with(|socket| {
            let _watcher = peer(socket, 0);
            socket.watch(1, []);
            for _ in 0..100_000 {
                socket.publish(&Watched::Lost { lost: 7 });
            }
            let watcher = &mut socket.connections[0];
            assert!(watcher.output.len() <= MAX_WAITING && watcher.lost > 50_000);
            let lost = watcher.lost;
            watcher.output.clear();
            watcher.push("next\n");
            let text = String::from_utf8(watcher.output.drain(..).collect()).unwrap();
            assert_eq!(text, format!("{{\"lost\":{lost}}}\nnext\n"));
            // A watcher that reads nothing at all is let go in the end.
            watcher.push("more\n");
            for _ in 0..=WATCHERS_PATIENCE {
                socket.tick();
            }
            assert!(socket.connections.is_empty());
        });
    }

    #[test]
    fn there_are_few_watchers() {
        with(|socket| {
            let _peers: Vec<_> = (0..=WATCHERS).map(|_| peer(socket, 0)).collect();
            for id in 1..=5 {
                socket.watch(id, []);
            }
            assert_eq!(socket.watchers(), WATCHERS);
        });
    }

    #[test]
    fn others_who_watch_cannot_keep_root_from_it() {
        with(|socket| {
            let _others: Vec<_> = (0..=WATCHERS).map(|_| peer(socket, 1000)).collect();
            let _root = peer(socket, 0);
            (1..=5).for_each(|id| socket.watch(id, []));
            let watches = |socket: &Socket, id| {
                let mut watching = socket.connections.iter();
                watching.any(|c| c.id == id && c.stage == Stage::Watching)
            };
            // One of their own who comes too late is turned away.
            assert!(watches(socket, 4) && !watches(socket, 5));
            socket.watch(6, []);
            assert!(watches(socket, 6));
            assert_eq!(socket.watchers(), WATCHERS);
        });
    }
}
