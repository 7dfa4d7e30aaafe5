//! What a shell completes: commands and options of themselves, and the names of profiles.

use crate::cli::Cli;
use crate::profile::store::ProfileStore;
use clap::{Command, CommandFactory};
use clap_complete::{ArgValueCandidates, CompleteEnv, CompletionCandidate};
use oneknock_shared::name::KeyName;
use std::any::TypeId;

/// Answers a shell that asks for completions, as the environment's `COMPLETE` says, and ends
/// then. To be called before anything else.
pub fn answer_a_shell() {
    CompleteEnv::with_factory(|| with_doors(Cli::command())).complete();
}

fn with_doors(command: Command) -> Command {
    // The only name that is not of a profile that is there.
    let is_new = command.get_name() == "import";
    let command = command.mut_args(|arg| {
        let is_door = arg.get_value_parser().type_id() == TypeId::of::<KeyName>();
        if (is_door && !is_new) || arg.get_id() == "words" {
            arg.add(ArgValueCandidates::new(profiles))
        } else {
            arg
        }
    });
    command.mut_subcommands(with_doors)
}

/// Where they cannot be read there are none to offer; the command itself says why.
fn profiles() -> Vec<CompletionCandidate> {
    let profiles = ProfileStore::of_this_user().and_then(|profiles| profiles.all());
    let profiles = profiles.unwrap_or_default().into_iter().flatten();
    profiles
        .map(|profile| CompletionCandidate::new(profile.name().to_string()))
        .collect()
}
