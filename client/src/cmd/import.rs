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
            let services = services(&profile);
            note(&format!(
                "added profile {name} ({host}; services: {services})"
            ));
            let ssh = profile
                .service(None)
                .is_ok_and(|s| s.name.as_str() == "ssh");
            let verb = if ssh { "ssh" } else { "open" };
            hint(&format!("oneknock {verb} {name}"));
        }
        Imported::Already(profile) => note(&format!(
            "profile {} already has this invitation",
            profile.name()
        )),
        Imported::Renewed(profile, changed) => note(&format!(
            "updated profile {} (same key; changed: {})",
            profile.name(),
            changed.join(", ")
        )),
        Imported::Replaced { profile, before } => {
            let of =
                |i: &Invitation| format!("{}, key {} generation {}", i.host, i.key, i.generation);
            note(&format!(
                "replaced profile {}: now {} (before: {})",
                profile.name(),
                of(&profile.invitation),
                of(&before.invitation)
            ));
            if let Some(next) = before.next {
                note(&format!("dropped the unfinished rotation to {}", of(&next)));
            }
        }
    }
    Ok(())
}
