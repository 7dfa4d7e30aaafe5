//! An invitation becomes a profile.

use crate::error::Error;
use crate::profile::Profile;
use crate::profile::store::{MAX_LEN, ProfileStore};
use crate::ui::message::hint;
use oneknock_shared::invitation::Invitation;
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_shared::port::Ports;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use zeroize::Zeroizing;

/// What came of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Imported {
    /// The profile was made.
    New(Profile),
    /// This very profile was there already; nothing was written.
    Already(Profile),
    /// The profile was there with the same secret; what the server says besides has changed,
    /// and is taken over. Holds the profile as it is now, and what has changed.
    Renewed(Profile, Vec<&'static str>),
    /// The profile was there with another secret, and has this one now, as was asked for.
    Replaced {
        /// As it is now.
        profile: Profile,
        /// As it was.
        before: Box<Profile>,
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

/// Makes a profile of an invitation, called `name` or as the invitation says. A profile with
/// another secret that is there is changed only where it `may_replace` it; one with this very
/// secret learns what the server says now. A name with a dot that is not the profile's own host is taken
/// only from `name`.
pub fn import(
    profiles: &ProfileStore,
    mut invitation: Invitation,
    name: Option<KeyName>,
    may_replace: bool,
) -> Result<Imported, Error> {
    // A profile is a Host of ssh's configuration: an invitation alone cannot make one that
    // takes the place of another site.
    let named_after = &invitation.host;
    let is_anothers = |name: &KeyName| {
        name.as_str().contains('.') && !name.as_str().eq_ignore_ascii_case(named_after.as_str())
    };
    if name.is_none() && is_anothers(&invitation.name) {
        return Err(Error::LikeAHost(invitation.name));
    }
    invitation.name = name.unwrap_or(invitation.name);
    let profile = Profile {
        invitation,
        next: None,
        begun: None,
        falls_back: false,
    };
    match profiles.add(&profile) {
        Ok(()) => Ok(Imported::New(profile)),
        Err(exists @ Error::ProfileExists { .. }) => match profiles.load(profile.name()) {
            Ok(there) if there.invitation == profile.invitation => Ok(Imported::Already(there)),
            Ok(there) if is_same_key(&there.invitation, &profile.invitation) => {
                renew(profiles, profile)
            }
            Ok(_) if may_replace => replace(profiles, profile),
            Ok(there) => Err(older(&there, &profile).unwrap_or(exists)),
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
fn older(there: &Profile, profile: &Profile) -> Option<Error> {
    let (old, new) = (&there.invitation, &profile.invitation);
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

/// Puts a profile in the place of another, whatever rotation of that one is under way.
fn replace(profiles: &ProfileStore, profile: Profile) -> Result<Imported, Error> {
    let _lock = profiles.lock(profile.name())?;
    let before = Box::new(profiles.load(profile.name())?);
    let is_same_server = before.invitation.server_id == profile.invitation.server_id;
    let profile = Profile {
        // What the person has written into it, while it leads to the same server.
        falls_back: is_same_server && before.falls_back,
        ..profile
    };
    profiles.replace(&profile)?;
    Ok(Imported::Replaced { profile, before })
}

/// Takes over what an invitation with the profile's own secret says.
fn renew(profiles: &ProfileStore, profile: Profile) -> Result<Imported, Error> {
    let _lock = profiles.lock(profile.name())?;
    // A rotation may have come to its end meanwhile.
    let there = profiles.load(profile.name())?;
    if !is_same_key(&there.invitation, &profile.invitation) {
        let path = profiles.path(profile.name());
        let name = profile.name().clone();
        return Err(Error::ProfileExists { name, path });
    }
    let (old, new) = (&there.invitation, &profile.invitation);
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
    let profile = Profile {
        next: there.next,
        begun: there.begun,
        falls_back: there.falls_back,
        ..profile
    };
    profiles.replace(&profile)?;
    Ok(Imported::Renewed(profile, changed))
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
