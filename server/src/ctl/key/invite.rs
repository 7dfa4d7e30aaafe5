//! A key's invitation: the line that brings it to a client.

use super::folder::Folder;
use crate::config::{Config, Key};
use crate::ctl::{Failure, print};
use oneknock_shared::invitation::{AddressRule, Invitation, Service};
use oneknock_shared::name::KeyName;
use std::path::Path;

/// Prints the newest generation's invitation again.
pub fn invite(dir: &Path, name: &KeyName) -> Result<(), Failure> {
    let folder = Folder::open(dir)?;
    let key = folder.load(name)?;
    print(&line(&folder.config, &key)?)
}

/// The newest generation's invitation. It holds the secret.
pub fn line(config: &Config, key: &Key) -> Result<zeroize::Zeroizing<String>, Failure> {
    let newest = key.generations.iter().max_by_key(|g| g.number);
    let newest = newest.ok_or_else(|| Failure::new(&key.name, "it has no generation"))?;
    let of_key = config
        .services
        .iter()
        .filter(|s| key.policy.services.contains(&s.name));
    let invitation = Invitation {
        name: config.name.clone(),
        host: config.host.clone(),
        port: config.port,
        server_id: config.server_id,
        key: key.name.clone(),
        generation: newest.number,
        secret: newest.secret.clone(),
        address: if key.policy.signed_address {
            AddressRule::Signed
        } else {
            AddressRule::Any
        },
        services: of_key
            .map(|s| Service {
                name: s.name,
                ports: s.ports.clone(),
            })
            .collect(),
        sequence: None,
    };
    Ok(invitation.to_line())
}
