//! What a start goes by, where not everything is right: one mistake is to shut nobody out
//! whom it is not about.
//!
//! With a mistake in the main file it is the one that was last in force ([`super::kept`]). A
//! key whose file has one is left out, and opens nothing until it is mended; the others do.
//! Where the folder of keys itself could be changed by others, or where no key would be left,
//! there is nothing to start with.

use super::{
    Config, Key, Mistake, Settings, check_group, check_rolling, check_secrets, check_services,
    kept, load_config, load_keys, one_line,
};
use crate::files::{self, Owner};
use std::path::{Path, PathBuf};

/// Settings without a mistake, and what is not in them.
#[derive(Debug, Clone)]
pub struct Usable {
    /// What can be in force.
    pub settings: Settings,
    /// Everything that is wrong.
    pub mistakes: Vec<Mistake>,
    /// Whether the main file is the one that was last in force.
    pub as_before: bool,
    /// The keys that are left out, by the names of their files.
    pub left_out: Vec<String>,
}

impl Usable {
    /// Reads a configuration folder. Where nothing can be made of it, all that is wrong.
    pub fn load(dir: &Path) -> Result<Self, Vec<Mistake>> {
        let mistakes = match Settings::load(dir) {
            Ok(settings) => {
                return Ok(Self {
                    settings,
                    mistakes: Vec::new(),
                    as_before: false,
                    left_out: Vec::new(),
                });
            }
            Err(mistakes) => mistakes,
        };
        let main = || Some((load_config(dir, Owner::wanted()).ok()?, false));
        let kept = || Some((kept::config(dir)?, true));
        let of = |(config, as_before): (Config, bool)| {
            let (settings, left_out) = with_keys(dir, config)?;
            let is_enough = left_out.is_empty() || !settings.keys.is_empty();
            is_enough.then_some((settings, left_out, as_before))
        };
        // Under the main file that fits all keys, where there is one.
        let ways = [main().and_then(of), kept().and_then(of)];
        let is_whole = |way: &Option<(_, Vec<_>, _)>| way.as_ref().is_some_and(|w| w.1.is_empty());
        let [main, kept] = ways;
        let way = if is_whole(&kept) { kept } else { main.or(kept) };
        match way {
            Some((settings, left_out, as_before)) => Ok(Self {
                settings,
                mistakes,
                as_before,
                left_out: left_out.iter().map(|path| name(path)).collect(),
            }),
            None => Err(mistakes),
        }
    }
}

impl Settings {
    /// The keys as they are, under a main file that is in force, where all of them fit that.
    #[must_use]
    pub fn under(dir: &Path, config: Config) -> Option<Self> {
        let (settings, left_out) = with_keys(dir, config)?;
        left_out.is_empty().then_some(settings)
    }
}

/// The keys that are without a mistake, under a main file that is, and the files of the
/// others. Nothing where that one or the folder of keys has one.
fn with_keys(dir: &Path, config: Config) -> Option<(Settings, Vec<PathBuf>)> {
    let mut mistakes = Vec::new();
    let mut keys = load_keys(dir, Owner::wanted(), &mut mistakes);
    let known: Vec<String> = config.services.iter().map(|s| s.name.to_string()).collect();
    check_services(&known, &keys, &mut mistakes);
    leave_out(&mut keys, &mistakes);
    // Whoever shares a secret with one that is left out need not be.
    check_secrets(&keys, &mut mistakes);
    leave_out(&mut keys, &mistakes);
    let mut left_out: Vec<PathBuf> = mistakes.drain(..).map(|m| m.file).collect();
    left_out.dedup();
    check_group(dir, Some(&config), &mut mistakes);
    check_rolling(dir, Some(&config), &keys, &mut mistakes);
    let keys = keys.into_iter().map(|(_, key)| key).collect();
    let is_right = mistakes.is_empty() && !left_out.contains(&files::key_folder(dir));
    is_right.then_some((Settings { config, keys }, left_out))
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    one_line(&name.to_string_lossy())
}

fn leave_out(keys: &mut Vec<(PathBuf, Key)>, mistakes: &[Mistake]) {
    keys.retain(|(path, _)| !mistakes.iter().any(|mistake| mistake.file == *path));
}
