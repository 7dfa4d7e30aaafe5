//! `oneknockctl key rotate`, `retire` and `remove`.

use super::folder::{Folder, Turn};
use super::life::{Life, Limit, NotRotated};
use super::moment::Moment;
use super::{give, invite};
use crate::clock::date;
use crate::config::{Generation, Key, Paths, Usable};
use crate::ctl::revoke::{self, KeyEnd};
use crate::ctl::{Failure, say, span_of_time, words};
use crate::files::Existing;
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::KeyName;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::str::FromStr;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct Rotate {
    /// The key's name.
    name: KeyName,
    /// How long the old generation works on at the most, such as 7d.
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = overlap)]
    overlap: Duration,
    /// For a leaked key: forget the old secrets at once, and close what the key opened.
    #[arg(long, conflicts_with = "overlap")]
    now: bool,
    /// Also end the connections that the key has let in, those too whose grant was over long
    /// ago, and of others behind the same address.
    #[arg(long, requires = "now")]
    cut: bool,
    /// When the new generation ends: a time in UTC such as 2027-01-31T08:00:00Z, or from
    /// now such as 90d, or never [default: when the one that it replaces would have].
    #[arg(long, value_name = "TIME")]
    not_after: Option<End>,
}

#[derive(Debug, Clone, Copy)]
struct End(Option<Moment>);

impl FromStr for End {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "never" {
            return Ok(Self(None));
        }
        text.parse().map(|moment| Self(Some(moment)))
    }
}

fn overlap(text: &str) -> Result<Duration, String> {
    let time = span_of_time(text)?;
    let (least, most) = (Duration::from_secs(1), Duration::from_secs(366 * 24 * 3600));
    if (least..=most).contains(&time) {
        Ok(time)
    } else {
        Err("must be from 1s to 366d; --now leaves the old no time at all".into())
    }
}

impl Rotate {
    pub fn run(&self, paths: &Paths) -> Result<(), Failure> {
        let name = &self.name;
        let folder = if self.now {
            Folder::open_to_end(paths)?
        } else {
            Folder::open(paths)?
        };
        let turn = folder.turn()?;
        let mut key = folder.load(name)?;
        let copies = folder.copies_of(&key);
        let now = Folder::now();
        let last = key.generations.iter().map(|g| g.number).max().unwrap_or(0);
        let number = last
            .checked_add(1)
            .ok_or_else(|| Failure::new(name, "it has no number left for a generation"))?;
        let new = Generation::generate(number, now);
        let new = new.map_err(|e| Failure::new("cannot make a secret", e))?;
        // Who cannot see what was used drops nothing but by --now.
        let uses = if self.now {
            folder.uses().unwrap_or_default()
        } else {
            folder.uses()?
        };
        let limit = match self.not_after {
            None => Limit::Inherited,
            Some(End(end)) => Limit::Until(end.map(|moment| moment.after(now))),
        };
        if matches!(limit, Limit::Until(Some(end)) if end <= now) {
            let what = "--not-after must be later than now";
            return Err(Failure::Usage(what.into(), None));
        }
        let overlap = (!self.now).then_some(self.overlap);
        let life = Life::of(&key, &folder.config.server_id, &uses);
        let rotated = life.rotate(new, overlap, limit, now);
        let hint = "say when the new generation ends: --not-after TIME, or --not-after never";
        key.generations = rotated.map_err(|why| {
            let what = match why {
                NotRotated::Ended => format!("key {name} has ended"),
                NotRotated::EndsFirst => format!("key {name} would end before it begins"),
            };
            Failure::Usage(what, Some(hint.into()))
        })?;
        let invitation = invite::line(&folder.config, &key)?;
        write(&folder, &turn, &key)?;
        drop(turn);
        let how = if self.now { ", at once" } else { "" };
        let what = format!("rotated key {name} to generation {number}{how}");
        let ends = self.now.then_some(KeyEnd {
            generations: Vec::new(),
            disconnect: self.cut,
        });
        let told = revoke::tell(paths, name, &what, ends.as_ref());
        if self.now {
            warn_of_copies(&folder, name, &copies);
            warn_of_sequence(&folder, name, Some(&key));
        }
        if !folder.mistakes.is_empty() {
            told?;
            let what = "there is no invitation yet: it is made from oneknockd.toml";
            let hint = format!("mend that, then: {} key invite {name}", paths.ctl());
            return Err(Failure::Failed(what.into(), Some(hint)));
        }
        give(paths, name, &invitation, told)?;
        let older = key.generations.iter().rev().skip(1);
        let ends = older.filter_map(|g| Some((g.number, g.end().filter(|end| *end > now)?)));
        for (number, end) in ends {
            say(format_args!(
                "generation {number} works until {} at the most",
                date(end)
            ));
        }
        if self.now {
            say(
                "until it has imported that invitation, the client does not get in (oneknock import --replace)",
            );
        }
        // "oneknock rotate" brings it over by itself.
        if io::stdout().is_terminal() {
            say(
                "hint: the line just printed holds the new secret: bring it to the client unseen; the first use of it ends the old one soon (rotation_grace)",
            );
        }
        Ok(())
    }
}

