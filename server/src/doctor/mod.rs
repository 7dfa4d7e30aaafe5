//! `oneknockctl doctor`: what on this machine is in the way of whoever knocks, or of the
//! guard, and how to mend it.
//!
//! | part | what it looks at |
//! | --- | --- |
//! | [`machine`] | services and the clock |
//! | [`versions`] | the kernel and nft |
//! | [`start`] | what happens at the machine's start, and who takes the guard down |
//! | [`forwards`] | ports that are passed on, and the guard before them |
//! | [`rules`] | the rules of [`others`], tried out in a copy of this machine's network |

mod copy;
mod forwards;
mod machine;
mod others;
mod rules;
mod start;
mod versions;

use crate::config::{Config, one_line};
use crate::program;
use std::fmt;
use std::io;
use std::process::Command;

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether something does not work; else it is as good to know.
    pub is_trouble: bool,
    /// What is the matter, in one line.
    pub what: String,
    /// How to mend it, in one line.
    pub mend: String,
}

impl Finding {
    /// Something does not work.
    pub fn trouble(what: impl fmt::Display, mend: impl fmt::Display) -> Self {
        Self {
            is_trouble: true,
            what: what.to_string(),
            mend: mend.to_string(),
        }
    }

    /// It is as good to know.
    pub fn note(what: impl fmt::Display, mend: impl fmt::Display) -> Self {
        Self {
            is_trouble: false,
            ..Self::trouble(what, mend)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_trouble { "trouble" } else { "note" };
        // Names of others' tables are in it, and these may be anything.
        let (what, mend) = (one_line(&self.what), one_line(&self.mend));
        write!(f, "{kind}: {what}\n  do: {mend}")
    }
}

/// What a program prints, however it ends.
fn said(name: &str, args: &[&str]) -> io::Result<String> {
    let output = program::output(Command::new(name).args(args), b"", program::ANSWER)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Examines this machine. Changes nothing; the copy of its network goes again.
#[must_use]
pub fn examine(config: &Config, enforcing: bool) -> Vec<Finding> {
    let mut findings = machine::examine(config);
    findings.extend(versions::examine());
    findings.extend(start::examine(config, enforcing));
    findings.extend(rules::examine(config));
    findings
}
