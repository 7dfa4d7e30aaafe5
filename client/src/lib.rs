//! The client of oneknock, which does single packet authorization: one signed packet, and the
//! server's port opens for this machine.
//!
//! | room | what it holds |
//! | --- | --- |
//! | [`cli`] | the command line |
//! | [`cmd`] | what each command does and prints |
//! | [`knock`] | packets, port sequences, and when each is sent |
//! | [`profile`] | a server and the key to it; a file each |
//! | [`ssh`] | ssh's arguments and configuration, and the relay behind its `ProxyCommand` |
//! | [`ui`] | messages, progress, completions |
//! | [`error`] | everything that ends a command, with its exit status and hints |

pub mod cli;
pub mod cmd;
pub mod error;
pub mod knock;
pub mod profile;
pub mod ssh;
pub mod ui;

use clap::Parser;
use clap::error::ErrorKind;
use std::io::Write as _;
use std::process::ExitCode;

/// The program: reads the command line, does what it says, prints what went wrong.
///
/// Exit status 0: done. 1: failed. 2: usage. 3: configuration invalid. `oneknock ssh` gives
/// ssh's own, and 127 where there is no ssh.
#[must_use]
pub fn main() -> ExitCode {
    ui::complete::answer_a_shell();
    let mut prints_json = false;
    let result = match cli::Cli::try_parse() {
        Ok(cli) => {
            prints_json = cli.command.prints_json();
            cmd::run(cli.command)
        }
        Err(asked) if !asked.use_stderr() => {
            // Help or version; where standard output is closed nobody reads it.
            let _ = asked.print();
            Ok(ExitCode::SUCCESS)
        }
        Err(nothing) if nothing.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = nothing.print();
            Ok(ExitCode::from(2))
        }
        Err(mistake) => Err(error::Error::usage(&mistake)),
    };
    result.unwrap_or_else(|error| {
        say(&error, prints_json);
        ExitCode::from(error.status())
    })
}

fn say(error: &error::Error, prints_json: bool) {
    use error::Error;
    // Nobody reads any more.
    if matches!(error, Error::ClosedPipe) {
        return;
    }
    // A list names what is invalid in its own object.
    if prints_json && !matches!(error, Error::SomeBroken(_)) {
        let _ = std::io::stdout().write_all(cmd::error_json(error).as_bytes());
    }
    ui::message::error(&error.to_string());
    for hint in error.hints() {
        ui::message::hint(&hint);
    }
}
