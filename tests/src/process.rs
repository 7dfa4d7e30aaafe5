//! A program that goes on running: its lines as they come, signals to it, its end.

use crate::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Of a program with more lines than this, a failed test shows the last.
const MOST_SHOWN: usize = 500;

/// A running program. Killed when dropped; its lines are shown when the test failed.
#[derive(Debug)]
pub struct Running {
    title: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
    read_up_to: usize,
}

impl Running {
    /// Starts it with its standard input open, and collects both its outputs.
    pub fn start(title: &str, mut command: Command) -> Self {
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{title}: {e}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let readers = vec![
            collect(child.stdout.take().unwrap(), Arc::clone(&lines)),
            collect(child.stderr.take().unwrap(), Arc::clone(&lines)),
        ];
        Self {
            title: title.into(),
            child,
            lines,
            readers,
            read_up_to: 0,
        }
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.clone()
    }

    /// Waits for the next line that holds `text`, after the one last waited for, and
    /// gives it. Lines in between are passed over.
    pub fn expect(&mut self, text: &str) -> String {
        let what = format!("{}: a line with {text:?}", self.title);
        let (index, line) = wait::until(&what, || {
            let ended = self.readers.iter().all(JoinHandle::is_finished);
            let lines = self.lines();
            let from = lines.iter().enumerate().skip(self.read_up_to);
            let mut found = from.filter(|(_, line)| line.contains(text));
            let found = found.next().map(|(index, line)| (index, line.clone()));
            assert!(found.is_some() || !ended, "ended without {what}");
            found
        });
        self.read_up_to = index + 1;
        line
    }

    /// How many lines so far hold `text`.
    pub fn count(&self, text: &str) -> usize {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|l| l.contains(text)).count()
    }

    /// Writes a line to its standard input.
    pub fn say(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("its input is open");
        writeln!(stdin, "{line}").unwrap_or_else(|e| panic!("{}: {e}", self.title));
    }

    /// Closes its standard input.
    pub fn close_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// How many KiB of memory it has in use: `VmRSS` of proc(5).
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.expect("it is running").parse().unwrap()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap_or_else(|e| panic!("{}: {e}", self.title));
    }

    /// Waits for its end, and for the last of its lines.
    pub fn end(&mut self) -> ExitStatus {
        let what = format!("the end of {}", self.title);
        let status = wait::until(&what, || self.child.try_wait().unwrap());
        for reader in self.readers.drain(..) {
            wait::until_true(&what, || reader.is_finished());
        }
        status
    }

    /// Whether it is still running.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Either fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let lines = self.lines();
            for line in &lines[lines.len().saturating_sub(MOST_SHOWN)..] {
                eprintln!("[{}] {line}", self.title);
            }
        }
    }
}

fn collect(from: impl Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).into_owned();
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push(line);
        }
    })
}
