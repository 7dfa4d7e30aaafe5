//! A door: a server, and this user's key to it, in a file of its own.
//!
//! `$XDG_CONFIG_HOME/oneknock/doors/NAME.toml`, else below `~/.config`; on Windows below
//! `%APPDATA%`. The file is private (0600 in a folder 0700) from its first byte on, and
//! one that others could read is refused.

use crate::error::Error;
use crate::private;
use humantime::format_rfc3339_millis;
use oneknock_shared::invitation::{AddressRule, Invitation, Service};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_shared::port::{Ports, Transport};
use oneknock_shared::rolling;
use oneknock_shared::secret::Subkeys;
use oneknock_shared::selector::Slot;
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::fs;
use std::io::{self, Read, Write};
use std::iter;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};
use zeroize::{Zeroize, Zeroizing};

/// A door's file is never larger than this, in bytes; an invitation's limit too.
pub const MAX_LEN: usize = 64 * 1024;

/// What an invitation said, under the name that this user gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// All members of the invitation; its name is the door's.
    pub invitation: Invitation,
    /// While a rotation is under way: the invitation that takes its place, once it was
    /// seen to work. Its name is the door's too.
    pub next: Option<Invitation>,
}

impl Door {
    /// The door's name.
    #[must_use]
    pub fn name(&self) -> &KeyName {
        &self.invitation.name
    }

    /// The keys of its generations: while a rotation is under way of both, since either
    /// may be the one that the server takes.
    #[must_use]
    pub fn keys(&self) -> Vec<Subkeys> {
        let both = iter::once(&self.invitation).chain(&self.next);
        both.map(|i| Subkeys::derive(&i.secret, &i.server_id))
            .collect()
    }

    /// The wanted service; without a wish the one called `ssh`, else the first with a
    /// TCP port, else the first.
    pub fn service(&self, wanted: Option<&ServiceName>) -> Result<&Service, Error> {
        let services = &self.invitation.services;
        let called = |name: &str| services.iter().find(|s| s.name.as_str() == name);
        let found = match wanted {
            Some(name) => called(name.as_str()),
            None => called("ssh")
                .or_else(|| services.iter().find(|s| first_tcp(s).is_some()))
                .or(services.first()),
        };
        found.ok_or_else(|| Error::NoService {
            door: self.name().clone(),
            wanted: wanted.copied().unwrap_or_else(|| {
                unreachable!("an invitation without a service is refused when it is read")
            }),
            have: services.iter().map(|s| s.name).collect(),
        })
    }

    /// The steps that open this service at this time, where the server has a sequence for
    /// it.
    #[must_use]
    pub fn sequence(&self, service: Option<&ServiceName>, now: Timestamp) -> Option<Vec<Ports>> {
        let of = &self.invitation;
        if of.sequence_service.is_some() && of.sequence_service.as_ref() != service {
            return None;
        }
        if of.rolling {
            let keys = Subkeys::derive(&of.secret, &of.server_id);
            return Some(rolling::steps(&keys, Slot::of(now)));
        }
        of.sequence.clone().filter(|steps| !steps.is_empty())
    }

    /// The service that has this TCP port.
    pub fn service_with(&self, port: u16) -> Result<&Service, Error> {
        let services = &self.invitation.services;
        let has = |s: &&Service| s.ports.iter().any(|p| p.contains(Transport::Tcp, port));
        services.iter().find(has).ok_or_else(|| Error::NoPort {
            door: self.name().clone(),
            port,
            have: services.iter().flat_map(|s| s.ports.clone()).collect(),
        })
    }
}

/// The service's first TCP port, where it has one.
#[must_use]
pub fn first_tcp(service: &Service) -> Option<u16> {
    let tcp = |p: &&Ports| p.transport() == Transport::Tcp;
    service.ports.iter().find(tcp).map(Ports::first)
}

/// The folder of this user's doors.
#[derive(Debug, Clone)]
pub struct Doors {
    folder: PathBuf,
}

impl Doors {
    /// Where the environment says.
    pub fn of_this_user() -> Result<Self, Error> {
        let absolute = |name| {
            let path = PathBuf::from(std::env::var_os(name)?);
            path.is_absolute().then_some(path)
        };
        let config = if cfg!(windows) {
            absolute("APPDATA")
        } else {
            absolute("XDG_CONFIG_HOME").or_else(|| {
                let home = std::env::home_dir().filter(|home| home.is_absolute())?;
                Some(home.join(".config"))
            })
        };
        let config = config.ok_or(Error::NoHome)?;
        Ok(Self::at(config.join("oneknock").join("doors")))
    }

    /// In this folder, which need not exist yet.
    #[must_use]
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// A door's file.
    #[must_use]
    pub fn path(&self, name: &KeyName) -> PathBuf {
        self.folder.join(format!("{name}.toml"))
    }

