//! `oneknockctl key retire` and `remove`.

use super::directory::KeyDirectory;
use super::generations::Generations;
use crate::clock::date;
use crate::config::{Key, Loaded, Paths};
use crate::ctl::edit_lock::EditLock;
use crate::ctl::revoke::{self, KeyEnd};
use crate::ctl::{Failure, say, words};
use crate::files::Existing;
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::KeyName;
use std::collections::BTreeMap;

/// What has ended here opens by a copy still.
pub fn warn_of_copies(directory: &KeyDirectory<'_>, name: &KeyName, copies: &[KeyName]) {
    for copy in copies {
        say(format_args!(
            "warning: a secret of key {name} stands in the file of key {copy} too, and opens by that: {} key remove {copy}",
            directory.paths.ctl()
        ));
    }
}

/// A port sequence has no key: who had it in an invitation has it still.
pub fn warn_of_sequence(directory: &KeyDirectory<'_>, name: &KeyName, key: Option<&Key>) {
    let Some(sequence) = &directory.config.sequence else {
        return;
    };
    // A rolling one follows from the secret. Of a key that cannot be read anything may be so.
    let had = key.is_none_or(|key| key.policy.services.contains(&sequence.service));
    if sequence.fixed().is_empty() || !had {
        return;
    }
    let ctl = directory.paths.ctl();
    say(format_args!(
        "whoever has had key {name} still knows the port sequence, which opens {}",
        sequence.service
    ));
    say(format_args!(
        "hint: change ports in [sequence] of {}, then: {ctl} reload; then give every other client a new invitation: {ctl} key invite NAME",
        directory.paths.main_file().display()
    ));
}

/// The last key that opens may have gone.
fn warn_of_no_key(paths: &Paths) {
    let loaded = Loaded::at_start(paths);
    if loaded.is_ok_and(|loaded| !loaded.settings.has_key_at(KeyDirectory::now())) {
        say(format_args!("{} any more", words::NO_KEY));
        say(format_args!("hint: {} key add NAME", paths.ctl()));
    }
}

pub fn write(directory: &KeyDirectory<'_>, lock: &EditLock, key: &Key) -> Result<(), Failure> {
    let content = (&key.policy, &key.generations[..]);
    let written = directory.write(lock, &key.name, content, Existing::Replace);
    written.map_err(|error| Failure::io(&directory.path(&key.name), &error))
}

#[derive(Debug, clap::Args)]
pub struct Retire {
    /// The key's name.
    name: KeyName,
    /// The generation to end; several times for several [default: all but the newest].
    #[arg(long = "generation", value_name = "NUMBER")]
    generations: Vec<u32>,
    /// Also end the connections that these generations have let in, those too whose grant
    /// expired long ago, and of others behind the same address
    #[arg(long)]
    disconnect: bool,
    /// Also where nothing would be left that is known to work for those who use the key.
    #[arg(long)]
    force: bool,
}

impl Retire {
    pub fn run(&self, paths: &Paths) -> Result<(), Failure> {
        let (name, directory) = (&self.name, KeyDirectory::open_to_end(paths)?);
        let lock = EditLock::wait(directory.paths)?;
        let mut key = directory.load(name)?;
        let copies = directory.copies_of(&key);
        let now = KeyDirectory::now();
        let generations = generations(&directory, &key, self.force)?;
        let newest = generations.last_number();
        let numbers: Vec<u32> = if self.generations.is_empty() {
            let all = key.generations.iter().map(|g| g.number);
            all.filter(|number| *number != newest).collect()
        } else {
            self.generations.clone()
        };
        if let Some(unknown) = numbers.iter().find(|number| **number > newest) {
            let what = format!("key {name} has no generation {unknown}");
            return Err(Failure::Usage(what, None));
        }
        let done = generations.retire(&numbers, now);
        if done.locks_out && !self.force {
            let what = format!(
                "key {name} is in use, and no other generation of it is known to work: nothing was changed"
            );
            let hint = "use the newer one once, then again; or --force";
            return Err(Failure::Refused(what, Some(hint.into())));
        }
        let goes_on = done.goes_on;
        let is_done = done.ended.is_empty();
        // What had ended by this clock may have an end that is still to come by another.
        let is_as_it_was = is_done && done.generations == generations.in_file();
        if !is_as_it_was {
            key.generations = done.generations;
            if key.generations.is_empty() {
                let what = format!("key {name} would have no generation left");
                let hint = format!("{} key remove {name}", paths.ctl());
                return Err(Failure::Refused(what, Some(hint)));
            }
            write(&directory, &lock, &key)?;
        }
        drop(lock);
        let list = |numbers: &[u32]| {
            let texts: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            texts.join(", ")
        };
        // The call that ended it may have died before it could tell the daemon.
        let what = if !is_done {
            format!("ended key {name}'s generation {}", list(&done.ended))
        } else if numbers.is_empty() {
            format!("nothing to do: key {name} has no older generation")
        } else if !is_as_it_was {
            let listed = list(&numbers);
            format!(
                "key {name}'s generation {listed} had ended before by this machine's clock, and now has by any that is later than its last use"
            )
        } else {
            let listed = list(&numbers);
            format!("nothing to do: key {name}'s generation {listed} had ended before")
        };
        let ends = (!numbers.is_empty()).then_some(KeyEnd {
            generations: numbers,
            disconnect: self.disconnect,
        });
        let told = revoke::tell(paths, name, &what, ends.as_ref());
        warn_of_copies(&directory, name, &copies);
        warn_of_no_key(paths);
        if let Some(number) = goes_on {
            say(format_args!(
                "generation {number} goes on as before that rotation, which nobody is known to have used"
            ));
        } else if !is_done {
            warn_of_last(&directory, &key, now);
        }
        told
    }
}

