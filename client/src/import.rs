//! An invitation becomes a door.

use crate::door::Door;
use crate::doors::{Doors, MAX_LEN};
use crate::error::{Error, hint};
use oneknock_shared::invitation::Invitation;
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_shared::port::Ports;
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
    /// The door was there with the same secret; what the server says besides has changed,
    /// and is taken over. Holds the door as it is now, and what has changed.
    Renewed(Door, Vec<&'static str>),
    /// The door was there with another secret, and has this one now, as was asked for.
    Replaced {
        /// As it is now.
        door: Door,
        /// As it was.
        before: Box<Door>,
    },
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

/// Makes a door of an invitation, called `name` or as the invitation says. A door with
/// another secret that is there is changed only where it `may_replace` it; one with this very
/// secret learns what the server says now. A name with a dot that is not the door's own host is taken
/// only from `name`.
pub fn import(
    doors: &Doors,
    mut invitation: Invitation,
    name: Option<KeyName>,
    may_replace: bool,
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
        begun: None,
    };
    match doors.add(&door) {
        Ok(()) => Ok(Imported::New(door)),
        Err(exists @ Error::DoorExists { .. }) => match doors.load(door.name()) {
            Ok(there) if there.invitation == door.invitation => Ok(Imported::Already(there)),
            Ok(there) if is_same_key(&there.invitation, &door.invitation) => renew(doors, door),
            Ok(_) if may_replace => replace(doors, door),
            Ok(there) => Err(older(&there, &door).unwrap_or(exists)),
            // Whether it is another one cannot be said of one that cannot be read.
            Err(unreadable) => Err(unreadable),
        },
        Err(other) => Err(other),
    }
}

/// Whoever has the secret could have written either.
fn is_same_key(a: &Invitation, b: &Invitation) -> bool {
    let identity = |i: &Invitation| (i.server_id, i.key.clone(), i.generation);
    identity(a) == identity(b) && a.secret == b.secret
}

/// A rotation at the server, brought over by hand. The old secret is not given up for it
/// unasked: nobody has seen the new one work, and an invitation may lead elsewhere.
fn older(there: &Door, door: &Door) -> Option<Error> {
    let (old, new) = (&there.invitation, &door.invitation);
    let is_newer = old.server_id == new.server_id
        && old.key == new.key
        && old.generation < new.generation
        && old.secret != new.secret;
    is_newer.then(|| Error::OlderSecret {
        name: there.name().clone(),
        has: old.generation,
        new: new.generation,
    })
}

/// Puts a door in the place of another, whatever rotation of that one is under way.
fn replace(doors: &Doors, door: Door) -> Result<Imported, Error> {
    let _lock = doors.lock(door.name())?;
    let before = Box::new(doors.load(door.name())?);
    doors.replace(&door)?;
    Ok(Imported::Replaced { door, before })
}

/// Takes over what an invitation with the door's own secret says.
fn renew(doors: &Doors, door: Door) -> Result<Imported, Error> {
    let _lock = doors.lock(door.name())?;
    // A rotation may have come to its end meanwhile.
    let there = doors.load(door.name())?;
    if !is_same_key(&there.invitation, &door.invitation) {
        let path = doors.path(door.name());
        let name = door.name().clone();
        return Err(Error::DoorExists { name, path });
    }
    let (old, new) = (&there.invitation, &door.invitation);
    let changed = [
        ("host", old.host != new.host),
        ("port", old.port != new.port),
        ("services", old.services != new.services),
        ("address", old.address != new.address),
        ("sequence", of_sequence(old) != of_sequence(new)),
        (
            "dates",
            (old.made, old.not_after) != (new.made, new.not_after),
        ),
    ];
    let changed: Vec<&str> = changed.iter().filter(|c| c.1).map(|c| c.0).collect();
    let door = Door {
        next: there.next,
        begun: there.begun,
        ..door
    };
    doors.replace(&door)?;
    Ok(Imported::Renewed(door, changed))
}

fn of_sequence(of: &Invitation) -> (Option<&[Ports]>, bool, Option<ServiceName>) {
    (of.sequence.as_deref(), of.rolling, of.sequence_service)
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
