//! The main file as it was last in force, kept where the state is by default: a place that is
//! found without it, also where it says that the state is elsewhere. With a mistake in the file, what
//! was in force stays in force through a restart of the daemon or the machine, as it does
//! through a reload: there is a guard, and a way in.
//!
//! A file that is not there is a mistake too, as long as the keys are.
//!
//! Whoever has taken the daemon over can write it. He gains nothing by that: where there is
//! none, a mistake means no guard at all.

use super::{Config, default_state, is_absent, load_config, main_file, path_in_pieces, trial};
use crate::files::{self, Access, Existing, Owner, Unsafe};
use std::io;
use std::path::{Path, PathBuf};

/// The daemon's alone, as all of the state is.
const MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Where it is kept.
fn file(dir: &Path) -> PathBuf {
    default_state(dir).join("in-force.toml")
}

/// Keeps the main file, which is in force as `config`; not that of a guard on trial. Where
/// the file says something else by now the next reload keeps it.
pub fn keep(dir: &Path, config: &Config) -> Result<(), Unsafe> {
    if config.on_trial || load_config(dir, Owner::wanted()).as_ref() != Ok(config) {
        return Ok(());
    }
    let main = Access::WrittenOnlyBy(Owner::wanted());
    let text = files::read(&files::config_file(dir), main)?;
    let (path, owner) = (file(dir), Owner::of_state());
    let is_kept = files::read(&path, Access::Exactly(owner, MODE)).is_ok_and(|kept| kept == text);
    if !is_kept {
        files::make_folder(&default_state(dir), owner, FOLDER_MODE)?;
        files::write(&path, &text, owner, MODE, Existing::Replace)?;
    }
    Ok(())
}

/// Forgets what is kept: the guard is down for good, or is to be another one.
pub fn forget(dir: &Path) -> io::Result<()> {
    match files::remove(&file(dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The main file that was kept, for one that has mistakes, or was removed by one. Where the
/// keys are gone too nothing is left that it was for.
#[must_use]
pub fn config(dir: &Path) -> Option<Config> {
    if is_absent(&files::config_file(dir)) && is_absent(&files::key_folder(dir)) {
        return None;
    }
    let path = file(dir);
    let text = files::read(&path, Access::Exactly(Owner::of_state(), MODE)).ok()?;
    let mut config = main_file::parse(&path, &text).ok()?;
    config.on_trial = trial::read(dir).is_some();
    Some(config)
}

/// What brings the main file back that was kept, where it was removed.
pub(super) fn mend(dir: &Path) -> Option<String> {
    config(dir)?;
    let [kept, main] = [file(dir), files::config_file(dir)].map(|path| files::shell_word(&path));
    let owner = Owner::wanted().name();
    Some(format!(
        "cp {kept} {main} && chown {owner} {main} && chmod 0640 {main}"
    ))
}

/// The folder of the state, also where the main file is in pieces.
#[must_use]
pub fn state_folder(dir: &Path) -> PathBuf {
    let main = Access::WrittenOnlyBy(Owner::wanted());
    let text = files::read(&files::config_file(dir), main);
    let state = text.ok().and_then(|text| path_in_pieces(&text, "state"));
    state.unwrap_or_else(|| default_state(dir))
}