    /// Reads a door, after looking at who could have read or changed its file.
    pub fn load(&self, name: &KeyName) -> Result<Door, Error> {
        let path = self.path(name);
        let file = match private::open(&self.folder, &path) {
            Err(Error::File { why, .. }) if why.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoDoor {
                    name: name.clone(),
                    path,
                });
            }
            other => other?,
        };
        // At its final size from the start: a text that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(MAX_LEN + 1));
        let read = file.take(MAX_LEN as u64 + 1).read_to_string(&mut text);
        let broken = |why| Error::BrokenDoor {
            path: path.clone(),
            why,
        };
        read.map_err(|why| Error::File {
            what: "read",
            path: path.clone(),
            why,
        })?;
        if text.len() > MAX_LEN {
            return Err(broken(format!("it is larger than {MAX_LEN} bytes")));
        }
        let fields: Fields = toml::from_str(&text).map_err(|e| broken(toml_error(&text, &e)))?;
        fields.door(name).map_err(broken)
    }

    /// Writes a door that is not there yet. It comes into being complete or not at all.
    pub fn add(&self, door: &Door) -> Result<(), Error> {
        let path = self.path(door.name());
        let failed = |why| Error::File {
            what: "write",
            path: path.clone(),
            why,
        };
        private::make_folder(&self.folder).map_err(failed)?;
        match self.write(door)?.persist_noclobber(&path) {
            Ok(_) => Ok(()),
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => Err(Error::DoorExists {
                name: door.name().clone(),
                path,
            }),
            Err(e) => Err(failed(e.error)),
        }
    }

    /// Writes a door in the place of the one that is there: it is the old one or the new
    /// one, whatever happens.
    pub fn replace(&self, door: &Door) -> Result<(), Error> {
        let path = self.path(door.name());
        let failed = |why| Error::File {
            what: "write",
            path: path.clone(),
            why,
        };
        if path.symlink_metadata().map_err(failed)?.is_symlink() {
            // What it leads to would stay behind with the old secret.
            return Err(Error::BrokenDoor {
                path,
                why: "it is a link, and is not replaced".into(),
            });
        }
        match self.write(door)?.persist(&path) {
            Ok(_) => private::sync_folder(&self.folder).map_err(failed),
            Err(e) => Err(failed(e.error)),
        }
    }

    /// Takes the right to change a door: nobody else has it until it is dropped.
    pub fn lock(&self, name: &KeyName) -> Result<fs::File, Error> {
        let path = self.folder.join(format!(".{name}.lock"));
        let mut options = fs::File::options();
        options.read(true).write(true).create(true).truncate(false);
        let taken = options.open(&path).and_then(|file| match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        });
        taken.map_err(|why| match why.kind() {
            io::ErrorKind::ResourceBusy => Error::Rotating(name.clone()),
            _ => Error::File {
                what: "write",
                path,
                why,
            },
        })
    }

    /// Writes a door to a file that has no name of its own yet.
    fn write(&self, door: &Door) -> Result<tempfile::NamedTempFile, Error> {
        let failed = |why| Error::File {
            what: "write",
            path: self.path(door.name()),
            why,
        };
        private::check_folder(&self.folder)?;
        let text = Fields::of(door).to_text();
        // tempfile makes it 0600; nothing has to be changed afterwards.
        let mut file = tempfile::Builder::new()
            .prefix(".new-")
            .tempfile_in(&self.folder)
            .map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        Ok(file)
    }

    /// Removes a door, a broken one too.
    pub fn remove(&self, name: &KeyName) -> Result<(), Error> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Err(Error::NoDoor {
                name: name.clone(),
                path,
            }),
            Err(why) => Err(Error::File {
                what: "remove",
                path,
                why,
            }),
        }
    }

    /// Every door in the order of their names, the broken ones too. No folder: none.
    pub fn all(&self) -> Result<Vec<Result<Door, Error>>, Error> {
        let failed = |why| Error::File {
            what: "read",
            path: self.folder.clone(),
            why,
        };
        let entries = match fs::read_dir(&self.folder) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut doors = Vec::new();
        for entry in entries {
            let file = PathBuf::from(entry.map_err(failed)?.file_name());
            // `.new-…` is what a crash may leave of an import.
            let hidden = file.as_os_str().as_encoded_bytes().starts_with(b".");
            if !hidden && file.extension().is_some_and(|e| e == "toml") {
                doors.push(file);
            }
        }
        doors.sort();
        let load = |file: PathBuf| match file.file_stem().and_then(|s| s.to_str()?.parse().ok()) {
            Some(name) => self.load(&name),
            None => Err(Error::BrokenDoor {
                path: self.folder.join(&file),
                why: "the file's name is not a door's".into(),
            }),
        };
        Ok(doors.into_iter().map(load).collect())
    }
}

/// The fields of a door's file, in its order.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
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

/// The limit of an invitation's times makes this possible.
fn date_ms(at: Timestamp) -> String {
    format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(at.0)).to_string()
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
    fn of(door: &Door) -> Self {
        let texts = |ports: &[Ports]| ports.iter().map(Ports::to_string).collect();
        let of = &door.invitation;
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
            next: door.next.as_ref().map(|next| next.to_line().to_string()),
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

    fn to_text(&self) -> Zeroizing<String> {
        let text = toml::to_string(self).unwrap_or_else(|_| {
            unreachable!("a table of strings, numbers and lists always has a TOML form")
        });
        let text = Zeroizing::new(text);
        Zeroizing::new(format!(
            "# A door of oneknock. The secret is a key: show it to nobody.\n{}",
            *text
        ))
    }

    fn door(&self, name: &KeyName) -> Result<Door, String> {
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
        Ok(Door { invitation, next })
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
