//! What a start goes by, where not everything is right: one mistake is to shut nobody out
//! whom it is not about.
//!
//! A key whose file has one is left out, and opens nothing until it is mended; the others do.
//! With a mistake in the main file it is the one that was last in force ([`super::kept`]): that
//! can be written by the daemon's user, and never takes the place of one that is right. Where
//! others could write into the folder of keys, or where a mistake leaves no key at all, there
//! is nothing to start with.

use super::{
    Config, Key, Mistake, Paths, Settings, check_group, check_rolling, check_services, kept,
    load_config, load_keys, one_line,
};
use crate::files::{self, Access, Owner};
use std::collections::{BTreeSet, HashMap};
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
    pub fn load(paths: &Paths) -> Result<Self, Vec<Mistake>> {
        let mistakes = match Settings::load(paths) {
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
        let under = |config: Option<Config>| with_keys(paths, config?).filter(Keys::are_enough);
        let main = under(load_config(paths, Owner::wanted()).ok());
        let (keys, as_before) = match main {
            Some(keys) => (keys, false),
            None => match under(kept::config(paths)) {
                Some(keys) => (keys, true),
                None => return Err(mistakes),
            },
        };
        Ok(Self {
            settings: keys.settings,
            mistakes,
            as_before,
            left_out: keys.left_out,
        })
    }
}

impl Settings {
    /// The keys as they are, under a main file that is right, and the names of the files that
    /// are left out: where these are among those that are left out already, and so not in
    /// force.
    #[must_use]
    pub fn under(paths: &Paths, config: Config, already: &[String]) -> Option<(Self, Vec<String>)> {
        let keys = with_keys(paths, config)?;
        let is_known = keys.left_out.iter().all(|name| already.contains(name));
        (is_known && !keys.is_folder_wrong).then_some((keys.settings, keys.left_out))
    }
}

/// The keys that are without a mistake, and what the others are.
struct Keys {
    settings: Settings,
    left_out: Vec<String>,
    is_folder_wrong: bool,
}

impl Keys {
    fn are_enough(&self) -> bool {
        let is_whole = self.left_out.is_empty() && !self.is_folder_wrong;
        is_whole || !self.settings.keys.is_empty()
    }
}

/// Sorts the keys under a main file. Nothing where that has a mistake, or where others could
/// have written any of the keys.
fn with_keys(paths: &Paths, config: Config) -> Option<Keys> {
    let folder = paths.keys();
    files::check_folder(&folder, Access::WrittenOnlyBy(Owner::wanted())).ok()?;
    let mut mistakes = Vec::new();
    let mut keys = load_keys(paths, Owner::wanted(), &mut mistakes);
    let known: Vec<String> = config.services.iter().map(|s| s.name.to_string()).collect();
    check_services(&known, &keys, &mut mistakes);
    let wrong = mistakes.drain(..).map(|mistake| mistake.file);
    let wrong: BTreeSet<PathBuf> = wrong.chain(sharing(&keys)).collect();
    keys.retain(|(path, _)| !wrong.contains(path));
    check_group(paths, Some(&config), &mut mistakes);
    check_rolling(paths, Some(&config), &keys, &mut mistakes);
    let keys = keys.into_iter().map(|(_, key)| key).collect();
    let of_keys = wrong.iter().filter(|path| **path != folder);
    mistakes.is_empty().then(|| Keys {
        settings: Settings { config, keys },
        left_out: of_keys.map(|path| name(path)).collect(),
        is_folder_wrong: wrong.contains(&folder),
    })
}

/// Of files that have a secret in common nobody can know which is meant, and by one of them its
/// time may be over: none is in force. Where they say the same, as a mere copy does, the first.
fn sharing(keys: &[(PathBuf, Key)]) -> Vec<PathBuf> {
    let mut holders: HashMap<_, BTreeSet<usize>> = HashMap::new();
    for (at, (_, key)) in keys.iter().enumerate() {
        for generation in &key.generations {
            holders.entry(&generation.secret).or_default().insert(at);
        }
    }
    let mut wrong = Vec::new();
    for holders in holders.into_values().filter(|holders| holders.len() > 1) {
        let mut holders = holders.into_iter().map(|at| &keys[at]);
        let Some((path, first)) = holders.next() else {
            continue;
        };
        let others: Vec<_> = holders.collect();
        let says_the_same = |(_, key): &&(PathBuf, Key)| {
            key.policy == first.policy && key.generations == first.generations
        };
        if !others.iter().all(says_the_same) {
            wrong.push(path.clone());
        }
        wrong.extend(others.into_iter().map(|(path, _)| path.clone()));
    }
    wrong
}

fn name(path: &Path) -> String {
    one_line(&files::shell_word(
        path.file_name().unwrap_or_default().as_ref(),
    ))
}
