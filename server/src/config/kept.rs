//! The main file as it was last in force, kept in the state. With a mistake in the file, what
//! was in force stays in force through a restart of the daemon or the machine, as it does
//! through a reload: there is a guard, and a way in.
//!
//! Whoever has taken the daemon over can write it. He gains nothing by that: where there is
//! none, a mistake means no guard at all.

use super::{Config, Settings, load_config, main_file, path_in_pieces};
use crate::files::{self, Access, Existing, Owner, Unsafe};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Beside the ledger.
const FILE: &str = "in-force.toml";
/// The daemon's alone, as all of the state is.
const MODE: u32 = 0o600;

/// Keeps the main file, which is in force as `config`; not that of a guard on trial. Where
/// the file says something else by now the next reload keeps it.
pub fn keep(dir: &Path, config: &Config) -> Result<(), Unsafe> {
    if config.on_trial || load_config(dir, Owner::wanted()).as_ref() != Ok(config) {
        return Ok(());
    }
    let main = Access::WrittenOnlyBy(Owner::wanted());
    let text = files::read(&files::config_file(dir), main)?;
    let (path, owner) = (config.state.join(FILE), Owner::of_state());
    let is_kept = files::read(&path, Access::Exactly(owner, MODE)).is_ok_and(|kept| kept == text);
    if !is_kept {
        files::write(&path, &text, owner, MODE, Existing::Replace)?;
    }
    Ok(())
}

/// Forgets what is kept in a state: the guard is down for good, or is to be another one.
pub fn forget(state: &Path) -> io::Result<()> {
    match fs::remove_file(state.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The main file that was kept, for one that is there and has mistakes.
#[must_use]
pub fn config(dir: &Path) -> Option<Config> {
    files::config_file(dir).symlink_metadata().ok()?;
    let path = state_folder(dir).join(FILE);
    let text = files::read(&path, Access::Exactly(Owner::of_state(), MODE)).ok()?;
    let mut config = main_file::parse(&path, &text).ok()?;
    config.on_trial = files::trial_file(dir).symlink_metadata().is_ok();
    Some(config)
}

/// With the keys as they are, where these fit.
pub(super) fn settings(dir: &Path) -> Option<Settings> {
    Settings::under(dir, config(dir)?)
}

/// The folder of the state, also where the main file is in pieces.
#[must_use]
pub fn state_folder(dir: &Path) -> PathBuf {
    let main = Access::WrittenOnlyBy(Owner::wanted());
    let text = files::read(&files::config_file(dir), main);
    let state = text.ok().and_then(|text| path_in_pieces(&text, "state"));
    state.unwrap_or_else(|| match dir.to_str() {
        Some("/etc/oneknock") => "/var/lib/oneknock".into(),
        _ => dir.join("state"),
    })
}
