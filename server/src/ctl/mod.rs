//! `oneknockctl`: makes the configuration and the keys, checks them, and asks the running
//! daemon.
//!
//! Messages: `oneknockctl: what happened: why`, lower case, no full stop; a second line
//! `hint: what to do`. Standard output carries what was asked for, alone.

mod ask;
mod check;
mod clocks;
mod complete;
mod control;
mod doctor;
mod edit_lock;
mod enable;
mod guard;
mod history;
mod init;
mod key;
mod listening;
mod look;
mod offline;
mod revoke;
mod state;
mod watch;
mod words;

use crate::config::{ConfigError, Paths, Settings, enabled};
use crate::control::protocol::Selection;
use crate::files;
use crate::kernel::{self, default_gateways};
use clap::{Parser, Subcommand};
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use oneknock_shared::name::KeyName;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Parser)]
#[command(name = "oneknockctl", version, max_term_width = 100)]
/// Sets oneknock up on a server, keeps its keys, and asks its daemon.
///
/// Exit status: 0 done, 1 it failed or mistakes were found, 2 the command line, the
/// configuration or a key is wrong, 3 the guard is up as it was before such mistakes; of
/// "status" and "guard" also 6 the guard is on trial, 7 it does not enforce.
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
    /// firewall: no port is shut before "oneknockctl enable".
    Init(init::Init),
    /// Make, list, show, rotate, retire and remove keys.
    #[command(subcommand)]
    Key(key::Command),
    /// Look for mistakes in configuration and keys; say all of them.
    Check,
    /// Examine this machine: what is in the way of knocks or of the guard, and how to mend it.
    ///
    /// Looks at what listens, the clock, kernel and programs, the machine's start, and tries
    /// the rules of others (ufw, firewalld, a ruleset of one's own) in a copy of this
    /// machine's network. Changes nothing.
    Doctor,
    /// Show what was opened for whom, from when to when, and how it ended.
    History(history::History),
    /// Begin a new state, on the word that this machine's clock is right.
    ///
    /// For a machine whose state is lost, and whose clock nothing synchronises: the daemon
    /// would wait for that before it accepts anything. What was made before now is refused
    /// from then on. Stop the daemon first.
    NewState,
    /// Print the ruleset that the daemon loads, as text for "nft -f -".
    Rules {
        /// The port sequence of the configuration and the service that it opens, as a ruleset
        /// that works by itself, for a machine without a daemon (beside one its guard would
        /// shut out whom a packet has admitted).
        #[arg(long)]
        sequence_only: bool,
    },
    /// Say how the running daemon is: whether it enforces, where it listens, what it counted.
    ///
    /// Exit status: 0 the guarded ports are shut, 6 on trial, 7 they are not (not enforcing).
    Status {
        /// One JSON object.
        ///
        /// Its members: version, pid, `up_seconds`, `clock_ms`, `skew_seconds`, port, listen, guard
        /// (exclusive or monitored), `exclusive_pending` (whether it is to be exclusive and has to be
        /// taken down for it), enforcing (whether the guarded ports are shut for good), trial
        /// (`left_seconds`, or null where none goes on), `sync_error` (why the kernel does not
        /// hold every grant, or null), services (name, ports, grants), keys, grants,
        /// `waits_for_clock`, `using_last_good_config` (whether oneknockd.toml is invalid),
        /// `skipped_keys` (the files of keys that are invalid), and counters (accepted and
        /// waiting; junk, ignored, refused and failed by reason). What ends in `_ms` is in
        /// milliseconds since 1970.
        #[arg(long)]
        json: bool,
    },
    /// List who is admitted, from where, to what, and for how long still.
    ///
    /// Where no daemon runs it is what the kernel has, which names one key of an address, and
    /// the exit status is 1.
    Grants {
        /// One JSON object.
        ///
        /// Its members: grants, a list of key, address, service and seconds (that are left);
        /// where the port sequence has admitted somebody also sequence, the same without key.
        #[arg(long)]
        json: bool,
    },
    /// Have the daemon reread configuration and keys; say whether it took them.
    ///
    /// With an error in oneknockd.toml nothing is reloaded. A key whose file is invalid is
    /// skipped: it opens nothing, and what it has opened is closed. In both cases the exit status
    /// is 1. The commands that change a key do not wait for a reload: each has the daemon reload
    /// that key alone.
    Reload,
    /// End the grants of a key, to an address, or all of them, before their time.
    ///
    /// Without --cut sessions that are in live on. Whoever has a key can knock again. Where no
    /// daemon runs, root does it with this call: grants do not come back with its start.
    Revoke {
        /// A key's name or an address; what can be read as an address is one.
        #[arg(value_name = "KEY|ADDRESS", required_unless_present = "all")]
        who: Option<Selection>,
        /// All grants.
        #[arg(long, conflicts_with = "who")]
        all: bool,
        /// Also end the connections that such grants have let in, those too whose grant was
        /// over long ago: every connection from an address to a service that the history
        /// has for it, also of others behind the same address. Of the port sequence there is
        /// no history: of an address it is every connection to what that opens, of all those
        /// from whom it had admitted still.
        #[arg(long)]
        cut: bool,
    },
    /// Say why knocks were refused lately, and what to do about it.
    ///
    /// Only packets made with a known key are remembered, since the daemon's start, and the
    /// last few of no known key: of a key whose client's clock is far off, as root can tell.
    /// "oneknockd --help" lists all reasons.
    Why {
        /// A key's name or an address; what can be read as an address is one [default:
        /// all].
        #[arg(value_name = "KEY|ADDRESS")]
        who: Option<Selection>,
        /// One JSON object.
        ///
        /// Its members: rejections, a list of last (an event as "watch --json" prints it) and
        /// times; unknown, a list of `at_ms`, address, selector and times; `waits_for_clock`.
        #[arg(long)]
        json: bool,
    },
    /// Print who is admitted now, then what happens: grants, their ends, refusals.
    ///
    /// Ctrl-C ends it. On a terminal it is a view of the grants, counting down, and of what
    /// happened last; elsewhere, as into a file, a line for everything: a date, what happened,
    /// the key and the address.
    ///
    /// What the port sequence opens is the kernel's alone: "oneknockctl grants" lists it.
    Watch {
        /// A JSON object a line.
        ///
        /// The first says v, the version of the others, 1. These are events: `at_ms`, event
        /// (open when the watching began, granted, closed, expired, revoked, refused, ignored,
        /// failed, retiring), key, address, proven (whether the address is the key holder's
        /// for sure), and as far as it has them service, seconds, generation, reason and
        /// `ahead_seconds` (of the client's clock). Or they say dropped, how many were left out.
        #[arg(long)]
        json: bool,
    },
    /// Print the daemon's counters in the Prometheus text format.
    ///
    /// For the textfile collector of the node exporter: write to a file beside the one that
    /// it reads, and rename it. Where no daemon runs the metrics say so, and the exit status
    /// is 0 all the same.
    Metrics,
    /// Put the guard up: after a knock of this machine at itself, and first on trial if asked.
    ///
    /// Starts the daemon, where systemd runs it, knocks at this machine itself, sees the
    /// grant appear, and only then shuts the guarded ports. Connections that are open live
    /// on. At the machine's start the guard comes up from then on.
    ///
    /// With --confirm it does so on trial: the kernel opens the ports again when the time is
    /// over, whatever became of the daemon or of this terminal, and until it is confirmed
    /// the guard shuts nothing at the machine's start either. For a guard that is down.
    ///
    /// Until it was enabled or confirmed a daemon that is started shuts nothing. The file
    /// "enabled" beside oneknockd.toml says that it was.
    Enable(enable::Enable),
    /// Keep the guard up that is on trial.
    ///
    /// To be called in a session that a knock has let in since the trial began: it is known
    /// by the connection to a guarded port that a process holds from which this call
    /// descends, so that sudo does not matter, but screen and tmux do.
    Confirm,
    /// Take the guard down, and leave it down at the machine's next start.
    ///
    /// The daemon ends. Configuration and keys stay: "oneknockctl enable" puts it up again.
    /// Without systemd, "oneknockctl guard" and oneknockd must not be run at that start.
    Disable,
    /// Put the guard up, without the daemon.
    ///
    /// For the machine's start, before the network comes up: every guarded port is shut for
    /// everybody who is not admitted already, and nobody new is until oneknockd runs.
    /// Connections that are open live on. Looks at the configuration alone, not at the keys.
    ///
    /// Where it was not enabled, it shuts nothing, and the exit status is 7; 6 while a trial goes
    /// on. With a mistake in the configuration the guard goes up as the last daemon had it, and
    /// the exit status is 3; where none has run since "oneknockctl disable" it is 2, and there
    /// is no guard.
    Guard,
    /// Take the guard down: every guarded port is as open as without oneknock.
    ///
    /// A running daemon takes it down itself, and ends.
    Teardown,
}

