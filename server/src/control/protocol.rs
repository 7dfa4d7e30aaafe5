//! What is said over the control socket: JSON lines, versioned. Pure: bytes in, values
//! out.
//!
//! A connection carries one command, a line of at most [`MAX_LINE`] bytes, and its answer,
//! one line; after `watch` lines follow as things happen. A line that is not understood to
//! its last member is refused: an older daemon must not do half of what a newer
//! oneknockctl asked for.

use crate::engine::{Grant, Target};
use oneknock_shared::name::KeyName;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// The version of what is said here.
pub const VERSION: u64 = 1;

/// A command is never longer than this, in bytes, its line's end not counted.
pub const MAX_LINE: usize = 4096;

/// How long a trial of the guard may last, in seconds: time enough to come in, and not so
/// much that who is locked out waits for hours.
pub const TRIAL: RangeInclusive<u64> = 10..=3600;

/// What a command is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selection {
    /// A key.
    Key(#[serde(with = "text")] KeyName),
    /// An admitted or refused address; an IPv4-mapped one is IPv4.
    Address(IpAddr),
    /// Everything.
    All,
}

impl Selection {
    /// Whether a key, with an address, is among it.
    #[must_use]
    pub fn includes(&self, key: &KeyName, address: IpAddr) -> bool {
        match self {
            Self::All => true,
            Self::Key(name) => name == key,
            Self::Address(of) => *of == address,
        }
    }

    /// Whether an address that the port sequence has admitted is among it: no key has a part
    /// in that.
    #[must_use]
    pub fn includes_sequence(&self, address: IpAddr) -> bool {
        match self {
            Self::All => true,
            Self::Address(of) => *of == address,
            Self::Key(_) => false,
        }
    }

    /// The key, where it is one.
    #[must_use]
    pub fn key(&self) -> Option<&KeyName> {
        match self {
            Self::Key(key) => Some(key),
            _ => None,
        }
    }

    /// The address, where it is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            _ => None,
        }
    }
}

impl FromStr for Selection {
    type Err = String;

    /// What can be read as an address is one.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        text.parse()
            .map(Self::Key)
            .map_err(|error| format!("neither an address nor a key's name: {error}"))
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "key {key}"),
            Self::Address(address) => write!(f, "address {address}"),
            Self::All => f.write_str("all"),
        }
    }
}

/// What a peer asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "command",
    content = "args",
    rename_all = "kebab-case",
    deny_unknown_fields
)]
pub enum Command {
    /// How the daemon is: answered with a [`Status`](super::answers::Status).
    Status,
    /// The live grants that come after this one: answered with
    /// [`GrantList`](super::answers::GrantList).
    Grants {
        /// The last one of the list so far.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<Cursor>,
    },
    /// The keys that are loaded: answered with [`LoadedKeys`](super::answers::LoadedKeys).
    Keys,
    /// Applies what is on disk: answered with [`Reloaded`](super::answers::Reloaded).
    Reload,
    /// Loads the key's file, and no other file; without a file the key opens nothing any more.
    /// What it has no right to has ended when this is answered with
    /// [`KeyReloaded`](super::answers::KeyReloaded).
    ReloadKey {
        /// Which.
        #[serde(with = "text")]
        key: KeyName,
    },
    /// Ends grants: answered with [`Revoked`](super::answers::Revoked).
    Revoke {
        /// Those of a key, of an address, or all.
        of: Selection,
        /// Of these generations of the key alone, by their numbers; of all where there is
        /// none.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        generations: Vec<u32>,
        /// Whether the connections that they admitted, active or past ones, are ended too.
        disconnect: bool,
    },
    /// The last rejected packets: answered with [`Rejections`](super::answers::Rejections).
    Rejections {
        /// Of which.
        of: Selection,
    },
    /// What is open now, then every [`WatchEvent`](super::answers::WatchEvent) from now on,
    /// each a line: answered with [`Watching`](super::answers::Watching).
    Watch,
    /// Has the guard enforce, since it is enabled: answered with
    /// [`Enforced`](super::answers::Enforced).
    Enforce,
    /// Has a guard that is not enabled enforce for this long: answered with
    /// [`TrialStarted`](super::answers::TrialStarted).
    StartTrial {
        /// For how long, in [`TRIAL`].
        seconds: u64,
    },
    /// Takes the guard down and ends the daemon: answered with
    /// [`TornDown`](super::answers::TornDown).
    Teardown,
}

/// A position in the list of grants, which is in the order of service, address and key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// The service.
    #[serde(with = "text")]
    pub service: oneknock_shared::name::ServiceName,
    /// The admitted address.
    #[serde(with = "text")]
    pub source: crate::engine::Source,
    /// The key.
    #[serde(with = "text")]
    pub key: KeyName,
}

impl Cursor {
    /// The position of a grant.
    #[must_use]
    pub fn of(grant: &Grant) -> Self {
        Self {
            service: grant.target.service,
            source: grant.target.source,
            key: (*grant.key).clone(),
        }
    }

    /// The target and the key.
    #[must_use]
    pub fn position(&self) -> (Target, &KeyName) {
        let target = Target {
            service: self.service,
            source: self.source,
        };
        (target, &self.key)
    }
}

/// Why a line is no command.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCommand {
    /// Longer than [`MAX_LINE`].
    #[error("the line is longer than {MAX_LINE} bytes")]
    TooLong,
    /// Not one JSON object.
    #[error("the line is not a JSON object")]
    NotAnObject,
    /// No version, or one that is not spoken here.
    #[error("v must be {VERSION}: this oneknockd speaks no other version")]
    Version,
    /// No such command, or one with other members.
    #[error("not a command: {0}")]
    Unknown(String),
}

