//! The text of a profile's file: TOML, a field for each member of the invitation.

use crate::profile::Profile;
use humantime::format_rfc3339_millis;
use oneknock_shared::invitation::{AddressRule, Invitation, Service};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::KeyName;
use oneknock_shared::port::Ports;
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};
use zeroize::{Zeroize, Zeroizing};

/// The fields of a profile's file, in its order.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fields {
    host: String,
    port: u16,
    server_id: String,
    key: String,
    generation: u32,
    secret: String,
    address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequence: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequence_service: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    rolling: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_after: Option<String>,
    /// The line of the invitation that a rotation puts in the place of all this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// When a rotation was begun that is not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rotation_begun: Option<String>,
    /// `"sequence"` where a fixed port sequence may follow a knock that met silence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fallback: Option<String>,
    service: Vec<ServiceFields>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceFields {
    name: String,
    ports: Vec<String>,
}

impl Drop for Fields {
    fn drop(&mut self) {
        self.secret.zeroize();
        self.next.zeroize();
    }
}

fn read<T: FromStr>(field: &str, text: &str) -> Result<T, String>
where
    T::Err: Display,
{
    text.parse().map_err(|why| format!("{field}: {why}"))
}

/// The end of the year 9999, in ms: no later date can be written.
pub const LAST: u64 = 253_402_300_799_999;

fn date_ms(at: Timestamp) -> String {
    format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(at.0.min(LAST))).to_string()
}

fn read_time(field: &str, text: Option<&str>) -> Result<Option<Timestamp>, String> {
    let Some(text) = text else { return Ok(None) };
    let time = humantime::parse_rfc3339(text).map_err(|why| format!("{field}: {why}"))?;
    let since = time.duration_since(UNIX_EPOCH);
    let since = since.map_err(|_| format!("{field}: it is before 1970"))?;
    let ms = u64::try_from(since.as_millis()).map_err(|why| format!("{field}: {why}"))?;
    Ok(Some(Timestamp(ms)))
}

fn read_ports(field: &str, list: &[String]) -> Result<Vec<Ports>, String> {
    list.iter().map(|text| read(field, text)).collect()
}

impl Fields {
    /// Reads a file's text; why it is none, in one line.
    pub fn read(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| toml_error(text, &error))
    }

    /// What a profile's file says.
    pub fn of(profile: &Profile) -> Self {
        let texts = |ports: &[Ports]| ports.iter().map(Ports::to_string).collect();
        let of = &profile.invitation;
        Self {
            host: of.host.to_string(),
            port: of.port,
            server_id: of.server_id.to_string(),
            key: of.key.to_string(),
            generation: of.generation,
            secret: of.secret.to_base64().to_string(),
            address: of.address.as_str().into(),
            sequence: of.sequence.as_deref().map(texts),
            sequence_service: of.sequence_service.map(|name| name.to_string()),
            rolling: of.rolling,
            made: of.made.map(date_ms),
            not_after: of.not_after.map(date_ms),
            next: profile.next.as_ref().map(|next| next.to_line().to_string()),
            rotation_begun: profile.begun.map(date_ms),
            fallback: profile.falls_back.then(|| "sequence".into()),
            service: of
                .services
                .iter()
                .map(|s| ServiceFields {
                    name: s.name.to_string(),
                    ports: texts(&s.ports),
                })
                .collect(),
        }
    }

    pub fn to_text(&self) -> Zeroizing<String> {
        let text = toml::to_string(self).unwrap_or_else(|_| {
            unreachable!("a table of strings, numbers and lists always has a TOML form")
        });
        let text = Zeroizing::new(text);
        Zeroizing::new(format!(
            "# A profile of oneknock. The secret is a key: show it to nobody.\n{}",
            *text
        ))
    }

    pub fn profile(&self, name: &KeyName) -> Result<Profile, String> {
        if self.port == 0 {
            return Err("port: 0 is not a port, 1 to 65535".into());
        }
        if self.generation == 0 {
            return Err("generation: 0 is not a number from 1".into());
        }
        let mut services: Vec<Service> = Vec::new();
        for given in &self.service {
            let name = read("service", &given.name)?;
            let ports = read_ports("ports", &given.ports)?;
            if ports.is_empty() {
                return Err(format!("service: {name} has no port"));
            }
            if services.iter().any(|s| s.name == name) {
                return Err(format!("service: {name} is there twice"));
            }
            services.push(Service { name, ports });
        }
        if services.is_empty() {
            return Err("service: there is none".into());
        }
        let sequence = self
            .sequence
            .as_deref()
            .map(|list| read_ports("sequence", list));
        let invitation = Invitation {
            name: name.clone(),
            host: read("host", &self.host)?,
            port: self.port,
            server_id: read("server_id", &self.server_id)?,
            key: read("key", &self.key)?,
            generation: self.generation,
            secret: read("secret", &self.secret)?,
            address: read::<AddressRule>("address", &self.address)?,
            services,
            sequence: sequence.transpose()?,
            rolling: self.rolling,
            sequence_service: self
                .sequence_service
                .as_deref()
                .map(|name| read("sequence_service", name))
                .transpose()?,
            made: read_time("made", self.made.as_deref())?,
            not_after: read_time("not_after", self.not_after.as_deref())?,
        };
        let next = self.next.as_deref().map(|line| read("next", line));
        let next: Option<Invitation> = next.transpose()?;
        if next
            .as_ref()
            .is_some_and(|n| n.server_id != invitation.server_id)
        {
            return Err("next: it is another server's".into());
        }
        let next = next.map(|next| Invitation {
            name: name.clone(),
            ..next
        });
        let falls_back = match self.fallback.as_deref() {
            None => false,
            Some("sequence") => true,
            Some(_) => return Err("fallback: not \"sequence\"".into()),
        };
        Ok(Profile {
            invitation,
            next,
            begun: read_time("rotation_begun", self.rotation_begun.as_deref())?,
            falls_back,
        })
    }
}

/// One line with the line's number. What stands in the file is not repeated where it
/// could be the secret in another field's place.
fn toml_error(text: &str, error: &toml::de::Error) -> String {
    let message = error.message();
    let message = message.lines().next().unwrap_or_default();
    let message = match message.split_once(", expected ") {
        Some((given, expected))
            if given.starts_with("invalid type") || given.starts_with("invalid value") =>
        {
            format!("wrong type: expected {expected}")
        }
        _ => message.to_string(),
    };
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("line {}: {message}", before.matches('\n').count() + 1),
        None => message,
    }
}
