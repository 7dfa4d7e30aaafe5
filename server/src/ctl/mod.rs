//! `oneknockctl`: a server's configuration and keys, and the client of its daemon's control
//! socket.
//!
//! Answers go to standard output, messages to standard error, as `error: …`, `warning: …`,
//! `note: …` and `hint: …`, lower case, without a full stop. [`failure`] has every exit status.
// Its comments are the program's help, which shows no backticks.
#![allow(clippy::doc_markdown)]

mod ask;
mod boot_guard;
mod check;
mod complete;
mod debug;
mod edit_lock;
mod enable;
mod failure;
mod grants;
mod init;
mod key;
mod log;
mod look;
mod metrics;
mod offline;
mod output;
mod reload;
mod reset_state;
mod revoke;
mod status;
mod words;

pub use failure::{Exit, Failure};

use crate::config::Paths;
use clap::{Parser, Subcommand};
use failure::no_key;
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use output::{print, say};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Parser)]
#[command(name = "oneknockctl", version, max_term_width = 100)]
/// Set up oneknock on a server, manage its keys, and ask its daemon.
///
/// Answers are printed on standard output, messages on standard error. With --json the answer is
/// one JSON object with the member version; where the command fails, its member error has code
/// (E-FAILED, E-USAGE, E-NO-KEY, E-CONFIG, E-NOT-RUNNING or E-REFUSED), message, hint and errors.
///
/// Exit status: 0 done; 1 failed, or errors were found; 2 the command line is wrong; 3 the
/// configuration or a key's file is invalid; 4 oneknockd is not running; 5 refused, since it
/// would do harm; of "status" also 6 the guard is on trial, and 7 it does not enforce.
pub struct Cli {
    /// The directory of oneknockd.toml and keys/
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/etc/oneknock"
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the configuration and the empty state of a new server.
    ///
    /// Writes oneknockd.toml, an empty directory of keys and an empty state. Touches no
    /// firewall: no port is closed before "oneknockctl enable".
    Init(init::Init),
    /// Enforce: close the guarded ports to everyone who has not knocked.
    ///
    /// Starts the daemon where systemd runs it, has this machine knock at itself, sees the grant
    /// appear, and only then closes the ports. Connections that are established go on. The guard
    /// is installed at every boot from then on.
    ///
    /// On trial the kernel opens the ports again when the time is over, whatever became of the
    /// daemon or of this terminal, unless "oneknockctl confirm" was called; until then a reboot
    /// opens them too. Without an option, a call from a remote session is a trial of 10m, and any
    /// other call is for good.
    ///
    /// A server enforces if the file "enabled" lies beside oneknockd.toml.
    Enable(enable::Enable),
    /// Keep the guard that is on trial.
    ///
    /// To be called in a session that was admitted by a knock since the trial began. The session
    /// is known by the connection to a guarded port that an ancestor of this process holds, so
    /// that sudo does not matter, but screen and tmux do.
    Confirm(enable::Confirm),
    /// Stop enforcing: open the guarded ports, and stop the daemon.
    ///
    /// Configuration and keys stay. Without systemd, oneknockd and "oneknockctl debug boot-guard"
    /// must not be run at boot.
    Disable {
        /// Enforce again after the next boot
        #[arg(long)]
        until_reboot: bool,
    },
    /// Have the daemon reload configuration and keys.
    ///
    /// If oneknockd.toml is invalid, nothing is reloaded, and the exit status is 3. A key whose
    /// file is invalid is skipped: it opens nothing, what it has opened is closed, and the exit
    /// status is 3 too. "oneknockctl key" reloads the key that it changes, and nothing else.
    Reload(reload::Reload),
    /// Show whether the daemon enforces, where it listens, and what it has counted.
    Status {
        /// Print one JSON object: version, daemon_version, pid, up_seconds, clock, skew_seconds,
        /// port, listen, enforcing, trial (left_seconds), guard, exclusive_pending, sync_error,
        /// services (name, ports, grants), keys, grants, waits_for_clock, using_last_good_config,
        /// skipped_keys, skipped_keys_truncated, counters (accepted, waiting; junk, ignored,
        /// refused and failed by reason)
        #[arg(long)]
        json: bool,
    },
    /// Print the daemon's counters in the Prometheus text format.
    ///
    /// For the textfile collector of the node exporter: write to a file beside the one that it
    /// reads, and rename it. If no daemon runs, oneknock_up is 0.
    Metrics,
    /// Check configuration, keys and state for errors.
    ///
    /// Prints every error and warning. Changes nothing.
    Check {
        /// Print one JSON object: version, findings (severity, code, message, hint)
        #[arg(long)]
        json: bool,
    },
    /// Examine this machine: all that "check" finds, and what stops knocks or the guard.
    ///
    /// Examines what listens, the clock, the kernel, nft, what happens at boot, and tries the
    /// rules of others (ufw, firewalld, a ruleset of one's own) in a network namespace. Changes
    /// nothing.
    Doctor {
        /// Print one JSON object: version, findings (severity, code, message, hint)
        #[arg(long)]
        json: bool,
    },
    /// Add, list, show, rotate and remove keys.
    #[command(subcommand)]
    Key(key::Command),
    /// List active grants: the key, the admitted address, the service, the time left.
    ///
    /// If no daemon runs, these are the kernel's allow entries, which name one key of an address,
    /// and the exit status is 4.
    Grants {
        /// Print one JSON object: version, grants (key, address, service, seconds), sequence
        /// (what the port sequence has admitted: the same without key), sequence_truncated
        #[arg(long)]
        json: bool,
    },
    /// Revoke the grants of a key, of an address, or all of them.
    ///
    /// The holder of the key can knock again: "oneknockctl key remove" ends that. If no daemon
    /// runs, root revokes with this call, and the daemon does not restore the grants.
    Revoke(revoke::Revoke),
    /// Show what was granted and how it ended, and which knocks were denied and why.
    ///
    /// Grants are those of the journal (history in oneknockd.toml says how far it goes back).
    /// Denied knocks are those of known keys since the daemon started, and of clients whose clock
    /// is far off; "oneknockd --help" lists the reasons.
    Log(log::Log),
    /// What units and recovery call.
    #[command(subcommand, hide = true)]
    Debug(debug::Command),
}