/// What is left may have been replaced by what has ended now.
fn warn_of_last(directory: &KeyDirectory<'_>, key: &Key, now: Timestamp) {
    let left = Generations::of(key, &directory.config.server_id, &BTreeMap::new());
    let Some((number, end)) = left.newest(now).and_then(|known| {
        let generation = &known.generation;
        Some((generation.number, generation.overlap_until?))
    }) else {
        return;
    };
    say(format_args!(
        "generation {number} works until {} at most, and no newer one is left",
        date(end)
    ));
    say(format_args!(
        "hint: {} key rotate {}",
        directory.paths.ctl(),
        key.name
    ));
}

/// What cannot be seen is no hindrance to who insists.
fn generations(
    directory: &KeyDirectory<'_>,
    key: &Key,
    force: bool,
) -> Result<Generations, Failure> {
    let uses = match directory.uses() {
        Ok(uses) => uses,
        Err(_) if force => BTreeMap::new(),
        Err(Failure::Failed(what, _)) => {
            return Err(Failure::Failed(
                what,
                Some("--force does it all the same".into()),
            ));
        }
        Err(other) => return Err(other),
    };
    Ok(Generations::of(key, &directory.config.server_id, &uses))
}

#[derive(Debug, clap::Args)]
pub struct Remove {
    /// The key's name.
    name: KeyName,
    /// Also end the connections that the key has let in, those too whose grant expired long
    /// ago, and of others behind the same address
    #[arg(long)]
    disconnect: bool,
    /// Also where the key is in use; and where its file cannot be read.
    #[arg(long)]
    force: bool,
}

impl Remove {
    pub fn run(&self, paths: &Paths) -> Result<(), Failure> {
        let (name, directory) = (&self.name, KeyDirectory::open_to_end(paths)?);
        let lock = EditLock::wait(directory.paths)?;
        let ends = KeyEnd {
            generations: Vec::new(),
            disconnect: self.disconnect,
        };
        if self.force && directory.path(name).symlink_metadata().is_err() {
            // An earlier call may have removed it, and told nobody.
            let what = format!("key {name} is gone");
            revoke::tell(paths, name, &what, Some(&ends))?;
            return Err(directory.no_key(name));
        }
        let key = match directory.load(name) {
            Err(_) if self.force => None,
            loaded => Some(loaded?),
        };
        if let Some(key) = key.as_ref().filter(|_| !self.force)
            && generations(&directory, key, false)?.is_in_use(KeyDirectory::now())
        {
            let what = format!("key {name} is in use: nothing was changed");
            let hint = format!(
                "\"{ctl} key show {name}\" says since when and from where; \"{ctl} key remove {name} --force\" removes it all the same",
                ctl = paths.ctl()
            );
            return Err(Failure::Refused(what, Some(hint)));
        }
        let copies = key
            .as_ref()
            .map_or(Vec::new(), |key| directory.copies_of(key));
        directory.remove(&lock, name)?;
        drop(lock);
        let told = revoke::tell(paths, name, &format!("removed key {name}"), Some(&ends));
        warn_of_copies(&directory, name, &copies);
        warn_of_sequence(&directory, name, key.as_ref());
        warn_of_no_key(paths);
        told
    }
}
