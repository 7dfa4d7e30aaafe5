//! `oneknockctl key rotate`.

use super::change::{warn_of_copies, warn_of_sequence, write};
use super::directory::KeyDirectory;
use super::generations::{Generations, Limit, NotRotated};
use super::moment::Moment;
use super::{give, invite};
use crate::clock::date;
use crate::config::{Generation, Paths};
use crate::ctl::edit_lock::EditLock;
use crate::ctl::revoke::{self, KeyEnd};
use crate::ctl::{Failure, say, span_of_time};
use oneknock_shared::name::KeyName;
use std::io::{self, IsTerminal};
use std::str::FromStr;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct Rotate {
    /// The key's name.
    name: KeyName,
    /// How long the old generation works on at most, such as 7d
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = overlap)]
    overlap: Duration,
    /// For a leaked key: forget the old secrets at once, and close what the key opened.
    #[arg(long, conflicts_with = "overlap")]
    now: bool,
    /// Also end the connections that the key has let in, those too whose grant was over long
    /// ago, and of others behind the same address.
    #[arg(long, requires = "now")]
    disconnect: bool,
    /// When the new generation ends: a time in UTC such as 2027-01-31T08:00:00Z, or from
    /// now such as 90d, or never [default: when the one that it replaces would have].
    #[arg(long, value_name = "TIME")]
    not_after: Option<End>,
    /// Also where two generations are in use: the older one is dropped.
    #[arg(long)]
    force: bool,
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
        let directory = if self.now {
            KeyDirectory::open_to_end(paths)?
        } else {
            KeyDirectory::open(paths)?
        };
        let lock = EditLock::wait(directory.paths)?;
        let mut key = directory.load(name)?;
        let copies = directory.copies_of(&key);
        let now = KeyDirectory::now();
        let last = key.generations.iter().map(|g| g.number).max().unwrap_or(0);
        let number = last
            .checked_add(1)
            .ok_or_else(|| Failure::new(name, "it has no number left for a generation"))?;
        let new = Generation::generate(number, now);
        let new = new.map_err(|e| Failure::new("cannot make a secret", e))?;
        // Who cannot see what was used drops nothing but by --now.
        let uses = if self.now {
            directory.uses().unwrap_or_default()
        } else {
            directory.uses()?
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
        let server = &directory.config.server_id;
        let before = Generations::of(&key, server, &uses);
        let rotated = before.clone().rotate(new, overlap, limit, self.force, now);
        key.generations = rotated.map_err(|why| self.refused(paths, why))?;
        let is_dropped =
            |g: &&Generation| !key.generations.iter().any(|kept| kept.number == g.number);
        let dropped = before.in_file();
        let dropped = dropped.iter().filter(is_dropped).map(|g| g.number);
        let dropped: Vec<u32> = dropped.collect();
        let invitation = invite::line(&directory.config, &key)?;
        write(&directory, &lock, &key)?;
        drop(lock);
        let how = if self.now { ", at once" } else { "" };
        let what = format!("rotated key {name} to generation {number}{how}");
        let is_end = self.now || !dropped.is_empty();
        let ends = is_end.then(|| KeyEnd {
            // What a secret that is gone has opened, and all of a key that has leaked.
            generations: if self.now { Vec::new() } else { dropped },
            disconnect: self.disconnect,
        });
        let told = revoke::tell(paths, name, &what, ends.as_ref());
        if self.now {
            warn_of_copies(&directory, name, &copies);
            warn_of_sequence(&directory, name, Some(&key));
        }
        if !directory.errors.is_empty() {
            told?;
            let what = "there is no invitation yet: it is made from oneknockd.toml";
            let hint = format!("fix that, then: {} key invite {name}", paths.ctl());
            return Err(Failure::Failed(what.into(), Some(hint)));
        }
        give(paths, name, &invitation, told)?;
        let older = key.generations.iter().rev().skip(1);
        let ends = older.filter_map(|g| Some((g.number, g.end().filter(|end| *end > now)?)));
        for (number, end) in ends {
            say(format_args!(
                "generation {number} works until {} at most",
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

    fn refused(&self, paths: &Paths, why: NotRotated) -> Failure {
        let (name, ctl) = (&self.name, paths.ctl());
        let when = "say when the new generation ends: --not-after TIME, or --not-after never";
        let (what, hint) = match why {
            NotRotated::Ended => (format!("key {name} has ended"), when.into()),
            NotRotated::EndsFirst => (
                format!("key {name} would end before it begins"),
                when.into(),
            ),
            NotRotated::BothInUse => (
                format!(
                    "key {name} has two generations that are in use, and cannot have a third: nothing was changed"
                ),
                format!(
                    "\"{ctl} key retire {name}\" ends the older one; --force drops it, and shuts out who uses it"
                ),
            ),
        };
        if matches!(why, NotRotated::BothInUse) {
            return Failure::Refused(what, Some(hint));
        }
        Failure::Usage(what, Some(hint))
    }
}
