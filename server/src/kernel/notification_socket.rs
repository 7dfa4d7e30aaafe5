//! A socket for the kernel's notifications, and the means to end the thread that reads it.

use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{SockFilter, SockRef};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Larger than any notification: the kernel bounds a batch of them at a page or two.
const BUFFER: usize = 64 * 1024;

/// A socket that is a member of netlink groups.
#[derive(Debug)]
pub struct NotificationSocket {
    socket: Socket,
    buffer: Vec<u8>,
}

impl NotificationSocket {
    /// Opens a socket of this netlink protocol, in these groups. The kernel does not queue
    /// here what the socket with the netlink port `except` causes.
    pub fn open(protocol: isize, groups: &[u32], except: Option<u32>) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        if let Some(port) = except {
            SockRef::from(&socket).attach_filter(&caused_by_others(port))?;
        }
        for group in groups {
            socket.add_membership(*group)?;
        }
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// Waits until there is something to read, at most for `time`; without a limit where
    /// that is `None`.
    pub fn wait(&self, stop: &StopSignal, time: Option<Duration>) -> io::Result<ThreadEvent> {
        stop.wait(Some(&self.socket), time)
    }

    /// Reads all that is queued. Returns whether notifications were lost because they came
    /// faster than they were read.
    ///
    /// The kernel says once that the queue is full, and drops what comes until it is empty
    /// again. So the caller looks for what it has missed after this has returned, not before.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<bool> {
        let mut is_lost = false;
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => each(&self.buffer),
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => is_lost = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(is_lost),
                Err(error) => return Err(error),
            }
        }
    }
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

/// The end of a pair of sockets that a thread watches: it is readable when the thread is to
/// end.
#[derive(Debug)]
pub struct StopSignal(UnixStream);

/// Ends a thread when it is dropped.
#[derive(Debug)]
pub struct StopOnDrop {
    _other_end: UnixStream,
}

impl StopSignal {
    /// The signal, and the value whose drop gives it.
    pub fn new() -> io::Result<(StopOnDrop, Self)> {
        let (there, here) = UnixStream::pair()?;
        Ok((StopOnDrop { _other_end: there }, Self(here)))
    }

    /// Waits for this long, or until the thread is to end.
    pub fn sleep(&self, time: Duration) -> io::Result<ThreadEvent> {
        self.wait(None, Some(time))
    }

    fn wait(&self, socket: Option<&Socket>, time: Option<Duration>) -> io::Result<ThreadEvent> {
        let milliseconds = time.map(|time| PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX));
        let timeout = milliseconds.unwrap_or(PollTimeout::NONE);
        let fds = [Some(self.0.as_fd()), socket.map(AsFd::as_fd)];
        let fds = fds.into_iter().flatten();
        let mut fds: Vec<PollFd> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut fds, timeout) {
            Ok(0) | Err(Errno::EINTR) => Ok(ThreadEvent::TimedOut),
            Ok(_) if fds[0].any().unwrap_or(true) => Ok(ThreadEvent::Stop),
            Ok(_) => Ok(ThreadEvent::Readable),
            Err(error) => Err(error.into()),
        }
    }
}

/// Passes what another socket than that with this port has caused: the port is the fourth
/// word of the first message's header, and the messages of a datagram have one cause.
fn caused_by_others(port: u32) -> [SockFilter; 4] {
    // linux/bpf_common.h. A loaded word is read in network order, a port is written in the
    // machine's.
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let port = u32::from_be_bytes(port.to_ne_bytes());
    [
        SockFilter::new(LOAD_WORD, 0, 0, 12),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, port),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}
