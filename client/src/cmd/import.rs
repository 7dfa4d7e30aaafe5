//! `oneknock import`.

use super::services;
use crate::error::Error;
use crate::profile::import::{self, Imported};
use crate::profile::store::ProfileStore;
use crate::ui::message::{hint, note};
use oneknock_shared::invitation::Invitation;
use oneknock_shared::name::KeyName;
use std::path::Path;

pub fn run(
    profiles: &ProfileStore,
    name: Option<KeyName>,
    may_replace: bool,
    file: Option<&Path>,
) -> Result<(), Error> {
    let (source, from) = import::source(file)?;
    match import::import(profiles, import::read(source, &from)?, name, may_replace)? {
        Imported::New(profile) => {
            let (name, host) = (profile.name(), &profile.invitation.host);
            note(&format!(
                "profile {name} leads to {host}: {}",
                services(&profile)
            ));
            let ssh = profile
                .service(None)
                .is_ok_and(|s| s.name.as_str() == "ssh");
            let verb = if ssh { "ssh" } else { "open" };
            hint(&format!("oneknock {verb} {name}"));
        }
        Imported::Already(profile) => note(&format!("profile {} is there already", profile.name())),
        Imported::Renewed(profile, changed) => note(&format!(
            "profile {} has the same secret, and takes over what is new: {}",
            profile.name(),
            changed.join(", ")
        )),
        Imported::Replaced { profile, before } => {
            let of =
                |i: &Invitation| format!("{}, key {} generation {}", i.host, i.key, i.generation);
            note(&format!(
                "profile {} leads to {} now, in the place of {}",
                profile.name(),
                of(&profile.invitation),
                of(&before.invitation)
            ));
            if let Some(next) = before.next {
                note(&format!("gone too: the rotation to {}", of(&next)));
            }
        }
    }
    Ok(())
}