/// Why a command did not do its work.
#[derive(Debug)]
pub enum Failure {
    /// Configuration or keys are wrong. Exit status 2.
    Mistakes(Vec<ConfigError>),
    /// The same, and the guard is up as it was before; with what to do. Exit status 3.
    AsItWas(Vec<ConfigError>, String),
    /// What was asked cannot be meant. Exit status 2.
    Usage(String, Option<String>),
    /// It failed, or the daemon refused. Exit status 1.
    Failed(String, Option<String>),
    /// What was asked for is said, and is not as it should be. With its exit status.
    Answered(u8),
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

    /// The same, with what to do about it.
    fn with_hint(self, hint: String) -> Self {
        match self {
            Self::Failed(what, None) => Self::Failed(what, Some(hint)),
            other => other,
        }
    }

    /// The exit status that it has.
    fn status(&self) -> u8 {
        match self {
            Self::Mistakes(_) | Self::Usage(..) => 2,
            Self::Failed(..) => 1,
            Self::AsItWas(..) => 3,
            Self::Answered(code) => *code,
        }
    }

    /// Says it on standard error.
    fn say(&self) {
        let (mistakes, what, hint) = match self {
            Self::Mistakes(mistakes) => (&mistakes[..], None, None),
            Self::AsItWas(mistakes, hint) => {
                let what = "the guard is up by the last good configuration";
                (&mistakes[..], Some(what), Some(hint))
            }
            Self::Usage(what, hint) | Self::Failed(what, hint) => {
                (&[][..], Some(&**what), hint.as_ref())
            }
            Self::Answered(_) => return,
        };
        for mistake in mistakes {
            say(format_args!("oneknockctl: {mistake}"));
        }
        if let Some(what) = what {
            say(format_args!("oneknockctl: {what}"));
        }
        if let Some(hint) = hint {
            say(format_args!("hint: {hint}"));
        }
    }

