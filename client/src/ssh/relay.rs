//! Standard input and output to the connection and back, each direction with its own end.
//!
//! Plain reads and writes of 64 KiB, not `std::io::copy`: on Linux that may splice, and
//! a splice from a quiet socket into a pipe holds the pipe's lock, so that whoever reads
//! what is already in the pipe (ssh) would hang until the server says more.

use crate::error::Error;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

const CHUNK: usize = 64 * 1024;

/// Why one direction ended.
enum End {
    /// Its source ended.
    Source,
    /// Its source failed.
    Read(io::Error),
    /// Where it goes takes no more.
    Write(io::Error),
}

fn pump(from: &mut impl Read, to: &mut impl Write) -> End {
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = match from.read(&mut chunk) {
            Ok(0) => return End::Source,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return End::Read(e),
        };
        if let Err(e) = to.write_all(&chunk[..n]).and_then(|()| to.flush()) {
            return End::Write(e);
        }
    }
}

/// Relays until both directions have ended, or the connection is dead.
///
/// The end of `input` is passed on to the remote, and what it still sends is relayed to
/// its end. The end of the remote's side is passed on by `close`, which says whether the
/// output could be closed alone; if it could, `input` is relayed until it ends or the
/// remote takes no more. When the reader of `output` is gone the relay ends too.
pub fn relay<W: Write>(
    mut input: impl Read + Send + 'static,
    mut output: W,
    close: impl FnOnce(W) -> io::Result<bool>,
    remote: &TcpStream,
) -> Result<(), Error> {
    let failed = |what| move |why| Error::Relay { what, why };
    let lost = "the connection was lost";
    let to_remote = remote.try_clone().map_err(failed(lost))?;
    // Left to itself when this function returns first: it may wait for input for ever.
    let upward = thread::spawn(move || {
        let end = pump(&mut input, &mut &to_remote);
        // Fails only where the connection is gone, which the other direction notices.
        let _ = to_remote.shutdown(Shutdown::Write);
        end
    });
    match pump(&mut &*remote, &mut output) {
        End::Source => {}
        End::Read(why) => return Err(failed(lost)(why)),
        End::Write(why) if why.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        End::Write(why) => return Err(failed("cannot write to standard output")(why)),
    }
    if !close(output).map_err(failed("cannot close standard output"))? {
        return Ok(());
    }
    match upward.join() {
        Ok(End::Source | End::Write(_)) => Ok(()),
        Ok(End::Read(why)) => Err(failed("cannot read standard input")(why)),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Relays this process's standard input and output; `read` is what the remote has said already.
pub fn relay_standard(remote: &TcpStream, read: &[u8]) -> Result<(), Error> {
    // What ssh writes is small and waits for answers.
    let ready = remote
        .set_nonblocking(false)
        .and_then(|()| remote.set_nodelay(true));
    let failed = |why| Error::Relay {
        what: "cannot set up the connection",
        why,
    };
    ready.map_err(failed)?;
    let mut output = output().map_err(failed)?;
    match output.write_all(read).and_then(|()| output.flush()) {
        Ok(()) => relay(io::stdin(), output, close, remote),
        Err(why) if why.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(why) => Err(Error::Relay {
            what: "cannot write to standard output",
            why,
        }),
    }
}

/// A descriptor of its own: `io::stdout()` would buffer what comes after the last newline.
#[cfg(unix)]
fn output() -> io::Result<std::fs::File> {
    use std::os::fd::AsFd;
    io::stdout().as_fd().try_clone_to_owned().map(Into::into)
}

/// The reader sees the end once no descriptor is left.
#[cfg(unix)]
fn close(output: std::fs::File) -> io::Result<bool> {
    drop(output);
    let null = std::fs::File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(null)?;
    Ok(true)
}

#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps)] // The same signature as above.
fn output() -> io::Result<io::Stdout> {
    Ok(io::stdout())
}

/// There is no closing it without ending the process.
#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps)] // The same signature as above.
fn close(_: io::Stdout) -> io::Result<bool> {
    Ok(false)
}
