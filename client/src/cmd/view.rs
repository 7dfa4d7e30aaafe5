//! A profile as `list --json` and `show --json` print it. All members are always there.

use crate::profile::Profile;
use crate::profile::expiry;
use crate::profile::store::ProfileStore;
use oneknock_shared::invitation::Service;
use oneknock_shared::knock::Timestamp;
use oneknock_shared::port::Ports;
use serde_json::{Value, json};

/// The profile, without its secret. `now` is for its warnings.
pub fn profile(profiles: &ProfileStore, profile: &Profile, now: Option<Timestamp>) -> Value {
    let of = &profile.invitation;
    let time = |at: Option<Timestamp>| at.map(expiry::date);
    let warnings = now.map(|now| expiry::warnings(profile, now));
    let warning = |(message, hint): (String, String)| json!({"message": message, "hint": hint});
    json!({
        "name": of.name.to_string(),
        "host": of.host.to_string(),
        "port": of.port,
        "key": of.key.to_string(),
        "generation": of.generation,
        "server_id": of.server_id.to_string(),
        "address": of.address.as_str(),
        "created": time(of.made),
        "expires": time(of.not_after),
        "rotation": {
            "next_generation": profile.next.as_ref().map(|next| next.generation),
            "begun": time(profile.begun),
        },
        "services": of.services.iter().map(service).collect::<Vec<_>>(),
        "sequence": {
            "steps": of.sequence.as_deref().map(ports),
            "rolling": of.rolling,
            "service": of.sequence_service.map(|name| name.to_string()),
            "fallback": profile.falls_back || of.rolling,
        },
        "file": profiles.path(profile.name()).display().to_string(),
        "warnings": warnings.unwrap_or_default().into_iter().map(warning).collect::<Vec<_>>(),
    })
}

fn service(service: &Service) -> Value {
    json!({"name": service.name.to_string(), "ports": ports(&service.ports)})
}

fn ports(list: &[Ports]) -> Vec<String> {
    list.iter().map(Ports::to_string).collect()
}
