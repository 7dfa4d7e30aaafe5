//! `oneknock show`.

use super::{JSON_VERSION, print, to_json, view};
use crate::error::Error;
use crate::knock::packet;
use crate::profile::expiry;
use crate::profile::store::ProfileStore;
use oneknock_shared::invitation::Service;
use oneknock_shared::name::KeyName;
use oneknock_shared::port::Ports;

pub fn run(profiles: &ProfileStore, name: &KeyName, as_json: bool) -> Result<(), Error> {
    let profile = profiles.load(name)?;
    if as_json {
        let shown = view::profile(profiles, &profile, packet::now().ok());
        return print(&to_json(&serde_json::json!({
            "version": JSON_VERSION,
            "profile": shown,
        })));
    }
    let of = &profile.invitation;
    let ports = |list: &[Ports]| {
        list.iter()
            .map(Ports::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut rows = vec![
        ("name", name.to_string()),
        ("host", of.host.to_string()),
        ("port", format!("udp/{}", of.port)),
        ("key", of.key.to_string()),
        ("generation", of.generation.to_string()),
        ("server id", of.server_id.to_string()),
        ("address", of.address.as_str().into()),
    ];
    rows.extend(of.made.map(|at| ("created", expiry::date(at))));
    rows.extend(of.not_after.map(|at| ("expires", expiry::date(at))));
    if let Some(next) = &profile.next {
        rows.push(("rotation", format!("to generation {}", next.generation)));
    } else if let Some(begun) = profile.begun {
        rows.push(("rotation", format!("begun {}", expiry::date(begun))));
    }
    for Service { name, ports: list } in &of.services {
        rows.push(("service", format!("{name}: {}", ports(list))));
    }
    if let Some(sequence) = &of.sequence {
        let use_it = if profile.falls_back {
            "fallback"
        } else {
            "on request"
        };
        rows.push(("sequence", format!("{} ({use_it})", ports(sequence))));
    } else if of.rolling {
        rows.push(("sequence", "changes every minute (fallback)".into()));
    }
    rows.push(("file", profiles.path(name).display().to_string()));
    let lines = rows
        .iter()
        .map(|(field, value)| format!("{field:<10}  {value}\n"));
    print(&lines.collect::<String>())
}
