//! `oneknockctl log`: what was granted, what was denied, and with `--follow` what happens.

mod clock_skew;
mod denied;
mod follow;
mod granted;
mod text;
mod view;

use super::output::{print_json, print_lines, say};
use super::{Failure, check_readable};
use crate::clock::Clock;
use crate::config::{Loaded, Paths};
use crate::control::protocol::Selection;
use denied::Denied;
use oneknock_shared::knock::Timestamp;
use serde_json::json;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct Log {
    /// The name of a key, also of one that was removed, or an address [default: all]
    #[arg(value_name = "KEY|ADDRESS")]
    of: Option<Selection>,
    /// Denied knocks alone, each with the reason and what to do
    #[arg(long)]
    denied: bool,
    /// What lasted or came within this time, such as 12h or 7d [default: all]
    #[arg(long, value_name = "TIME", value_parser = super::span_of_time, conflicts_with = "follow")]
    since: Option<Duration>,
    /// The active grants, and then what happens, until Ctrl-C
    ///
    /// On a terminal it is a view of the grants, counting down, and of the last events. The port
    /// sequence reports no events: "oneknockctl grants" lists what it has opened.
    #[arg(long, short)]
    follow: bool,
    /// Print one JSON object: version, grants (opened, ended, how, key, generation, service,
    /// address, knocks), denied (at, event, key, address, authenticated, service, seconds,
    /// generation, reason, ahead_seconds, times), unknown (at, address, selector, times),
    /// denied_is_known, denied_truncated, waits_for_clock
    ///
    /// With --follow an object a line, with version and either the members of an event as above,
    /// whose event is open, granted, closed, expired, revoked, refused, ignored, failed or
    /// retiring, or dropped, the number of events that were dropped. A time at is that of
    /// the packet; ahead_seconds is how far the client's clock is ahead; authenticated says
    /// whether the address is the key holder's for certain.
    #[arg(long)]
    pub(super) json: bool,
}

impl Log {
    pub fn run(&self, paths: &Paths) -> Result<(), Failure> {
        if self.follow {
            return follow::follow(paths, self);
        }
        let of = self.of.as_ref().unwrap_or(&Selection::All);
        let now = Clock::start().now();
        let since = self.since.map_or(0, |since| {
            let since = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            now.wall.0.saturating_sub(since)
        });
        let granted = if self.denied {
            Vec::new()
        } else {
            check_readable(paths)?;
            granted::read(paths, of, Timestamp(since))?
        };
        let denied = Denied::ask(paths, of, since, self.denied)?;
        if let Selection::Key(key) = of
            && granted.is_empty()
            && denied.is_empty()
            && !is_known(paths, of, key)
        {
            return Err(super::no_key(paths, key));
        }
        if self.json {
            let grants: Vec<_> = granted.iter().map(granted::json).collect();
            let mut object = denied.json()?;
            object["grants"] = json!(grants);
            return print_json(&object);
        }
        let granted = granted.iter().map(|row| (row.opened.0, granted::line(row)));
        let mut lines: Vec<(u64, String)> = granted.chain(denied.lines()).collect();
        lines.sort_by_key(|(at, _)| *at);
        if lines.is_empty() {
            let what = if self.denied {
                "no knock was denied"
            } else {
                "nothing happened"
            };
            say(format_args!("note: {what} ({of})"));
        }
        let lines: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
        print_lines(&lines)?;
        denied.say_what_is_missing(paths, of);
        Ok(())
    }
}

/// Whether there is a key of that name, or was one; also where that cannot be seen.
fn is_known(paths: &Paths, of: &Selection, key: &oneknock_shared::name::KeyName) -> bool {
    let Ok(Loaded { settings, .. }) = Loaded::at_start(paths) else {
        return true;
    };
    settings.keys.iter().any(|known| known.name == *key)
        || paths.key_file(key.as_str()).symlink_metadata().is_ok()
        || granted::read(paths, of, Timestamp(0)).is_ok_and(|rows| !rows.is_empty())
}
