//! What a shell completes: commands and options of themselves, and the names of keys.

use super::Cli;
use crate::config::Paths;
use crate::control::protocol::Selection;
use crate::files;
use clap::{Command, CommandFactory};
use clap_complete::{ArgValueCandidates, CompleteEnv, CompletionCandidate};
use oneknock_shared::name::KeyName;
use std::any::TypeId;
use std::env;
use std::fs;
use std::path::PathBuf;

/// Answers a shell that asks for completions, as the environment's `COMPLETE` says, and ends
/// then. To be called before anything else.
pub fn answer_a_shell() {
    CompleteEnv::with_factory(|| with_keys(Cli::command())).complete();
}

fn with_keys(command: Command) -> Command {
    // These take a name that is not there yet.
    let is_new = ["init", "add"].contains(&command.get_name());
    let command = command.mut_args(|arg| {
        let kind = arg.get_value_parser().type_id();
        if !is_new && (kind == TypeId::of::<KeyName>() || kind == TypeId::of::<Selection>()) {
            arg.add(ArgValueCandidates::new(keys))
        } else {
            arg
        }
    });
    command.mut_subcommands(with_keys)
}

/// None where they cannot be read: the command itself says why.
fn keys() -> Vec<CompletionCandidate> {
    let Ok(entries) = fs::read_dir(Paths::of(&config_dir()).keys()) else {
        return Vec::new();
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let candidates = paths.filter_map(|path| {
        let is_key = path.extension().is_some_and(|ending| ending == "toml");
        let name = path.file_stem()?.to_str()?.parse::<KeyName>().ok()?;
        (is_key && !files::is_hidden(&path)).then(|| CompletionCandidate::new(name.to_string()))
    });
    let mut candidates: Vec<_> = candidates.collect();
    candidates.sort();
    candidates
}

/// As the line that is being completed says it: `--config DIR` or `--config=DIR`.
fn config_dir() -> PathBuf {
    let words: Vec<_> = env::args_os().collect();
    let dir = words.iter().enumerate().find_map(|(at, word)| {
        let word = word.to_str()?;
        match word.strip_prefix("--config") {
            Some("") => words.get(at + 1).map(PathBuf::from),
            Some(rest) => rest.strip_prefix('=').map(PathBuf::from),
            None => None,
        }
    });
    dir.unwrap_or_else(|| "/etc/oneknock".into())
}
