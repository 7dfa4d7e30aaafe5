//! The invitation: one line of text that brings a key to a client.
//!
//! `oneknock1:` + base64url without padding (RFC 4648 section 5) of a JSON object +
//! `.` + base64url of the first 6 bytes of the SHA-256 of everything before the dot.

use crate::knock::Timestamp;
use crate::name::{Host, KeyName, ServiceName};
use crate::port::Ports;
use crate::rolling::PERIOD_SECONDS;
use crate::secret::{Secret, ServerId};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::str::FromStr;
use zeroize::{Zeroize, Zeroizing};

const PREFIX: &str = "oneknock1:";
const CHECK_LEN: usize = 6;

/// Whether a client signs the address to admit into its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressRule {
    /// It may; without, the packet's source is admitted.
    Any,
    /// The server demands it.
    Signed,
}

impl AddressRule {
    /// The word for it in invitations and doors.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Signed => "signed",
        }
    }
}

impl FromStr for AddressRule {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "any" => Ok(Self::Any),
            "signed" => Ok(Self::Signed),
            _ => Err("neither \"any\" nor \"signed\""),
        }
    }
}

/// A service as a client knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Its ports, at least one.
    pub ports: Vec<Ports>,
}

/// All that a client needs to knock at one server with one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// What the server calls itself; the client's door is named after it.
    pub name: KeyName,
    /// Where the server is.
    pub host: Host,
    /// The UDP port to knock on, 1 to 65535.
    pub port: u16,
    /// The server's id.
    pub server_id: ServerId,
    /// The key's name at the server.
    pub key: KeyName,
    /// The key's generation, counted from 1.
    pub generation: u32,
    /// The generation's secret.
    pub secret: Secret,
    /// The address rule.
    pub address: AddressRule,
    /// What the key may open: at least one, no name twice.
    pub services: Vec<Service>,
    /// The steps of the port sequence, where the server has that fallback on.
    pub sequence: Option<Vec<Ports>>,
    /// Whether the sequence rolls instead: its ports follow from the secret and the minute.
    pub rolling: bool,
    /// What the sequence opens; without, whatever the server has it for.
    pub sequence_service: Option<ServiceName>,
    /// When the generation was made, where the server says.
    pub made: Option<Timestamp>,
    /// When the generation ends, where it does and the server says.
    pub not_after: Option<Timestamp>,
}