impl Command {
    fn run(&self, paths: &Paths) -> Result<(), Failure> {
        match self {
            Self::Init(init) => init.run(paths),
            Self::Enable(enable) => enable.run(paths),
            Self::Confirm(confirm) => confirm.run(paths),
            Self::Disable { until_reboot } => enable::disable(paths, *until_reboot),
            Self::Reload(reload) => reload.run(paths),
            Self::Status { json } => status::status(paths, *json),
            Self::Metrics => metrics::metrics(paths),
            Self::Check { json } => check::check(paths, *json),
            Self::Doctor { json } => check::doctor(paths, *json),
            Self::Key(command) => command.run(paths),
            Self::Grants { json } => grants::grants(paths, *json),
            Self::Revoke(revoke) => revoke.run(paths),
            Self::Log(log) => log.run(paths),
            Self::Debug(command) => command.run(paths),
        }
    }

    /// Whether the answer is JSON.
    fn is_json(&self) -> bool {
        match self {
            Self::Status { json }
            | Self::Check { json }
            | Self::Doctor { json }
            | Self::Grants { json }
            | Self::Key(key::Command::List { json } | key::Command::Show { json, .. }) => *json,
            Self::Log(log) => log.json,
            _ => false,
        }
    }
}

/// A span of time on the command line.
pub fn span_of_time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| match text.parse::<u64>() {
        Ok(number) => format!("it needs a unit: {number}d, {number}h, {number}m or {number}s"),
        Err(_) => error.to_string(),
    })
}

/// Whether this user may read the configuration at all; what is wrong with it is looked
/// for elsewhere.
pub fn check_readable(paths: &Paths) -> Result<(), Failure> {
    let files = [paths.main_file(), paths.keys()];
    let denied = |path: &&PathBuf| access(*path, AccessFlags::R_OK) == Err(Errno::EACCES);
    match files.iter().find(denied) {
        Some(path) => Err(Failure::io(path, &Errno::EACCES.into())),
        None => Ok(()),
    }
}

/// Runs a command and says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    complete::answer_a_shell();
    let cli: Cli = match crate::usage::parse("oneknockctl") {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    let paths = Paths::of(&cli.config);
    let result = match paths.unusable() {
        Some(error) => Err(Failure::Usage(error.to_string(), None)),
        None => cli.command.run(&paths),
    };
    let Err(failure) = result else {
        return ExitCode::from(Exit::Done as u8);
    };
    failure.say();
    if cli.command.is_json()
        && let Some(json) = failure.json()
    {
        // The exit status says all the same that it failed.
        let _ = print(&json.to_string());
    }
    ExitCode::from(failure.exit() as u8)
}
