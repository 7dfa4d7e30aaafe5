//! A person's home folder, the binary, and invitations.

#![allow(dead_code)] // Each test file uses a part of it.

use oneknock_shared::invitation::Invitation;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A home folder of its own, removed at the end.
pub struct Home(tempfile::TempDir);

impl Home {
    /// An empty one.
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// One with a profile, called as the invitation says.
    pub fn with(invitation: &Invitation) -> Self {
        let home = Self::new();
        let done = home.run(&["import"], &invitation.to_line());
        assert_eq!(done.code, Some(0), "{done:?}");
        home
    }

    /// The program with this home folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oneknock"));
        command.args(args).env("XDG_CONFIG_HOME", self.0.path());
        command.env("XDG_STATE_HOME", self.0.path().join("state"));
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, args: &[&str], input: &str) -> Done {
        let mut command = self.command(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may end without having read it all.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap().into()
    }

    /// A profile's file.
    pub fn profile(&self, name: &str) -> PathBuf {
        self.0.path().join(format!("oneknock/profiles/{name}.toml"))
    }

    /// Everything below, folders too.
    pub fn files(&self) -> Vec<PathBuf> {
        fn walk(dir: &Path, all: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, all);
                }
                all.push(path);
            }
        }
        let mut all = Vec::new();
        walk(self.0.path(), &mut all);
        all
    }
}

/// How a run ended, and what it said.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Done {
    /// It refused: status 2, nothing on standard output, one line besides hints.
    #[track_caller]
    pub fn is_refusal(&self) -> &str {
        self.ends_with(2)
    }

    /// The configuration is invalid: status 3, and as [`Done::is_refusal`].
    #[track_caller]
    pub fn is_invalid(&self) -> &str {
        self.ends_with(3)
    }

    #[track_caller]
    fn ends_with(&self, status: i32) -> &str {
        assert_eq!((self.code, &*self.out), (Some(status), ""), "{self:?}");
        let lines: Vec<&str> = self
            .err
            .lines()
            .filter(|l| !l.starts_with("hint: "))
            .collect();
        assert_eq!(lines.len(), 1, "{self:?}");
        assert!(lines[0].starts_with("error: "), "{self:?}");
        lines[0]
    }
}

/// The published invitations.
pub fn rows() -> Vec<Value> {
    let text = include_str!("../../../shared/tests/data/invitations.json");
    serde_json::from_str(text).unwrap()
}

/// One of them.
pub fn row(name: &str) -> Invitation {
    let rows = rows();
    let row = rows.iter().find(|row| row["name"] == name).unwrap();
    row["line"].as_str().unwrap().parse().unwrap()
}

/// The plain one, with a host, a UDP port and its one service's ports of the test's own.
pub fn invitation(host: &str, port: u16, ports: &[String]) -> Invitation {
    let mut invitation = row("plain");
    invitation.host = host.parse().unwrap();
    invitation.port = port;
    invitation.services[0].ports = ports.iter().map(|p| p.parse().unwrap()).collect();
    invitation
}
