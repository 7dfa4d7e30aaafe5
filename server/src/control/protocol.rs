//! What is said over the control socket: JSON lines, versioned. Pure: bytes in, values
//! out.
//!
//! A connection carries one command, a line of at most [`MAX_LINE`] bytes, and its answer,
//! one line; after `watch` lines follow as things happen. A line that is not understood to
//! its last member is refused: an older daemon must not do half of what a newer
//! oneknockctl asked for.

use crate::config::Config;
use crate::gate::Place;
use oneknock_shared::name::KeyName;
use serde_json::{Map, Value};
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// The version of what is said here.
pub const VERSION: u64 = 1;

/// A command is never longer than this, in bytes, its line's end not counted.
pub const MAX_LINE: usize = 4096;

/// How long a trial of the guard may last, in seconds: time enough to come in, and not so
/// much that who is locked out waits for hours.
pub const TRIAL: RangeInclusive<u64> = 10..=3600;

/// Whom a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A key.
    Key(KeyName),
    /// An admitted or refused address, never an IPv4-mapped one.
    Address(IpAddr),
}

impl Who {
    /// Whether what the port sequence has opened for an address is meant by it, or by all
    /// without; no key has a part in that.
    #[must_use]
    pub fn means_walked(who: Option<&Self>, address: IpAddr) -> bool {
        match who {
            None => true,
            Some(Self::Address(of)) => *of == address,
            Some(Self::Key(_)) => false,
        }
    }

    /// Where the port sequence may have let in connections that are to be cut: nothing is
    /// recorded of it. An address that is meant is one; of all it is those that were
    /// `turned_away`.
    #[must_use]
    pub fn walked_places(
        who: Option<&Self>,
        config: &Config,
        turned_away: &[IpAddr],
    ) -> Vec<Place> {
        let addresses = match who {
            None => turned_away,
            Some(Self::Address(address)) => std::slice::from_ref(address),
            Some(Self::Key(_)) => &[],
        };
        let service = config.sequence.iter().map(|sequence| sequence.service);
        let places = |service| {
            addresses
                .iter()
                .map(move |&address| Place { service, address })
        };
        service.flat_map(places).collect()
    }
}

impl FromStr for Who {
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

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "key {key}"),
            Self::Address(address) => write!(f, "address {address}"),
        }
    }
}

/// What a peer asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// How the daemon is: answered with a [`Status`](super::answers::Status).
    Status,
    /// The live grants that come after this one: answered with [`Grants`](super::answers::Grants).
    Grants(Option<After>),
    /// Puts what is on disk in force: answered with [`Reloaded`](super::answers::Reloaded).
    Reload,
    /// Ends the grants of one, or of all: answered with [`Revoked`](super::answers::Revoked).
    Revoke(Option<Who>),
    /// Ends the connections that these grants let in, live or past ones: answered with
    /// [`Cut`](super::answers::Cut).
    Cut {
        /// Whose or to whom; all without.
        who: Option<Who>,
        /// Of this generation of the key alone.
        generation: Option<u32>,
    },
    /// The last refusals, of all or of one: answered with [`Refusals`](super::answers::Refusals).
    Why(Option<Who>),
    /// What is open now, then every [`Event`](super::answers::Event) from now on, each a
    /// line: answered with [`Watching`](super::answers::Watching).
    Watch,
    /// Puts a guard that is on trial up for so long, in whole seconds: answered with
    /// [`TriedOut`](super::answers::TriedOut).
    TryOut(Duration),
    /// Takes the guard down and ends the daemon: answered with [`TornDown`](super::answers::TornDown).
    Teardown,
}

/// A place in the list of grants, which is in the order of service, address and key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct After {
    /// The service and the admitted address.
    pub place: Place,
    /// The key.
    pub key: KeyName,
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
    /// No command, or an unknown one.
    #[error("there is no such command")]
    Unknown,
    /// A member that the command does not have, or with a value that it cannot have.
    #[error("{0} does not fit this command")]
    Member(&'static str),
    /// A member that no command has.
    #[error("an unknown member")]
    UnknownMember,
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
    let Some(Value::String(name)) = members.remove("command") else {
        return Err(BadCommand::Unknown);
    };
    let members = &mut members;
    let command = match name.as_str() {
        "status" => Command::Status,
        "grants" => Command::Grants(after(members)?),
        "reload" => Command::Reload,
        "revoke" => Command::Revoke(who_or_all(members)?),
        "cut" => {
            let who = who_or_all(members)?;
            let generation = members.remove("generation");
            let generation = match (generation, &who) {
                (None, _) => None,
                (Some(number), Some(Who::Key(_))) => {
                    let number = number.as_u64().and_then(|n| u32::try_from(n).ok());
                    Some(number.ok_or(BadCommand::Member("generation"))?)
                }
                _ => return Err(BadCommand::Member("generation")),
            };
            Command::Cut { who, generation }
        }
        "why" => Command::Why(who(members)?),
        "watch" => Command::Watch,
        "try-out" => {
            let seconds = members.remove("seconds").and_then(|s| s.as_u64());
            let seconds = seconds.filter(|seconds| TRIAL.contains(seconds));
            Command::TryOut(Duration::from_secs(
                seconds.ok_or(BadCommand::Member("seconds"))?,
            ))
        }
        "teardown" => Command::Teardown,
        _ => return Err(BadCommand::Unknown),
    };
    if members.is_empty() {
        Ok(command)
    } else {
        Err(BadCommand::UnknownMember)
    }
}

