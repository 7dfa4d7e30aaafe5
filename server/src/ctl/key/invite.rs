//! A key's invitation: the line that brings it to a client.

use super::directory::KeyDirectory;
use super::generations::Generations;
use crate::config::{Config, Key, Paths, Steps};
use crate::ctl::{Failure, print};
use oneknock_shared::invitation::{AddressRule, Invitation, Service};
use oneknock_shared::name::KeyName;
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use std::io::{self, IsTerminal};
use zeroize::Zeroizing;

/// Prints the invitation again of the newest generation that has not ended.
pub fn invite(paths: &Paths, name: &KeyName, with_qr: bool) -> Result<(), Failure> {
    let directory = KeyDirectory::open(paths)?;
    let mut key = directory.load(name)?;
    // Without a state the key's file still says when it ends.
    let uses = directory.uses().unwrap_or_default();
    let generations = Generations::of(&key, &directory.config.server_id, &uses);
    let Some(newest) = generations.newest(KeyDirectory::now()) else {
        let what = format!("key {name} has ended: its invitation is worth nothing");
        let hint = format!(
            "make a new secret: {} key rotate {name} --not-after never, or a time",
            paths.ctl()
        );
        return Err(Failure::Usage(what, Some(hint)));
    };
    key.generations = vec![newest.generation.clone()];
    let printed = line(&directory.config, &key)?;
    if with_qr {
        print(&qr(&printed)?)?;
    }
    print(&printed)
}

/// The text as a QR code. On a terminal light is white and dark is black, whatever its own
/// colours are: many readers take no other.
fn qr(text: &str) -> Result<Zeroizing<String>, Failure> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L);
    let code = code.map_err(|error| Failure::new("the invitation makes no QR code", error))?;
    let mut renderer = code.render::<Dense1x2>();
    let renderer = renderer
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark);
    let picture = Zeroizing::new(renderer.build());
    if !io::stdout().is_terminal() {
        return Ok(picture);
    }
    let lines = picture.lines().map(|l| format!("\x1b[97;40m{l}\x1b[0m"));
    Ok(Zeroizing::new(lines.collect::<Vec<_>>().join("\n")))
}

/// The newest generation's invitation. It holds the secret.
pub fn line(config: &Config, key: &Key) -> Result<Zeroizing<String>, Failure> {
    let newest = key.generations.iter().max_by_key(|g| g.number);
    let newest = newest.ok_or_else(|| Failure::new(&key.name, "it has no generation"))?;
    let of_key = config
        .services
        .iter()
        .filter(|s| key.policy.services.contains(&s.name));
    let sequence = config.sequence.as_ref();
    let sequence = sequence.filter(|s| s.is_for(&key.policy));
    let invitation = Invitation {
        name: config.name.clone(),
        host: config.host.clone(),
        port: config.port,
        server_id: config.server_id,
        key: key.name.clone(),
        generation: newest.number,
        secret: newest.secret.clone(),
        address: if key.policy.require_signed_address {
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
        sequence: sequence
            .map(|s| s.fixed().to_vec())
            .filter(|steps| !steps.is_empty()),
        rolling: sequence.is_some_and(|s| s.steps == Steps::Rolling),
        sequence_service: sequence.map(|s| s.service),
        made: newest.made,
        not_after: newest.not_after,
    };
    Ok(invitation.to_line())
}
