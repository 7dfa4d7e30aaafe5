//! Asks the daemon over its control socket. Blocking, with an end to every wait.

use super::output::say;
use super::{Exit, Failure, look};
use crate::config::{self, Paths};
use crate::control;
use crate::control::answers::{Answer, ErrorBody, ErrorCode};
use crate::control::protocol::Command;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long an answer may take: a reload waits for nft.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one that starts or ends may be without its socket.
const MOMENT: Duration = Duration::from_secs(2);
/// An answer is never longer than this, in bytes; see the daemon's own limit.
const MAX_ANSWER: usize = 1 << 21;

/// Why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// No daemon runs: there is no socket, or nothing listens on it.
    NoDaemon(Paths),
    /// The daemon did not do it.
    Refused(ErrorBody),
    /// It could not be asked, or did not answer.
    Failed(Failure),
}

impl From<NoAnswer> for Failure {
    fn from(no: NoAnswer) -> Self {
        match no {
            NoAnswer::Failed(failure) => failure,
            NoAnswer::NoDaemon(paths) => {
                let (socket, guard) = (paths.control(), guard());
                let socket = socket.display();
                Self::NotRunning(
                    format!("oneknockd is not running (no answer on {socket}){guard}"),
                    Some(how_to_start(&paths)),
                )
            }
            NoAnswer::Refused(error) => {
                for error in error.errors {
                    say(format_args!("error: {error}"));
                }
                match error.code {
                    ErrorCode::Config => {
                        say(format_args!("error: {}", error.message));
                        Self::Ended(Exit::InvalidConfig)
                    }
                    _ => Self::Failed(error.message, None),
                }
            }
        }
    }
}

/// What is open while no daemon runs, for the end of a line: root can see it.
#[must_use]
pub fn guard() -> &'static str {
    let Ok(look) = look::look() else { return "" };
    match look.is_guarding() {
        true if look.has_fixed_sequence() => {
            "; the guard enforces: only the port sequence opens anything new"
        }
        true => "; the guard enforces: nothing new is opened",
        false if look.has_standalone_sequence => {
            "; there is no guard but \"debug rules --sequence-only\": its service opens by the port sequence alone"
        }
        false => "; there is no guard: anyone can reach the guarded ports",
    }
}

/// Whether the rules that need no daemon are loaded, where root can see it.
#[must_use]
pub fn stands_alone() -> bool {
    look::look().is_ok_and(|look| look.has_standalone_sequence)
}

fn how_to_start(paths: &Paths) -> String {
    match look::look().map(|look| look.is_guarding()) {
        Ok(false) => format!(
            "to enforce, on trial at first: {} enable --confirm 10m",
            paths.ctl()
        ),
        _ if paths.is_default() => {
            "systemctl start oneknockd; if it ends at once, its log says why".into()
        }
        _ => format!(
            "oneknockd{}; if it ends at once, it says why",
            paths.option()
        ),
    }
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Connection {
    path: PathBuf,
    lines: BufReader<UnixStream>,
    /// When an answer is to be there, all of it.
    until: Option<Instant>,
}

/// Asks the daemon of a configuration directory.
pub fn ask<T: DeserializeOwned>(paths: &Paths, command: &Command) -> Result<T, NoAnswer> {
    Connection::new(paths, command)?.answer()
}

impl Connection {
    /// Sends a command.
    pub fn new(paths: &Paths, command: &Command) -> Result<Self, NoAnswer> {
        let path = paths.control();
        let stream = reach(paths)?;
        let mut connection = Self {
            path,
            lines: BufReader::new(stream),
            until: Instant::now().checked_add(PATIENCE),
        };
        let sent = connection
            .lines
            .get_mut()
            .write_all(command.to_line().as_bytes());
        // A rejected peer may be told why before it has said anything.
        match sent {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(failed(&connection.path, &error))
            }
            _ => Ok(connection),
        }
    }

    /// Reads the answer.
    pub fn answer<T: DeserializeOwned>(&mut self) -> Result<T, NoAnswer> {
        let answer: Answer = self.line()?.ok_or_else(|| {
            let ended = io::Error::other("the daemon ended the connection without an answer");
            failed(&self.path, &ended)
        })?;
        match answer {
            Answer {
                ok: Some(ok),
                error: None,
                ..
            } => serde_json::from_value(ok).map_err(|error| failed(&self.path, &error.into())),
            Answer { error, .. } => {
                let silent = || ErrorBody::new("the daemon gave no answer");
                Err(NoAnswer::Refused(error.unwrap_or_else(silent)))
            }
        }
    }

    /// Reads a line; none at the end.
    pub fn line<T: DeserializeOwned>(&mut self) -> Result<Option<T>, NoAnswer> {
        let line = self.bytes().map_err(|error| failed(&self.path, &error))?;
        if line.is_empty() {
            return Ok(None);
        }
        let value = serde_json::from_slice(&line).map(escape);
        let value = value.and_then(serde_json::from_value);
        value
            .map(Some)
            .map_err(|error| failed(&self.path, &error.into()))
    }

    /// A line's bytes, or those that are there at the end. Each of them may come late, and all
    /// of them together only by so much.
    fn bytes(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            if let Some(until) = self.until {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                self.lines.get_ref().set_read_timeout(Some(left))?;
            }
            let part = match self.lines.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                part => part?,
            };
            let end = part.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(part.len(), |at| at + 1);
            line.extend_from_slice(&part[..taken]);
            self.lines.consume(taken);
            if end.is_some() || taken == 0 || line.len() >= MAX_ANSWER {
                return Ok(line);
            }
        }
    }

    /// Waits for the next lines without a time limit.
    pub fn clear_timeout(&mut self) -> Result<(), NoAnswer> {
        self.until = None;
        let waits = self.lines.get_ref().set_read_timeout(None);
        waits.map_err(|error| failed(&self.path, &error))
    }
}

