//! `oneknockctl key …`.

mod add;
mod change;
mod folder;
mod invite;
mod life;
mod list;
mod moment;

pub use folder::Folder;

use super::Failure;
use clap::Subcommand;
use oneknock_shared::name::KeyName;
use std::path::Path;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key; print its invitation, one line that holds the secret.
    ///
    /// Bring the line to the client by a way that nobody reads, and give it to
    /// "oneknock import" there. A running daemon takes the key at once, with all else that
    /// has changed in its configuration, as on "oneknockctl reload" or SIGHUP.
    Add(add::Add),
    /// List the keys: their generations, how these are, and when they were last used.
    ///
    /// A generation is one secret of a key: 1 is the one that "key add" made. A key that is
    /// being rotated has two for a while, and both open.
    List {
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Show a key: what it may do, and its generations.
    Show {
        /// The key's name.
        name: KeyName,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Print a key's invitation again: that of its newest generation.
    Invite {
        /// The key's name.
        name: KeyName,
        /// As a QR code too, above the line; some 50 lines high.
        #[arg(long)]
        qr: bool,
    },
    /// Give a key a new secret; print its invitation, one line.
    ///
    /// Both secrets open until the old one's time is over. When the new one is first used
    /// the old one's end is brought forward, to a day from then unless
    /// oneknockd.toml says otherwise, for the owner's other devices. A rotation whose secret was never used is
    /// dropped by the next one.
    ///
    /// From the client, "oneknock rotate DOOR" does all of it.
    Rotate(change::Rotate),
    /// End old generations of a key now. A running daemon closes what they opened.
    ///
    /// Without --cut sessions that are in live on.
    ///
    /// Refused where the key is in use and would be left without a generation that has been
    /// seen to work. A generation that has ended already is no mistake.
    Retire(change::Retire),
    /// Remove a key. A running daemon closes what it opened at once.
    ///
    /// Refused where the key is in use: a generation of it that works has been used.
    /// Without --cut sessions that are in live on.
    Remove(change::Remove),
}

impl Command {
    pub fn run(&self, dir: &Path) -> Result<(), Failure> {
        match self {
            Self::Add(add) => add.run(dir),
            Self::List { json } => list::list(dir, *json),
            Self::Show { name, json } => list::show(dir, name, *json),
            Self::Invite { name, qr } => invite::invite(dir, name, *qr),
            Self::Rotate(rotate) => rotate.run(dir),
            Self::Retire(retire) => retire.run(dir),
            Self::Remove(remove) => remove.run(dir),
        }
    }
}