/// Why a line is not an invitation. No message repeats any of the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadInvitation {
    /// It does not begin with `oneknock1:`.
    #[error("not an invitation: it does not begin with {PREFIX:?}")]
    Prefix,
    /// There is no dot and check, or they are not what the line's text gives.
    #[error("the invitation was cut or edited: its check does not hold")]
    Check,
    /// The check holds, and what it covers is not base64 of a JSON object.
    #[error("the invitation holds no JSON object")]
    Json,
    /// A member is missing, or of another type.
    #[error("the invitation's members do not fit: {0}")]
    Members(String),
    /// A member holds what it must not.
    #[error("the invitation's member \"{member}\": {why}")]
    Member {
        /// Which one.
        member: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

/// The JSON object. Unknown members are ignored; the order is that of `PROTOCOL.md`.
#[derive(Serialize, Deserialize)]
struct Members {
    v: u64,
    name: String,
    host: String,
    port: u64,
    server_id: String,
    key: String,
    generation: u64,
    secret: String,
    address: String,
    services: Vec<ServiceMembers>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequence: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequence_service: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rolling: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_after: Option<u64>,
}

impl Drop for Members {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

#[derive(Serialize, Deserialize)]
struct ServiceMembers {
    name: String,
    ports: Vec<String>,
}

/// The version, read before all else: another version may have other members.
#[derive(Deserialize)]
struct Version {
    v: u64,
}

fn member<T: FromStr>(member: &'static str, text: &str) -> Result<T, BadInvitation>
where
    T::Err: Display,
{
    text.parse().map_err(|why: T::Err| bad(member, why))
}

fn bad(member: &'static str, why: impl Display) -> BadInvitation {
    let why = why.to_string();
    BadInvitation::Member { member, why }
}

fn check(text: &str) -> String {
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    URL_SAFE_NO_PAD.encode(&hash.as_ref()[..CHECK_LEN])
}

impl Invitation {
    /// The line, without a newline. It holds the secret; the text is wiped when dropped.
    #[must_use]
    pub fn to_line(&self) -> Zeroizing<String> {
        let members = Members {
            v: 1,
            name: self.name.to_string(),
            host: self.host.to_string(),
            port: self.port.into(),
            server_id: self.server_id.to_string(),
            key: self.key.to_string(),
            generation: self.generation.into(),
            secret: self.secret.to_base64().to_string(),
            address: self.address.as_str().into(),
            services: self.services.iter().map(ServiceMembers::from).collect(),
            sequence: self.sequence.as_deref().map(texts),
            sequence_service: self.sequence_service.map(|name| name.to_string()),
            rolling: self.rolling.then_some(PERIOD_SECONDS.into()),
            made: self.made.map(|at| at.0),
            not_after: self.not_after.map(|at| at.0),
        };
        let json = Zeroizing::new(serde_json::to_vec(&members).unwrap_or_else(|_| {
            unreachable!("an object of strings, numbers and lists always has a JSON form")
        }));
        let mut line = Zeroizing::new(String::with_capacity(2 * json.len() + 64));
        line.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(&*json, &mut line);
        let check = check(&line);
        line.push('.');
        line.push_str(&check);
        line
    }
}

fn texts(ports: &[Ports]) -> Vec<String> {
    ports.iter().map(Ports::to_string).collect()
}

impl From<&Service> for ServiceMembers {
    fn from(service: &Service) -> Self {
        let name = service.name.to_string();
        let ports = texts(&service.ports);
        Self { name, ports }
    }
}

impl FromStr for Invitation {
    type Err = BadInvitation;

    /// Reads a line; white space around it is ignored, as a mail or a terminal adds it.
    fn from_str(text: &str) -> Result<Self, BadInvitation> {
        let text = text.trim();
        let body = text.strip_prefix(PREFIX).ok_or(BadInvitation::Prefix)?;
        let (body, given) = body.rsplit_once('.').ok_or(BadInvitation::Check)?;
        let covered = &text[..PREFIX.len() + body.len()];
        if check(covered) != given {
            return Err(BadInvitation::Check);
        }
        let json = URL_SAFE_NO_PAD.decode(body);
        let json = Zeroizing::new(json.map_err(|_| BadInvitation::Json)?);
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(BadInvitation::Json);
        }
        let version: Version = serde_json::from_slice(&json).map_err(|e| members_error(&e))?;
        if version.v != 1 {
            return Err(bad("v", "this program knows version 1 only"));
        }
        let members: Members = serde_json::from_slice(&json).map_err(|e| members_error(&e))?;
        members.read()
    }
}

/// serde's message names the member, but may quote a value: that much is cut off.
fn members_error(error: &serde_json::Error) -> BadInvitation {
    if error.is_data() {
        let text = error.to_string();
        let missing = text.starts_with("missing field") || text.starts_with("duplicate field");
        let place = text.split(" at line").next().unwrap_or_default();
        BadInvitation::Members(if missing {
            place.into()
        } else {
            "one of them is of another type".into()
        })
    } else {
        BadInvitation::Json
    }
}

impl Members {
    fn read(&self) -> Result<Invitation, BadInvitation> {
        let ports = |name, list: &[String]| -> Result<Vec<Ports>, BadInvitation> {
            list.iter().map(|text| member(name, text)).collect()
        };
        let mut services: Vec<Service> = Vec::new();
        for given in &self.services {
            let service = Service {
                name: member("services", &given.name)?,
                ports: ports("services", &given.ports)?,
            };
            if service.ports.is_empty() {
                return Err(bad("services", format!("{} has no port", service.name)));
            }
            if services.iter().any(|s| s.name == service.name) {
                return Err(bad("services", format!("{} is there twice", service.name)));
            }
            services.push(service);
        }
        if services.is_empty() {
            return Err(bad("services", "there is none"));
        }
        Ok(Invitation {
            name: member("name", &self.name)?,
            host: member("host", &self.host)?,
            port: port(self.port)?,
            server_id: member("server_id", &self.server_id)?,
            key: member("key", &self.key)?,
            generation: u32::try_from(self.generation)
                .ok()
                .filter(|&g| g > 0)
                .ok_or_else(|| bad("generation", "not a number from 1"))?,
            secret: member("secret", &self.secret)?,
            address: member("address", &self.address)?,
            services,
            sequence: match &self.sequence {
                None => None,
                Some(list) => Some(ports("sequence", list)?),
            },
            rolling: match self.rolling {
                None => false,
                Some(_) if self.sequence.is_some() => {
                    return Err(bad("rolling", "there is a fixed sequence too"));
                }
                Some(seconds) if seconds == u64::from(PERIOD_SECONDS) => true,
                Some(_) => return Err(bad("rolling", "this program knows 60 seconds only")),
            },
            sequence_service: match &self.sequence_service {
                None => None,
                Some(name) => Some(member("sequence_service", name)?),
            },
            made: time("made", self.made)?,
            not_after: time("not_after", self.not_after)?,
        })
    }
}

/// The year 9999 is the last that a door's file can name.
fn time(name: &'static str, ms: Option<u64>) -> Result<Option<Timestamp>, BadInvitation> {
    match ms {
        Some(253_402_300_800_000..) => Err(bad(name, "it is after the year 9999")),
        ms => Ok(ms.map(Timestamp)),
    }
}

fn port(port: u64) -> Result<u16, BadInvitation> {
    u16::try_from(port)
        .ok()
        .filter(|&p| p > 0)
        .ok_or_else(|| bad("port", format!("{port} is not a port, 1 to 65535")))
}
