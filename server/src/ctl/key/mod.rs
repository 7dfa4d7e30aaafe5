//! `oneknockctl key …`.

mod add;
mod change;
mod directory;
mod generations;
mod invite;
mod list;
mod moment;
mod rotate;

pub use directory::{KeyDirectory, OWN_KEY};

use super::{Failure, print};
use crate::config::Paths;
use clap::Subcommand;
use oneknock_shared::name::KeyName;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key; print its invitation, one line that holds the secret.
    ///
    /// Bring the line to the client by a way that nobody reads, and give it to
    /// "oneknock import" there. A running daemon loads the key at once, and nothing else that
    /// has changed in its configuration: that waits for "oneknockctl reload" or SIGHUP.
    Add(add::Add),
    /// List the keys: their generations, how these are, and when they were last used.
    ///
    /// A generation is one secret of a key: 1 is the one that "key add" made. A key that is
    /// being rotated has two for a while, and both open.
    List {
        /// Print one JSON object: version, keys (what "key show --json" prints of each, and
        /// in_force: whether the daemon has loaded the key's file as it is now)
        #[arg(long)]
        json: bool,
    },
    /// Show a key: what it may do, and its generations.
    ///
    /// All but its secrets: "key invite" prints the newest.
    Show {
        /// The key's name.
        name: KeyName,
        /// Print one JSON object: version, key, services, max_duration (seconds),
        /// require_signed_address, allow_other_addresses, max_grants, knocks_per_minute,
        /// generations (number, state: not-yet-valid, active, retiring or expired; made,
        /// not_before, until, used, used_from)
        #[arg(long)]
        json: bool,
    },
    /// Print a key's invitation again: that of its newest generation that has not ended.
    Invite {
        /// The key's name.
        name: KeyName,
        /// As a QR code too, above the line; some 50 lines high.
        #[arg(long)]
        qr: bool,
    },
    /// Give a key a new secret; print its invitation, one line.
    ///
    /// "key invite" prints the line again, where it was lost.
    ///
    /// Both secrets open until the old one's time is over. When the new one is first used
    /// the old one's end is brought forward, to a day from then unless
    /// oneknockd.toml says otherwise, for the owner's other devices. A rotation whose secret
    /// was never used is dropped by the next one. A key has two secrets at most: where both are
    /// in use a rotation is refused, or with --force drops the older one.
    ///
    /// With --now what the key has opened is closed too, also where no daemon runs.
    ///
    /// From the client, "oneknock rotate PROFILE" does all of it.
    Rotate(rotate::Rotate),
    /// End old generations of a key now, and close what they opened.
    ///
    /// The daemon closes it, and where none runs this call. Without --disconnect established sessions
    /// live on.
    ///
    /// Refused where the key is in use and would be left without a generation that has been
    /// seen to work. A generation that has ended already is no error. Its end is set to when it
    /// was last used, or made, so that it has ended by a clock that is put right later too.
    /// Where a rotation is ended that nobody has used, the generation before it goes on as if
    /// there had been none.
    Retire(change::Retire),
    /// Remove a key, and close what it opened.
    ///
    /// The daemon closes it, whatever else is invalid, and where none runs this call.
    ///
    /// Refused where the key is in use: a generation of it that works has been used.
    /// Without --disconnect established sessions live on.
    Remove(change::Remove),
}

impl Command {
    pub fn run(&self, paths: &Paths) -> Result<(), Failure> {
        match self {
            Self::Add(add) => add.run(paths),
            Self::List { json } => list::list(paths, *json),
            Self::Show { name, json } => list::show(paths, name, *json),
            Self::Invite { name, qr } => invite::invite(paths, name, *qr),
            Self::Rotate(rotate) => rotate.run(paths),
            Self::Retire(retire) => retire.run(paths),
            Self::Remove(remove) => remove.run(paths),
        }
    }
}

/// Prints the invitation of a key that was made or rotated: after the daemon was told, so
/// that a reader who is gone does not keep a leaked secret in force. Both are done, whatever
/// becomes of the other.
fn give(
    paths: &Paths,
    name: &KeyName,
    line: &str,
    told: Result<(), Failure>,
) -> Result<(), Failure> {
    let printed = print(line).map_err(|failure| {
        let hint = format!(
            "\"{} key invite {name}\" prints the invitation again",
            paths.ctl()
        );
        failure.with_hint(hint)
    });
    match (told, printed) {
        (Err(told), Err(printed)) => {
            printed.say();
            Err(told)
        }
        (told, printed) => told.and(printed),
    }
}