/// What has ended here opens by a copy still.
fn warn_of_copies(folder: &Folder<'_>, name: &KeyName, copies: &[KeyName]) {
    for copy in copies {
        say(format_args!(
            "warning: a secret of key {name} stands in the file of key {copy} too, and opens by that: {} key remove {copy}",
            folder.paths.ctl()
        ));
    }
}

/// A port sequence has no key: who had it in an invitation has it still.
fn warn_of_sequence(folder: &Folder<'_>, name: &KeyName, key: Option<&Key>) {
    let Some(sequence) = &folder.config.sequence else {
        return;
    };
    // A rolling one follows from the secret. Of a key that cannot be read anything may be so.
    let had = key.is_none_or(|key| key.policy.services.contains(&sequence.service));
    if sequence.fixed().is_empty() || !had {
        return;
    }
    let ctl = folder.paths.ctl();
    say(format_args!(
        "whoever has had key {name} still knows the port sequence, which opens {}",
        sequence.service
    ));
    say(format_args!(
        "hint: change ports in [sequence] of {}, then: {ctl} reload; then give every other client a new invitation: {ctl} key invite NAME",
        folder.paths.main_file().display()
    ));
}

/// The last key that opens may have gone.
fn warn_of_no_key(paths: &Paths) {
    let nobody = match Usable::load(paths) {
        Ok(usable) => !usable.settings.has_key_at(Folder::now()),
        // What is left has mistakes.
        Err(_) => Folder::open(paths)
            .and_then(|folder| folder.load_all())
            .is_ok_and(|(keys, _)| keys.is_empty()),
    };
    if nobody {
        say(format_args!("{} any more", words::NO_KEY));
        say(format_args!("hint: {} key add NAME", paths.ctl()));
    }
}

fn write(folder: &Folder<'_>, turn: &Turn, key: &Key) -> Result<(), Failure> {
    let content = (&key.policy, &key.generations[..]);
    let written = folder.write(turn, &key.name, content, Existing::Replace);
    written.map_err(|error| Failure::io(&folder.path(&key.name), &error))
}

#[derive(Debug, clap::Args)]
pub struct Retire {
    /// The key's name.
    name: KeyName,
    /// The generation to end; several times for several [default: all but the newest].
    #[arg(long = "generation", value_name = "NUMBER")]
    generations: Vec<u32>,
    /// Also end the connections that these generations have let in, those too whose grant was
    /// over long ago, and of others behind the same address.
    #[arg(long)]
    cut: bool,
    /// Also where nothing would be left that is known to work for those who use the key.
    #[arg(long)]
    force: bool,
}

