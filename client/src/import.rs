//! An invitation becomes a door.

use crate::door::{Door, Doors, MAX_LEN};
use crate::error::{Error, hint};
use oneknock_shared::invitation::Invitation;
use oneknock_shared::name::KeyName;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use zeroize::Zeroizing;

/// What came of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Imported {
    /// The door was made.
    New(Door),
    /// This very door was there already; nothing was written.
    Already(Door),
}

/// Reads one invitation, at most 64 KiB; `from` is what errors call the source.
pub fn read(source: impl Read, from: &str) -> Result<Invitation, Error> {
    let from = || from.to_string();
    let refused = |why| Error::NotOneLine { from: from(), why };
    // At its final size from the start: bytes that grow leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_LEN + 1));
    let read = source.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|why| Error::NoInvitation { from: from(), why })?;
    if bytes.len() > MAX_LEN {
        return Err(refused("it is larger than 64 KiB"));
    }
    let text = str::from_utf8(&bytes)
        .map_err(|_| refused("it is not text"))?
        .trim();
    if text.is_empty() {
        return Err(refused("it is empty"));
    }
    if text.contains(char::is_whitespace) {
        return Err(refused("there is more than the one line, or a space in it"));
    }
    text.parse()
        .map_err(|why| Error::Invitation { from: from(), why })
}

/// Makes a door of an invitation, called `name` or as the invitation says. A door that
/// is there is never changed. A name with a dot that is not the door's own host is taken
/// only from `name`.
pub fn import(
    doors: &Doors,
    mut invitation: Invitation,
    name: Option<KeyName>,
) -> Result<Imported, Error> {
    // A door is a Host of ssh's configuration: an invitation alone cannot make one that
    // takes the place of another site.
    let named_after = &invitation.host;
    let is_anothers = |name: &KeyName| {
        name.as_str().contains('.') && !name.as_str().eq_ignore_ascii_case(named_after.as_str())
    };
    if name.is_none() && is_anothers(&invitation.name) {
        return Err(Error::LikeAHost(invitation.name));
    }
    invitation.name = name.unwrap_or(invitation.name);
    let door = Door {
        invitation,
        next: None,
    };
    match doors.add(&door) {
        Ok(()) => Ok(Imported::New(door)),
        Err(exists @ Error::DoorExists { .. }) => match doors.load(door.name()) {
            Ok(there) if there == door => Ok(Imported::Already(there)),
            Ok(_) => Err(exists),
            // Whether it is another one cannot be said of one that cannot be read.
            Err(unreadable) => Err(unreadable),
        },
        Err(other) => Err(other),
    }
}

/// Opens the file, or standard input for none or `-`; gives it with what to call it.
pub fn source(file: Option<&Path>) -> Result<(Box<dyn Read>, String), Error> {
    match file {
        // The line itself in a file's place: it holds a secret, and is not said again.
        Some(path) if path.to_string_lossy().starts_with("oneknock1:") => {
            Err(Error::InvitationAsFile)
        }
        Some(path) if path.as_os_str() != "-" => {
            let from = path.display().to_string();
            match std::fs::File::open(path) {
                Ok(file) => Ok((Box::new(file), from)),
                Err(why) => Err(Error::NoInvitation { from, why }),
            }
        }
        _ => {
            if io::stdin().is_terminal() {
                hint("paste the invitation, then Enter and Ctrl-D");
            }
            Ok((Box::new(io::stdin()), "standard input".into()))
        }
    }
}