/// What a daemon says reaches a terminal, root's at that; one that was taken over must not
/// move its cursor.
fn escape(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(config::one_line(&text)),
        Value::Array(all) => all.into_iter().map(escape).collect(),
        Value::Object(members) => {
            let escaped = |(name, value): (String, Value)| (config::one_line(&name), escape(value));
            members.into_iter().map(escaped).collect()
        }
        other => other,
    }
}

fn failed(path: &Path, error: &io::Error) -> NoAnswer {
    NoAnswer::Failed(match error.kind() {
        // What a timeout is called.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            let seconds = PATIENCE.as_secs();
            let what = format!("{}: no answer within {seconds} s", path.display());
            let hint = "the daemon hangs or is very busy; its log may say why";
            Failure::Failed(what, Some(hint.into()))
        }
        _ => Failure::io(path, error),
    })
}

/// A socket that nothing listens on means that no daemon runs only where none has its lock.
fn reach(paths: &Paths) -> Result<UnixStream, NoAnswer> {
    let path = &paths.control();
    let start = Instant::now();
    loop {
        match connect(path) {
            Ok(stream) => return Ok(stream),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) => {}
            Err(error) => return Err(failed(path, &error)),
        }
        if !control::is_alive(path) {
            return Err(NoAnswer::NoDaemon(paths.clone()));
        }
        if start.elapsed() > MOMENT {
            let what = format!("oneknockd runs, and does not answer on {}", path.display());
            let hint = "its socket was removed: systemctl restart oneknockd";
            return Err(NoAnswer::Failed(Failure::Failed(what, Some(hint.into()))));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    // Before connecting: a daemon that hangs lets connections queue up.
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(&socket2::SockAddr::unix(path)?)?;
    let stream = UnixStream::from(socket);
    // Any other user's program could answer anything.
    let peer = getsockopt(&stream, PeerCredentials)?.uid();
    let daemon = nix::unistd::User::from_name("oneknock").ok().flatten();
    let is_daemons = daemon.is_some_and(|user| user.uid.as_raw() == peer);
    if peer == 0 || peer == nix::unistd::geteuid().as_raw() || is_daemons {
        Ok(stream)
    } else {
        let what = format!("another user's program (uid {peer}) listens there");
        Err(io::Error::other(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_comes_bit_by_bit_and_never_ends_is_given_up() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let drip = std::thread::spawn(move || while theirs.write_all(b" ").is_ok() {});
        let mut connection = Connection {
            path: "control".into(),
            lines: BufReader::new(ours),
            until: Some(Instant::now() + Duration::from_millis(20)),
        };
        let line = connection.line::<Value>();
        assert!(matches!(line, Err(NoAnswer::Failed(_))), "{line:?}");
        drop(connection);
        drip.join().unwrap();
    }
}