impl Retire {
    pub fn run(&self, paths: &Paths) -> Result<(), Failure> {
        let (name, folder) = (&self.name, Folder::open_to_end(paths)?);
        let turn = folder.turn()?;
        let mut key = folder.load(name)?;
        let copies = folder.copies_of(&key);
        let now = Folder::now();
        let life = life(&folder, &key, self.force)?;
        let newest = life.0.last().map_or(0, |known| known.generation.number);
        let numbers: Vec<u32> = if self.generations.is_empty() {
            let all = life.0.iter().map(|known| known.generation.number);
            all.filter(|number| *number != newest).collect()
        } else {
            self.generations.clone()
        };
        if let Some(unknown) = numbers.iter().find(|number| **number > newest) {
            let what = format!("key {name} has no generation {unknown}");
            return Err(Failure::Usage(what, None));
        }
        let done = life.retire(&numbers, now);
        if done.locks_out && !self.force {
            let what = format!(
                "key {name} is in use, and no other generation of it is known to work: nothing was changed"
            );
            let hint = "use the newer one once, then again; or --force";
            return Err(Failure::Usage(what, Some(hint.into())));
        }
        let goes_on = done.goes_on;
        let is_done = done.ended.is_empty();
        // What had ended by this clock may have an end that is still to come by another.
        let is_as_it_was = is_done && done.generations == life.generations();
        if !is_as_it_was {
            key.generations = done.generations;
            if key.generations.is_empty() {
                let what = format!("key {name} would have no generation left");
                let hint = format!("{} key remove {name}", paths.ctl());
                return Err(Failure::Usage(what, Some(hint)));
            }
            write(&folder, &turn, &key)?;
        }
        drop(turn);
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
            disconnect: self.cut,
        });
        let told = revoke::tell(paths, name, &what, ends.as_ref());
        warn_of_copies(&folder, name, &copies);
        warn_of_no_key(paths);
        if let Some(number) = goes_on {
            say(format_args!(
                "generation {number} goes on as before that rotation, which nobody is known to have used"
            ));
        } else if !is_done {
            warn_of_last(&folder, &key, now);
        }
        told
    }
}

/// What is left may have been replaced by what has ended now.
fn warn_of_last(folder: &Folder<'_>, key: &Key, now: Timestamp) {
    let life = Life::of(key, &folder.config.server_id, &BTreeMap::new());
    let Some((number, end)) = life.newest(now).and_then(|known| {
        let generation = &known.generation;
        Some((generation.number, generation.overlap_until?))
    }) else {
        return;
    };
    say(format_args!(
        "generation {number} works until {} at the most, and no newer one is left",
        date(end)
    ));
    say(format_args!(
        "hint: {} key rotate {}",
        folder.paths.ctl(),
        key.name
    ));
}

/// What cannot be seen is no hindrance to who insists.
fn life(folder: &Folder<'_>, key: &Key, force: bool) -> Result<Life, Failure> {
    let uses = match folder.uses() {
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
    Ok(Life::of(key, &folder.config.server_id, &uses))
}

#[derive(Debug, clap::Args)]
pub struct Remove {
    /// The key's name.
    name: KeyName,
    /// Also end the connections that the key has let in, those too whose grant was over long
    /// ago, and of others behind the same address.
    #[arg(long)]
    cut: bool,
    /// Also where the key is in use; and where its file cannot be read.
    #[arg(long)]
    force: bool,
}

impl Remove {
    pub fn run(&self, paths: &Paths) -> Result<(), Failure> {
        let (name, folder) = (&self.name, Folder::open_to_end(paths)?);
        let turn = folder.turn()?;
        let ends = KeyEnd {
            generations: Vec::new(),
            disconnect: self.cut,
        };
        if self.force && folder.path(name).symlink_metadata().is_err() {
            // An earlier call may have removed it, and told nobody.
            revoke::tell(paths, name, &format!("key {name} is gone"), Some(&ends))?;
            return Err(folder.no_key(name));
        }
        let key = match folder.load(name) {
            Err(_) if self.force => None,
            loaded => Some(loaded?),
        };
        if let Some(key) = key.as_ref().filter(|_| !self.force)
            && life(&folder, key, false)?.is_in_use(Folder::now())
        {
            let what = format!("key {name} is in use: nothing was changed");
            let hint = format!(
                "\"{ctl} key show {name}\" says since when and from where; \"{ctl} key remove {name} --force\" removes it all the same",
                ctl = paths.ctl()
            );
            return Err(Failure::Usage(what, Some(hint)));
        }
        let copies = key.as_ref().map_or(Vec::new(), |key| folder.copies_of(key));
        folder.remove(&turn, name)?;
        drop(turn);
        let told = revoke::tell(paths, name, &format!("removed key {name}"), Some(&ends));
        warn_of_copies(&folder, name, &copies);
        warn_of_sequence(&folder, name, key.as_ref());
        warn_of_no_key(paths);
        told
    }
}
