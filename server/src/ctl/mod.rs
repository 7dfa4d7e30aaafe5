//! `oneknockctl`: makes the configuration and the keys, checks them, shows and removes
//! the guard.
//!
//! Messages: `oneknockctl: what happened: why`, lower case, no full stop; a second line
//! `hint: what to do`. Standard output carries what was asked for, alone.

mod history;
mod init;
mod key;
mod state;

use crate::config::{Guard, Mistake, Settings};
use crate::files;
use crate::firewall::{self, How, Standing, TableIs};
use clap::{Parser, Subcommand};
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "oneknockctl", version)]
/// Sets oneknock up on a server, and keeps its keys.
///
/// Exit status: 0 done, 1 it failed or mistakes were found, 2 the command line, the
/// configuration or a key is wrong.
pub struct Cli {
    /// Where oneknockd.toml and keys/ are.
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
    /// Writes oneknockd.toml, an empty folder of keys and an empty state. Touches no
    /// firewall: no port is shut before oneknockd runs.
    Init(init::Init),
    /// Make, list, show and remove keys.
    #[command(subcommand)]
    Key(key::Command),
    /// Look for mistakes in configuration and keys; say all of them.
    Check,
    /// Show what was opened for whom, from when to when, and how it ended.
    History(history::History),
    /// Begin a new state, on the word that this machine's clock is right.
    ///
    /// For a machine whose state is lost, and whose clock nothing synchronises: the daemon
    /// would wait for that before it accepts anything. What was made before now is refused
    /// from then on. Stop the daemon first.
    NewState,
    /// Print the ruleset that the daemon loads, as JSON for "nft -j -f -".
    Rules,
    /// Take the guard down: every guarded port is as open as without oneknock.
    ///
    /// Stop the daemon first: it puts the guard up again.
    Teardown,
}

/// Why a command did not do its work.
#[derive(Debug)]
pub enum Failure {
    /// Configuration or keys are wrong. Exit status 2.
    Mistakes(Vec<Mistake>),
    /// What was asked cannot be meant. Exit status 2.
    Usage(String, Option<String>),
    /// It failed. Exit status 1.
    Failed(String, Option<String>),
}

impl Failure {
    /// A failure with its reason.
    pub fn new(what: impl Display, why: impl Display) -> Self {
        Self::Failed(format!("{what}: {why}"), None)
    }

    /// A file or folder that could not be read or written.
    #[must_use]
    pub fn io(path: &Path, why: &io::Error) -> Self {
        let what = format!("{}: {why}", path.display());
        if why.kind() == io::ErrorKind::PermissionDenied {
            Self::needs_root(what)
        } else {
            Self::Failed(what, None)
        }
    }

    /// What only root may do, with the command that does it.
    #[must_use]
    pub fn needs_root(what: String) -> Self {
        let is_root = nix::unistd::geteuid().is_root();
        Self::Failed(what, (!is_root).then(as_root))
    }
}

/// This very call, as root.
fn as_root() -> String {
    let args = std::env::args_os().skip(1);
    let words = args.map(|arg| files::shell_word(Path::new(&arg)));
    let words: Vec<String> = ["sudo oneknockctl".to_owned()]
        .into_iter()
        .chain(words)
        .collect();
    words.join(" ")
}

/// Whether this user may read the configuration at all; what is wrong with it is looked
/// for elsewhere.
pub fn check_readable(dir: &Path) -> Result<(), Failure> {
    let paths = [files::config_file(dir), files::key_folder(dir)];
    let denied = |path: &&PathBuf| access(*path, AccessFlags::R_OK) == Err(Errno::EACCES);
    match paths.iter().find(denied) {
        Some(path) => Err(Failure::io(path, &Errno::EACCES.into())),
        None => Ok(()),
    }
}

/// Runs a command and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Init(init) => init.run(&cli.config),
        Command::Key(command) => command.run(&cli.config),
        Command::Check => check(&cli),
        Command::History(history) => history.run(&cli.config),
        Command::NewState => state::new(&cli.config),
        Command::Rules => rules(&cli),
        Command::Teardown => teardown(),
    };
    let (status, what, hint) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Mistakes(mistakes)) => {
            for mistake in &mistakes {
                eprintln!("oneknockctl: {mistake}");
            }
            return ExitCode::from(2);
        }
        Err(Failure::Usage(what, hint)) => (2, what, hint),
        Err(Failure::Failed(what, hint)) => (1, what, hint),
    };
    eprintln!("oneknockctl: {what}");
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(status)
}

fn check(cli: &Cli) -> Result<(), Failure> {
    check_readable(&cli.config)?;
    match Settings::load(&cli.config) {
        Ok(settings) => {
            let (services, keys) = (settings.config.services.len(), settings.keys.len());
            for warning in settings.config.warnings() {
                let file = files::config_file(&cli.config);
                eprintln!("warning: {}: {warning}", file.display());
            }
            eprintln!("no mistake found: services {services}, keys {keys}");
            Ok(())
        }
        Err(mistakes) => {
            for mistake in &mistakes {
                eprintln!("{mistake}");
            }
            let count = mistakes.len();
            let hint = "a running daemon goes on with what it last read without a mistake";
            let is_made = files::config_file(&cli.config).exists();
            Err(Failure::Failed(
                format!("mistakes found: {count}"),
                is_made.then(|| hint.into()),
            ))
        }
    }
}

fn rules(cli: &Cli) -> Result<(), Failure> {
    check_readable(&cli.config)?;
    let settings = Settings::load(&cli.config).map_err(Failure::Mistakes)?;
    let how = How {
        table: TableIs::Made,
        grace: true,
        watched: settings.config.guard == Guard::Watched,
    };
    let ruleset = firewall::ruleset(&settings.config, &Standing::default(), how);
    let text = serde_json::to_string_pretty(&ruleset).map_err(|e| Failure::new("rules", e))?;
    print(&text)
}

/// Writes a line to standard output; a reader who is gone is a failure, not a panic.
fn print(text: &str) -> Result<(), Failure> {
    let written = writeln!(io::stdout(), "{text}");
    written.map_err(|error| Failure::new("cannot write the answer", error))
}

fn teardown() -> Result<(), Failure> {
    if !firewall::has_net_admin() {
        let what = "the guard can be taken down by root alone";
        return Err(Failure::needs_root(what.into()));
    }
    match firewall::teardown() {
        Ok(true) => {
            eprintln!(
                "the guard is down: guarded ports are open to whoever the machine's own rules let in"
            );
            Ok(())
        }
        Ok(false) => {
            eprintln!("there was no guard");
            Ok(())
        }
        Err(error) => Err(Failure::new("the guard is still up", error)),
    }
}