fn after(members: &mut Map<String, Value>) -> Result<Option<After>, BadCommand> {
    let mut members = match members.remove("after") {
        None => return Ok(None),
        Some(Value::Object(members)) => members,
        Some(_) => return Err(BadCommand::Member("after")),
    };
    let members = &mut members;
    let parts = (
        text(members, "service")?,
        text(members, "address")?,
        text(members, "key")?,
    );
    match parts {
        (Some(service), Some(address), Some(key)) if members.is_empty() => Ok(Some(After {
            place: Place { service, address },
            key,
        })),
        _ => Err(BadCommand::Member("after")),
    }
}

/// Whoever names nobody does not mean everybody.
fn who_or_all(members: &mut Map<String, Value>) -> Result<Option<Who>, BadCommand> {
    match (who(members)?, members.remove("all")) {
        (Some(who), None) => Ok(Some(who)),
        (None, Some(Value::Bool(true))) => Ok(None),
        _ => Err(BadCommand::Member("key, address or all")),
    }
}

fn who(members: &mut Map<String, Value>) -> Result<Option<Who>, BadCommand> {
    let key = text(members, "key")?.map(Who::Key);
    let address = text(members, "address")?.map(|a: IpAddr| Who::Address(a.to_canonical()));
    match (key, address) {
        (Some(_), Some(_)) => Err(BadCommand::Member("key and address together")),
        (key, address) => Ok(key.or(address)),
    }
}

fn text<T: FromStr>(
    members: &mut Map<String, Value>,
    name: &'static str,
) -> Result<Option<T>, BadCommand> {
    let Some(value) = members.remove(name) else {
        return Ok(None);
    };
    let value = value.as_str().and_then(|text| text.parse().ok());
    value.map(Some).ok_or(BadCommand::Member(name))
}

