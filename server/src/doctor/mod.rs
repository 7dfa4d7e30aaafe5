//! What is wrong with a server, and what to do about it: `oneknockctl check` runs the checks of
//! [`FILES`], `oneknockctl doctor` those of [`MACHINE`] too, and `status` and `reload` print
//! findings of theirs.
//!
//! A check is a file here that implements [`Check`], and a line in one of the two lists.

mod boot;
mod clock;
mod config;
mod daemon;
mod finding;
mod foreign;
mod forwards;
mod guard;
mod kernel;
mod keys;
mod listen;
mod listeners;
mod nft;
mod permissions;
mod rules;
mod sandbox;
mod sequence;
mod services;

pub use daemon::{of_status, skipped_keys, waits_for_clock};
pub use finding::{Finding, Severity};
pub use guard::GuardFacts;
pub use keys::NO_KEY;
pub use listeners::Listeners;

use crate::config::{Config, ConfigError, Paths, Settings};
use crate::control::answers::Status;
use crate::program;
use oneknock_shared::knock::Timestamp;
use std::io;
use std::process::Command;

/// What checks look at.
#[derive(Debug)]
pub struct Subject<'a> {
    /// Where everything is.
    pub paths: &'a Paths,
    /// Every error in the configuration and the keys.
    pub errors: &'a [ConfigError],
    /// The main file, or its last good copy where it is invalid; none without either.
    pub config: Option<&'a Config>,
    /// The configuration and all keys, if they are valid.
    pub settings: Option<&'a Settings>,
    /// What listens on this machine.
    pub listeners: &'a Listeners,
    /// The wall clock.
    pub now: Timestamp,
    /// What the kernel has, where that was asked for.
    pub guard: Option<GuardFacts>,
    /// The daemon's status, or why there is none; none where it was not asked.
    pub daemon: Option<&'a DaemonAnswer>,
}

/// What the daemon says of itself.
#[derive(Debug)]
pub enum DaemonAnswer {
    /// It runs.
    Status(Box<Status>),
    /// It does not run.
    NotRunning,
    /// It runs, and gave no status: why.
    Unknown(String),
}

/// One check.
pub trait Check: Sync {
    /// The stable code of what it finds, as programs know it.
    fn code(&self) -> &'static str;
    /// Looks, and changes nothing.
    fn run(&self, subject: &Subject<'_>) -> Vec<Finding>;
}

/// Those of the configuration, the keys and the state: they need no right but to read them.
pub const FILES: &[&dyn Check] = &[
    &config::Configuration,
    &permissions::Permissions,
    &keys::Keys,
    &sequence::PortSequence,
    &guard::Guard,
];

/// Those of the machine: root alone can run them.
pub const MACHINE: &[&dyn Check] = &[
    &daemon::Daemon,
    &clock::SystemClock,
    &listen::ListenAddresses,
    &services::Services,
    &kernel::KernelVersion,
    &nft::NftVersion,
    &boot::Boot,
    &rules::ForeignRules,
];

/// Runs checks, one after the other.
#[must_use]
pub fn run(checks: &[&dyn Check], subject: &Subject<'_>) -> Vec<Finding> {
    let with_code = |check: &&dyn Check| {
        let code = check.code();
        let found = check.run(subject).into_iter();
        found.map(move |finding| Finding { code, ..finding })
    };
    checks.iter().flat_map(with_code).collect()
}

/// What a program prints, however it ends.
fn output_of(name: &str, args: &[&str]) -> io::Result<String> {
    let output = program::output(Command::new(name).args(args), b"", program::ANSWER)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
