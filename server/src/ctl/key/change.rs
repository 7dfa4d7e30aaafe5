//! `oneknockctl key rotate`, `retire` and `remove`.

use super::folder::{Folder, Turn};
use super::invite;
use super::life::{Ended, Life, Limit};
use super::moment::Moment;
use crate::clock::date;
use crate::config::{Generation, Key, ctl_command};
use crate::control::protocol::Who;
use crate::ctl::{Failure, control, print, span_of_time};
use crate::files::Existing;
use oneknock_shared::name::KeyName;
use std::io::{self, IsTerminal};
use std::path::Path;
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
    pub fn run(&self, dir: &Path) -> Result<(), Failure> {
        let (name, folder) = (&self.name, Folder::open(dir)?);
        let turn = folder.turn()?;
        let mut key = folder.load(name)?;
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
        key.generations = rotated.map_err(|Ended| {
            let hint = "say when the new generation ends: --not-after TIME, or --not-after never";
            Failure::Usage(format!("key {name} has ended"), Some(hint.into()))
        })?;
        write(&folder, &turn, &key)?;
        drop(turn);
        print(&invite::line(&folder.config, &key)?)?;
        let older = key.generations.iter().rev().skip(1);
        let ends = older.filter_map(|g| Some((g.number, g.not_after.filter(|end| *end > now)?)));
        for (number, end) in ends {
            eprintln!("generation {number} works until {} at the most", date(end));
        }
        // "oneknock rotate" brings it over by itself.
        if io::stdout().is_terminal() {
            eprintln!(
                "hint: the line just printed holds the new secret: bring it to the client unseen; the first use of it ends the old one soon (rotation_grace)"
            );
        }
        let how = if self.now { ", at once" } else { "" };
        let what = format!("rotated key {name} to generation {number}{how}");
        control::tell(dir, &what, self.now)?;
        self.cut_off(dir)
    }

    fn cut_off(&self, dir: &Path) -> Result<(), Failure> {
        if !self.cut {
            return Ok(());
        }
        control::cut(dir, Some(&Who::Key(self.name.clone())), None)
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
    /// Also end the connections that these generations have let in, those too whose grant was over long
    /// ago, and of others behind the same address.
    #[arg(long)]
    cut: bool,
    /// Also where nothing would be left that is known to work for those who use the key.
    #[arg(long)]
    force: bool,
}

impl Retire {
    pub fn run(&self, dir: &Path) -> Result<(), Failure> {
        let (name, folder) = (&self.name, Folder::open(dir)?);
        let turn = folder.turn()?;
        let mut key = folder.load(name)?;
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
        if done.ended.is_empty() {
            eprintln!("nothing to do: it had ended before");
            return self.cut_off(dir, &numbers);
        }
        key.generations = done.generations;
        if key.generations.is_empty() {
            let what = format!("key {name} would have no generation left");
            let hint = format!("{} key remove {name}", ctl_command(dir));
            return Err(Failure::Usage(what, Some(hint)));
        }
        write(&folder, &turn, &key)?;
        drop(turn);
        let ended: Vec<String> = done.ended.iter().map(ToString::to_string).collect();
        let what = format!("ended key {name}'s generation {}", ended.join(", "));
        control::tell(dir, &what, true)?;
        self.cut_off(dir, &numbers)
    }

    fn cut_off(&self, dir: &Path, numbers: &[u32]) -> Result<(), Failure> {
        if !self.cut {
            return Ok(());
        }
        let who = Who::Key(self.name.clone());
        let mut numbers = numbers.iter();
        numbers.try_for_each(|number| control::cut(dir, Some(&who), Some(*number)))
    }
}

/// What cannot be seen is no hindrance to who insists.
fn life(folder: &Folder<'_>, key: &Key, force: bool) -> Result<Life, Failure> {
    let uses = match folder.uses() {
        Ok(uses) => uses,
        Err(_) if force => std::collections::BTreeMap::new(),
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
    pub fn run(&self, dir: &Path) -> Result<(), Failure> {
        let (name, folder) = (&self.name, Folder::open(dir)?);
        let turn = folder.turn()?;
        if !self.force {
            let key = folder.load(name)?;
            if life(&folder, &key, false)?.is_in_use(Folder::now()) {
                let what = format!("key {name} is in use: nothing was changed");
                let hint = format!(
                    "\"{ctl} key show {name}\" says since when and from where; \"{ctl} key remove {name} --force\" removes it all the same",
                    ctl = ctl_command(dir)
                );
                return Err(Failure::Usage(what, Some(hint)));
            }
        }
        folder.remove(&turn, name)?;
        drop(turn);
        control::tell(dir, &format!("removed key {name}"), true)?;
        if self.cut {
            return control::cut(dir, Some(&Who::Key(name.clone())), None);
        }
        Ok(())
    }
}