    /// What only root may do, with the command that does it.
    #[must_use]
    pub fn needs_root(what: String) -> Self {
        let is_root = nix::unistd::geteuid().is_root();
        Self::Failed(what, (!is_root).then(as_root))
    }
}

/// A span of time on the command line.
pub fn span_of_time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| match text.parse::<u64>() {
        Ok(number) => format!("it needs a unit: {number}d, {number}h, {number}m or {number}s"),
        Err(_) => error.to_string(),
    })
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

/// There is no such key.
fn no_key(paths: &Paths, name: &KeyName) -> Failure {
    let ctl = paths.ctl();
    let hint = format!("\"{ctl} key list\" shows those there are");
    Failure::Usage(format!("there is no key {name}"), Some(hint))
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

/// Runs a command and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    complete::answer_a_shell();
    let cli: Cli = match crate::usage::parse("oneknockctl") {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    let paths = Paths::of(&cli.config);
    if let Some(mistake) = paths.unusable() {
        say(format_args!("oneknockctl: {mistake}"));
        return ExitCode::from(2);
    }
    let result = match &cli.command {
        Command::Init(init) => init.run(&paths),
        Command::Key(command) => command.run(&paths),
        Command::Check => check::check(&paths),
        Command::Doctor => doctor::examine(&paths),
        Command::History(history) => history.run(&paths),
        Command::NewState => state::new(&paths),
        Command::Rules { sequence_only } => rules(&paths, *sequence_only),
        Command::Status { json } => control::status(&paths, *json),
        Command::Grants { json } => control::grants(&paths, *json),
        Command::Reload => control::reload(&paths),
        Command::Revoke { who, cut, .. } => {
            revoke::revoke(&paths, who.as_ref().unwrap_or(&Selection::All), *cut)
        }
        Command::Why { who, json } => {
            control::why(&paths, who.as_ref().unwrap_or(&Selection::All), *json)
        }
        Command::Watch { json } => watch::watch(&paths, *json),
        Command::Metrics => control::metrics(&paths),
        Command::Enable(enable) => enable.run(&paths),
        Command::Confirm => enable::confirm(&paths),
        Command::Disable => enable::disable(&paths),
        Command::Guard => guard::put_up(&paths),
        Command::Teardown => control::teardown(&paths),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.say();
            ExitCode::from(failure.status())
        }
    }
}

fn rules(paths: &Paths, sequence_only: bool) -> Result<(), Failure> {
    check_readable(paths)?;
    let settings = Settings::load(paths).map_err(Failure::Mistakes)?;
    let gateways = default_gateways();
    let gateways = gateways.map_err(|error| Failure::new("the default gateways", error))?;
    let guard = settings.config.guard(enabled::is_set(paths), &gateways);
    if !sequence_only {
        return print(kernel::ruleset_text(&guard).trim_end());
    }
    let text = kernel::standalone_sequence_text(&guard).ok_or_else(|| {
        let hint = "a rolling one needs the daemon; give ports in [sequence] of oneknockd.toml";
        Failure::Usage("no fixed sequence is configured".into(), Some(hint.into()))
    })?;
    print(text.trim_end())
}

/// Writes a line to standard output; a reader who is gone is a failure, not a panic.
fn print(text: &str) -> Result<(), Failure> {
    let written = writeln!(io::stdout(), "{text}");
    written.map_err(|error| Failure::new("cannot write the answer", error))
}

/// Says a line on standard error. `eprintln!` would panic where nobody reads it any more, in
/// the middle of what is to be done.
fn say(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}