impl Command {
    /// The line that [`parse`] reads back as this command, with its end.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut members = Map::new();
        members.insert("v".into(), VERSION.into());
        let name = match self {
            Self::Status => "status",
            Self::Grants(_) => "grants",
            Self::Reload => "reload",
            Self::Revoke(_) => "revoke",
            Self::Cut { .. } => "cut",
            Self::Why(_) => "why",
            Self::Watch => "watch",
            Self::TryOut(_) => "try-out",
            Self::Teardown => "teardown",
        };
        members.insert("command".into(), name.into());
        match self {
            Self::Grants(Some(after)) => {
                let after = serde_json::json!({
                    "service": after.place.service.as_str(),
                    "address": after.place.address,
                    "key": after.key.as_str(),
                });
                members.insert("after".into(), after);
            }
            Self::TryOut(time) => {
                members.insert("seconds".into(), time.as_secs().into());
            }
            Self::Revoke(None) | Self::Cut { who: None, .. } => {
                members.insert("all".into(), true.into());
            }
            Self::Revoke(Some(who)) | Self::Why(Some(who)) | Self::Cut { who: Some(who), .. } => {
                let (name, value) = match who {
                    Who::Key(key) => ("key", key.to_string()),
                    Who::Address(address) => ("address", address.to_string()),
                };
                members.insert(name.into(), value.into());
            }
            _ => {}
        }
        if let Self::Cut {
            generation: Some(number),
            ..
        } = self
        {
            members.insert("generation".into(), (*number).into());
        }
        format!("{}\n", Value::Object(members))
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
        let laptop = Who::Key("laptop".parse().unwrap());
        let address = Who::Address([192, 0, 2, 7].into());
        vec![
            Command::Status,
            Command::Grants(None),
            Command::Grants(Some(After {
                place: Place {
                    service: "ssh".parse().unwrap(),
                    address: [192, 0, 2, 7].into(),
                },
                key: "laptop".parse().unwrap(),
            })),
            Command::Reload,
            Command::Revoke(None),
            Command::Revoke(Some(laptop.clone())),
            Command::Revoke(Some(address.clone())),
            Command::Cut {
                who: None,
                generation: None,
            },
            Command::Cut {
                who: Some(laptop.clone()),
                generation: Some(2),
            },
            Command::Cut {
                who: Some(address.clone()),
                generation: None,
            },
            Command::Why(None),
            Command::Why(Some(laptop)),
            Command::Why(Some(address)),
            Command::Watch,
            Command::TryOut(Duration::from_secs(60)),
            Command::Teardown,
        ]
    }

    #[test]
    fn every_command_is_read_back_as_it_was_written() {
        for command in all() {
            let line = command.to_line();
            assert_eq!(parse(line.trim_end().as_bytes()), Ok(command), "{line}");
            assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
        }
    }

    #[test]
    fn revoking_nobody_is_not_revoking_everybody() {
        let member = BadCommand::Member("key, address or all");
        assert_eq!(bad(r#"{"v":1,"command":"cut"}"#), member);
        assert_eq!(
            bad(r#"{"v":1,"command":"cut","all":true,"generation":1}"#),
            BadCommand::Member("generation")
        );
        assert_eq!(bad(r#"{"v":1,"command":"revoke"}"#), member);
        assert_eq!(bad(r#"{"v":1,"command":"revoke","all":false}"#), member);
        assert_eq!(
            bad(r#"{"v":1,"command":"revoke","all":true,"key":"a"}"#),
            member
        );
    }

    #[test]
    fn what_is_not_understood_to_the_end_is_refused() {
        let cut = r#"{"v":1,"command":"revoke","key":"laptop","cut":true}"#;
        assert_eq!(bad(cut), BadCommand::UnknownMember);
        assert_eq!(
            bad(r#"{"v":1,"command":"status","key":"laptop"}"#),
            BadCommand::UnknownMember
        );
        assert_eq!(bad(r#"{"v":2,"command":"status"}"#), BadCommand::Version);
        assert_eq!(bad(r#"{"v":"1","command":"status"}"#), BadCommand::Version);
        assert_eq!(bad(r#"{"command":"status"}"#), BadCommand::Version);
        assert_eq!(bad(r#"{"v":1}"#), BadCommand::Unknown);
        assert_eq!(bad(r#"{"v":1,"command":"open"}"#), BadCommand::Unknown);
        assert_eq!(
            bad(r#"{"v":1,"command":"why","key":"a","address":"192.0.2.7"}"#),
            BadCommand::Member("key and address together")
        );
        for seconds in ["9", "3601", "-1", "60.5", "\"60\"", "null"] {
            let line = format!(r#"{{"v":1,"command":"try-out","seconds":{seconds}}}"#);
            assert_eq!(bad(&line), BadCommand::Member("seconds"), "{line}");
        }
        for key in [r#""""#, r#""../x""#, "3", "null", r#"["a"]"#] {
            let line = format!(r#"{{"v":1,"command":"why","key":{key}}}"#);
            assert_eq!(bad(&line), BadCommand::Member("key"), "{line}");
        }
    }

    #[test]
    fn what_is_no_object_of_a_bounded_line_is_refused() {
        for text in ["", "[]", "1", "status", "{", "{}x", "\u{0}", "[[[[[[["] {
            assert_eq!(bad(text), BadCommand::NotAnObject, "{text}");
        }
        assert_eq!(parse(&[0xff, 0xfe]), Err(BadCommand::NotAnObject));
        let deep = "[".repeat(MAX_LINE);
        assert_eq!(bad(&deep), BadCommand::NotAnObject);
        assert_eq!(parse(&[b' '; MAX_LINE + 1]), Err(BadCommand::TooLong));
    }

    #[test]
    fn a_mapped_address_is_the_address_that_it_maps() {
        let mapped = r#"{"v":1,"command":"why","address":"::ffff:192.0.2.7"}"#;
        assert_eq!(
            ok(mapped),
            Command::Why(Some(Who::Address([192, 0, 2, 7].into())))
        );
        assert_eq!(
            "::ffff:192.0.2.7".parse(),
            Ok(Who::Address([192, 0, 2, 7].into()))
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn an_edited_command_is_a_command_or_refused(
            which in 0_usize..16, at in any::<prop::sample::Index>(), byte in any::<u8>()
        ) {
            let mut line = all()[which].to_line().into_bytes();
            line.pop();
            let at = at.index(line.len());
            line[at] = byte;
            if let Ok(command) = parse(&line) {
                let again = command.to_line();
                prop_assert_eq!(parse(again.trim_end().as_bytes()), Ok(command));
            }
        }
    }
}