/// Reads a line, without its end. Total: any bytes give a command or the reason why not.
pub fn parse(line: &[u8]) -> Result<Command, BadCommand> {
    if line.len() > MAX_LINE {
        return Err(BadCommand::TooLong);
    }
    let Ok(Value::Object(mut members)) = serde_json::from_slice(line) else {
        return Err(BadCommand::NotAnObject);
    };
    if members.remove("v").and_then(|v| v.as_u64()) != Some(VERSION) {
        return Err(BadCommand::Version);
    }
    let bad = |why: String| BadCommand::Unknown(crate::config::one_line(&why));
    let command = serde_json::from_value(Value::Object(members));
    match command.map_err(|error| bad(error.to_string()))? {
        Command::StartTrial { seconds } if !TRIAL.contains(&seconds) => {
            let (first, last) = (TRIAL.start(), TRIAL.end());
            Err(bad(format!("seconds must be {first} to {last}")))
        }
        Command::Revoke {
            of: Selection::Address(_) | Selection::All,
            generations,
            ..
        } if !generations.is_empty() => Err(bad("generations are those of a key".into())),
        command => Ok(command),
    }
}

impl Command {
    /// The line that [`parse`] reads back as this command, with its end.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut members = Map::new();
        members.insert("v".into(), VERSION.into());
        // Texts and numbers: there is nothing that could fail.
        if let Ok(Value::Object(own)) = serde_json::to_value(self) {
            members.extend(own);
        }
        format!("{}\n", Value::Object(members))
    }
}

/// Values that are said as they are printed.
mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::fmt::Display;
    use std::str::FromStr;

    pub fn serialize<S: Serializer>(value: &impl Display, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>, T>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
    {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ok(text: &str) -> Command {
        parse(text.as_bytes()).unwrap()
    }

    fn bad(text: &str) -> BadCommand {
        parse(text.as_bytes()).unwrap_err()
    }

    fn all() -> Vec<Command> {
        let key: KeyName = "laptop".parse().unwrap();
        let cursor = Cursor {
            service: "ssh".parse().unwrap(),
            source: "192.0.2.7".parse().unwrap(),
            key: key.clone(),
        };
        let revoke = |of, generations, disconnect| Command::Revoke {
            of,
            generations,
            disconnect,
        };
        vec![
            Command::Status,
            Command::Grants { after: None },
            Command::Grants {
                after: Some(cursor),
            },
            Command::Keys,
            Command::Reload,
            Command::ReloadKey { key: key.clone() },
            Command::Enforce,
            revoke(Selection::All, Vec::new(), false),
            revoke(Selection::Key(key.clone()), vec![1, 2], true),
            revoke(Selection::Address([192, 0, 2, 7].into()), Vec::new(), true),
            Command::Rejections {
                of: Selection::Key(key),
            },
            Command::Watch,
            Command::StartTrial { seconds: 600 },
            Command::Teardown,
        ]
    }

    #[test]
    fn command_that_is_written_is_read_back() {
        for command in all() {
            let line = command.to_line();
            assert_eq!(parse(line.trim_end().as_bytes()), Ok(command), "{line}");
        }
    }

    #[test]
    fn line_looks_as_it_is_documented() {
        let key = Selection::Key("laptop".parse().unwrap());
        let command = Command::Revoke {
            of: key,
            generations: Vec::new(),
            disconnect: true,
        };
        let want = r#"{"args":{"disconnect":true,"of":{"key":"laptop"}},"command":"revoke","v":1}"#;
        assert_eq!(command.to_line().trim_end(), want);
        assert_eq!(ok(r#"{"v":1,"command":"status"}"#), Command::Status);
    }

    #[test]
    fn line_that_is_not_understood_whole_is_refused() {
        assert_eq!(bad(&"x".repeat(MAX_LINE + 1)), BadCommand::TooLong);
        for text in ["", "hello", "[]", "7", "{\"v\":1"] {
            assert_eq!(bad(text), BadCommand::NotAnObject, "{text}");
        }
        for text in ["{}", r#"{"v":2,"command":"status"}"#, r#"{"v":"1"}"#] {
            assert_eq!(bad(text), BadCommand::Version, "{text}");
        }
        for text in [
            r#"{"v":1}"#,
            r#"{"v":1,"command":"open"}"#,
            r#"{"v":1,"command":"status","soon":true}"#,
            r#"{"v":1,"command":"revoke"}"#,
            r#"{"v":1,"command":"revoke","args":{"disconnect":false}}"#,
            r#"{"v":1,"command":"revoke","args":{"of":"all","disconnect":false,"soon":1}}"#,
            r#"{"v":1,"command":"revoke","args":{"of":{"key":"../x"},"disconnect":false}}"#,
            r#"{"v":1,"command":"revoke","args":{"of":"all","generations":[1],"disconnect":false}}"#,
            r#"{"v":1,"command":"start-trial","args":{"seconds":9}}"#,
            r#"{"v":1,"command":"start-trial","args":{"seconds":3601}}"#,
            r#"{"v":1,"command":"grants","args":{"after":{"service":"ssh"}}}"#,
        ] {
            assert!(matches!(bad(text), BadCommand::Unknown(_)), "{text}");
        }
    }

    #[test]
    fn selection_is_an_address_where_it_can_be_read_as_one() {
        let of = |text: &str| text.parse::<Selection>().unwrap();
        assert_eq!(
            of("::ffff:192.0.2.7"),
            Selection::Address([192, 0, 2, 7].into())
        );
        assert_eq!(of("laptop"), Selection::Key("laptop".parse().unwrap()));
        assert!("a b".parse::<Selection>().is_err());
    }

    proptest! {
        #[test]
        fn any_line_is_a_command_or_a_reason(line in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Err(why) = parse(&line) {
                prop_assert!(!why.to_string().contains(char::is_control));
            }
        }
    }
}
