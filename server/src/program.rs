//! Another program that is asked for something, and has so long to say it.

use std::io::{self, Read, Write};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long an answer may take to a question.
pub const ANSWER: Duration = Duration::from_secs(5);
/// How long it may take to read or load whole rulesets, which may be large.
pub const RULESET: Duration = Duration::from_secs(20);
/// Between two looks at whether it has ended.
const LOOK: Duration = Duration::from_millis(2);

/// What it prints and how it ends. One that takes longer is ended, and that is the error.
pub fn output(command: &mut Command, input: &[u8], within: Duration) -> io::Result<Output> {
    let start = Instant::now();
    let left = || within.saturating_sub(start.elapsed());
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let (stdin, input) = (child.stdin.take(), input.to_vec());
    let written = meanwhile(move || stdin.map_or(Ok(()), |mut stdin| stdin.write_all(&input)));
    let (out, err) = (read(child.stdout.take()), read(child.stderr.take()));
    let ended = (|| {
        let (stdout, stderr) = (told(&out, left(), within)?, told(&err, left(), within)?);
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Output {
                    status,
                    stdout,
                    stderr,
                });
            }
            if left().is_zero() {
                return Err(silent(within));
            }
            thread::sleep(LOOK);
        }
    })();
    match ended {
        Ok(output) if output.status.success() => {
            told(&written, left(), within)?;
            Ok(output)
        }
        Ok(output) => Ok(output),
        Err(why) => {
            // Either fails only where it has ended already.
            let _ = child.kill();
            let _ = child.wait();
            Err(why)
        }
    }
}

/// The first line that it prints.
pub fn first_line(from: impl Read + Send + 'static, within: Duration) -> io::Result<String> {
    let line = meanwhile(move || {
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(from), &mut line)?;
        Ok(line)
    });
    told(&line, within, within)
}

fn read(from: Option<impl Read + Send + 'static>) -> Receiver<io::Result<Vec<u8>>> {
    meanwhile(move || {
        let mut bytes = Vec::new();
        from.map_or(Ok(0), |mut from| from.read_to_end(&mut bytes))?;
        Ok(bytes)
    })
}

fn meanwhile<T: Send + 'static>(
    what: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Receiver<io::Result<T>> {
    let (tell, told) = channel();
    // Nobody waits for it any more where telling fails.
    thread::spawn(move || drop(tell.send(what())));
    told
}

fn told<T>(by: &Receiver<io::Result<T>>, left: Duration, within: Duration) -> io::Result<T> {
    match by.recv_timeout(left) {
        Ok(told) => told,
        Err(RecvTimeoutError::Timeout) => Err(silent(within)),
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("a thread failed")),
    }
}

fn silent(within: Duration) -> io::Error {
    let what = format!("it did not answer within {} s", within.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(line: &str, input: &[u8], within: Duration) -> io::Result<Output> {
        output(Command::new("sh").args(["-c", line]), input, within)
    }

    #[test]
    fn a_program_has_its_input_and_says_what_it_says() {
        let long = vec![b'x'; 1 << 20];
        let done = sh("cat; echo why >&2; exit 3", &long, RULESET).unwrap();
        assert_eq!(done.status.code(), Some(3));
        assert_eq!((done.stdout, &*done.stderr), (long, &b"why\n"[..]));
        // One that does not read its input is no failure of its own.
        assert!(sh("true", b"", ANSWER).unwrap().status.success());
    }

    #[test]
    fn a_program_that_says_nothing_or_leaves_another_behind_is_given_up() {
        // The second has ended; what it left holds its output. The third closes it and stays.
        for line in [
            "exec sleep 600",
            "sleep 600 & true",
            "exec sleep 600 >&- 2>&-",
        ] {
            let time = Duration::from_millis(50);
            let why = sh(line, b"", time).unwrap_err();
            assert_eq!(why.kind(), io::ErrorKind::TimedOut, "{line}");
        }
    }
}
