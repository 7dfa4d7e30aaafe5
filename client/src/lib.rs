//! The laptop's side of oneknock: one signed packet, and the door opens for this machine.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`cli`] | the command line |
//! | [`complete`] | what a shell completes |
//! | [`commands`] | what each command does and prints |
//! | [`doctor`] | why a door does not open |
//! | [`door`] | a server and the key to it |
//! | [`doors`] | those of this user, a file each |
//! | [`private`] | files that are this user's alone |
//! | [`import`] | an invitation becomes a door |
//! | [`resolve`] | the addresses of a host |
//! | [`age`] | how old a door's key is, and how long it lasts |
//! | [`address`] | which address is signed into a packet |
//! | [`knock`] | one fresh packet to one address |
//! | [`sequence`] | the port sequence: the fallback, and for other knocking servers |
//! | [`schedule`] | when to knock, and when to try the port; no clock in it |
//! | [`enter`] | the way in: packet, sequence, or one after the other |
//! | [`open`] | knock and try until the port answers |
//! | [`progress`] | what a person sees while the door is waited for |
//! | [`relay`] | standard input and output to the connection and back |
//! | [`ssh`] | ssh's arguments and configuration |
//! | [`rotate`] | a door's new secret |
//! | [`shell`] | words for a shell, in hints and in ssh's `ProxyCommand` |
//! | [`error`] | what is said to the person, and the exit status |

pub mod address;
pub mod age;
pub mod cli;
pub mod commands;
pub mod complete;
pub mod doctor;
pub mod door;
mod door_file;
pub mod doors;
pub mod enter;
pub mod error;
pub mod import;
pub mod knock;
pub mod open;
pub mod private;
pub mod progress;
pub mod relay;
pub mod resolve;
pub mod rotate;
pub mod schedule;
pub mod sequence;
pub mod shell;
pub mod ssh;

use clap::Parser;
use clap::error::ErrorKind;
use std::process::ExitCode;

/// The program: reads the command line, does what it says, prints what went wrong.
///
/// Exit status 0: done. 1: tried and failed. 2: usage or configuration, nothing was
/// tried. `oneknock ssh` gives ssh's own, and 127 where there is no ssh.
#[must_use]
pub fn main() -> ExitCode {
    complete::answer_a_shell();
    let result = match cli::Cli::try_parse() {
        Ok(cli) => commands::run(cli.command),
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
        error::say(&error.to_string());
        error.hints().iter().for_each(|hint| error::hint(hint));
        ExitCode::from(error.status())
    })
}
