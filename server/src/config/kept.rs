//! The main file as it was last in force, kept beside the state. With a mistake in the file, what
//! was in force stays in force through a restart of the daemon or the machine, as it does
//! through a reload: there is a guard, and a way in.
//!
//! A file that is not there is a mistake too, as long as the keys are.
//!
//! Whoever has taken the daemon over can write it. He gains nothing by that: where there is
//! none, a mistake means no guard at all.

use super::{Config, Paths, is_absent, load_config, main_file};
use crate::files::{self, Access, Existing, Owner, Unsafe};
use std::io;

/// The daemon's alone, as all of the state is.
const MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Keeps the main file, which is in force as `config`. Where
/// the file says something else by now the next reload keeps it.
pub fn keep(paths: &Paths, config: &Config) -> Result<(), Unsafe> {
    if load_config(paths, Owner::wanted()).as_ref() != Ok(config) {
        return Ok(());
    }
    let main = Access::WrittenOnlyBy(Owner::wanted());
    let text = files::read(&paths.main_file(), main)?;
    let (path, owner) = (paths.last_good(), Owner::of_state());
    let is_kept = files::read(&path, Access::Exactly(owner, MODE)).is_ok_and(|kept| kept == text);
    if !is_kept {
        files::make_folder(&paths.state(), owner, FOLDER_MODE)?;
        files::write(&path, &text, owner, MODE, Existing::Replace)?;
    }
    Ok(())
}

/// Forgets what is kept: the guard is down for good, or is to be another one.
pub fn forget(paths: &Paths) -> io::Result<()> {
    match files::remove(&paths.last_good()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The main file that was kept, for one that has mistakes, or was removed by one. Where the
/// keys are gone too nothing is left that it was for.
#[must_use]
pub fn config(paths: &Paths) -> Option<Config> {
    if is_absent(&paths.main_file()) && is_absent(&paths.keys()) {
        return None;
    }
    let path = paths.last_good();
    let text = files::read(&path, Access::Exactly(Owner::of_state(), MODE)).ok()?;
    main_file::parse(&path, &text).ok()
}

/// What brings the main file back that was kept, where it was removed.
pub(super) fn mend(paths: &Paths) -> Option<String> {
    config(paths)?;
    let [kept, main] = [paths.last_good(), paths.main_file()].map(|path| files::shell_word(&path));
    let owner = Owner::wanted().name();
    Some(format!(
        "cp {kept} {main} && chown {owner} {main} && chmod 0640 {main}"
    ))
}
