//! What is said to the person, and the exit status.
//!
//! - `oneknock: what happened: why`, one line on standard error, lower case, no full
//!   stop.
//! - A line `hint: what to do` for each thing that there is to do.
//! - Files, fields and addresses are named; a secret is never repeated, and what came
//!   from elsewhere cannot bring control characters to the terminal.
//! - 2: usage or configuration, nothing was tried. 1: tried and failed.

use oneknock_shared::invitation::BadInvitation;
use oneknock_shared::name::{BadName, Host, KeyName, ServiceName};
use oneknock_shared::port::Ports;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that ends a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line is not one; clap's own words.
    #[error("{what}")]
    Usage {
        /// What is wrong with it.
        what: String,
        /// What may have been meant.
        tip: Option<String>,
    },
    /// A name does not follow its grammar.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The environment names no folder to keep doors in.
    #[error("there is no folder for doors: neither XDG_CONFIG_HOME nor a home folder is known")]
    NoHome,
    /// There is no door of this name.
    #[error("there is no door {name}: {} does not exist", path.display())]
    NoDoor {
        /// The wanted door.
        name: KeyName,
        /// Where it would be.
        path: PathBuf,
    },
    /// A door's file cannot be opened, read, written or removed.
    #[error("cannot {what} {}: {why}", path.display())]
    File {
        /// "read", "write" or "remove".
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        why: io::Error,
    },
    /// A door's file does not hold a door.
    #[error("{}: {why}", path.display())]
    BrokenDoor {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line or field.
        why: String,
    },
    /// Others could read a door's file, or change what is in its folder.
    #[error("{} is not safe: {why}", path.display())]
    Unsafe {
        /// The file or folder.
        path: PathBuf,
        /// Who could do what.
        why: &'static str,
        /// The command that mends it.
        mend: String,
    },
    /// The invitation cannot be read.
    #[error("cannot read the invitation from {from}: {why}")]
    NoInvitation {
        /// The file, or "standard input".
        from: String,
        /// The system's reason.
        why: io::Error,
    },
    /// The invitation itself stands where its file should be named.
    #[error("an invitation is not given as an argument, where others can see it")]
    InvitationAsFile,
    /// What was read is not one line.
    #[error("{from} does not hold an invitation: {why}")]
    NotOneLine {
        /// The file, or "standard input".
        from: String,
        /// What it holds.
        why: &'static str,
    },
    /// The line is not an invitation.
    #[error("{from}: {why}")]
    Invitation {
        /// The file, or "standard input".
        from: String,
        /// What is wrong with it.
        why: BadInvitation,
    },
    /// The invitation's name for the door is like another host's.
    #[error("the invitation calls its door {0}, which may be another host's name")]
    LikeAHost(KeyName),
    /// The door has an older secret of the same key.
    #[error("door {name} has an older secret of the same key: generation {has}, and this is {new}")]
    OlderSecret {
        /// The door.
        name: KeyName,
        /// Its generation.
        has: u32,
        /// The invitation's.
        new: u32,
    },
    /// Another door has this name.
    #[error("there is a door {name} already, and it is another one: {}", path.display())]
    DoorExists {
        /// The name.
        name: KeyName,
        /// Its file.
        path: PathBuf,
    },
    /// The door leads to no such service.
    #[error("door {door} has no service {wanted}, only {}", texts(have))]
    NoService {
        /// The door.
        door: KeyName,
        /// What was asked for.
        wanted: ServiceName,
        /// What there is.
        have: Vec<ServiceName>,
    },
    /// No service of the door has this TCP port.
    #[error("door {door} has no service on tcp/{port}, only {}", texts(have))]
    NoPort {
        /// The door.
        door: KeyName,
        /// What was asked for.
        port: u16,
        /// What there is.
        have: Vec<Ports>,
    },
    /// The service has UDP ports only, and TCP is needed.
    #[error("service {service} of door {door} has no tcp port")]
    NoTcp {
        /// The door.
        door: KeyName,
        /// The service.
        service: ServiceName,
    },
    /// `--address` names what no server admits.
    #[error(
        "{0} cannot be admitted: it is unspecified, loopback, link-local, multicast or broadcast"
    )]
    Inadmissible(IpAddr),
    /// `--address source`, and the server demands a signed address.
    #[error("door {0} demands a signed address: --address source cannot open it")]
    SourceRefused(KeyName),
    /// The host's name gives no address.
    #[error("{host} has no address: {why}")]
    NoAddress {
        /// The host.
        host: Host,
        /// Why.
        why: String,
    },
    /// No packet could be sent.
    #[error("no packet could be sent: {}", texts(troubles))]
    NotSent {
        /// One for each address.
        troubles: Vec<String>,
    },
    /// The door did not open in time.
    #[error(
        "door {door} did not open within {}: {}",
        humantime::format_duration(*timeout),
        texts(troubles)
    )]
    NotOpen {
        /// The door.
        door: KeyName,
        /// How long it was tried.
        timeout: Duration,
        /// The UDP port that was knocked on.
        port: u16,
        /// This machine's time, in UTC.
        clock: String,
        /// An address says that nothing takes knocks there.
        knock_refused: bool,
        /// One for each address.
        troubles: Vec<String>,
    },
    /// The door has no port sequence for the service.
    #[error("door {door} has no port sequence{}", service.map(|s| format!(" for {s}")).unwrap_or_default())]
    NoSequence {
        /// The door.
        door: KeyName,
        /// The service.
        service: Option<ServiceName>,
    },
    /// The door did not open by its sequence.
    #[error(
        "door {door} did not open within {}, by its port sequence last: {}",
        humantime::format_duration(*timeout),
        texts(troubles)
    )]
    SequenceInVain {
        /// The door.
        door: KeyName,
        /// How long it was tried.
        timeout: Duration,
        /// One for each address.
        troubles: Vec<String>,
    },
    /// The port answers, and refuses.
    #[error("nothing listens behind door {door}: {}", texts(troubles))]
    NothingListens {
        /// The door.
        door: KeyName,
        /// The port that was tried.
        port: u16,
        /// One for each address.
        troubles: Vec<String>,
    },
    /// The connection broke, or standard input or output did.
    #[error("{what}: {why}")]
    Relay {
        /// Which of them.
        what: &'static str,
        /// The system's reason.
        why: io::Error,
    },
    /// There is no ssh.
    #[error("cannot run ssh: {0}")]
    Ssh(io::Error),
    /// Only such a path can be written into ssh's configuration.
    #[error("this program's own path cannot be given to ssh: {0}")]
    Program(String),
    /// The text before the @ is not a user's name.
    #[error("{0:?} is not a user name that can be given to ssh here")]
    User(String),
    /// Another call rotates this door just now.
    #[error("another oneknock rotates door {0} just now")]
    Rotating(KeyName),
    /// The server gave no new secret; nothing has changed here.
    #[error("door {door} has no new secret: {why}")]
    NotRotated {
        /// The door.
        door: KeyName,
        /// Why.
        why: String,
    },
    /// The new secret is stored, and was not seen to work.
    #[error("generation {generation} of door {door} is stored and the old one not ended: {why}")]
    Unfinished {
        /// The door.
        door: KeyName,
        /// The new generation.
        generation: u32,
        /// Why.
        why: String,
    },
    /// There is no rotation under way.
    #[error("no rotation of door {0} is under way")]
    NoNext(KeyName),
    /// The system refused what every program needs.
    #[error("{what}: {why}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// The system's reason.
        why: io::Error,
    },
    /// Some doors were listed, others are broken; each was named already.
    #[error("{0} of the doors cannot be used")]
    SomeBroken(usize),
}

impl Error {
    /// clap's message as one line, and its tip.
    #[must_use]
    pub fn usage(mistake: &clap::Error) -> Self {
        let text = mistake.to_string();
        let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut parts = text.split("\n\n");
        let what = parts.next().unwrap_or_default();
        let tip = parts.find_map(|part| part.trim_start().strip_prefix("tip: "));
        // "use '-- -x'": nothing that is taken here begins with a hyphen.
        let tip = tip.filter(|tip| !tip.starts_with("to pass "));
        Self::Usage {
            what: one_line(what.strip_prefix("error: ").unwrap_or(what)),
            tip: tip.map(one_line),
        }
    }

    /// The exit status.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::NoAddress { .. }
            | Self::NotSent { .. }
            | Self::NotOpen { .. }
            | Self::SequenceInVain { .. }
            | Self::NothingListens { .. }
            | Self::Relay { .. }
            | Self::NotRotated { .. }
            | Self::Unfinished { .. }
            | Self::Rotating(_)
            | Self::System { .. } => 1,
            Self::Ssh(_) => 127,
            _ => 2,
        }
    }

    /// What to do about it, a line each.
    #[must_use]
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Usage { tip, .. } => {
                let help = "oneknock --help, or oneknock COMMAND --help";
                tip.iter().cloned().chain([help.into()]).collect()
            }
            Self::NoDoor { .. } => vec![
                "oneknock list shows what there is; oneknock import makes a door from an invitation"
                    .into(),
            ],
            Self::BrokenDoor { .. } => {
                vec!["remove the door and import its invitation again".into()]
            }
            Self::Unsafe { mend, .. } => vec![mend.clone()],
            Self::NotOneLine { .. } | Self::Invitation { .. } => {
                vec!["ask for it again: oneknockctl key invite NAME prints one line, all of which is needed".into()]
            }
            Self::DoorExists { name, .. } => {
                vec![format!("import it as another with --name, or in the place of door {name} with --replace")]
            }
            Self::OlderSecret { .. } => {
                vec!["oneknock import --replace: this one takes the place of the older".into()]
            }
            Self::InvitationAsFile => {
                vec!["give it on standard input: oneknock import, then paste it".into()]
            }
            Self::LikeAHost(_) => {
                vec!["give the door a name of your own: oneknock import --name NAME".into()]
            }
            Self::User(_) => vec!["give it with -l after the door's name".into()],
            Self::NoAddress { .. } => vec!["is this machine online, and is the name right?".into()],
            Self::NotRotated { .. } => vec![
                "nothing has changed here: mend what was said above, and run it again within a week: where the server has begun the rotation all the same, the old secret ends then".into(),
                "the command must run at the server without asking for anything: give --user root, or --command 'sudo oneknockctl'".into(),
                "if the door does not open either, its secret may have ended at the server: bring over what \"oneknockctl key invite\" prints there, and: oneknock import --replace".into(),
            ],
            Self::Unfinished { .. } => {
                vec!["the door opens with either; run it again to complete it, or if it never does, bring over what \"oneknockctl key invite\" prints at the server, and: oneknock import --replace".into()]
            }
            Self::Ssh(_) => vec!["install OpenSSH's client".into()],
            Self::NotOpen {
                port,
                clock,
                knock_refused,
                ..
            } => {
                let at_server = format!(
                    "does oneknockd run at the server? The answer came that nothing takes knocks on udp/{port}; at the server, oneknockctl status tells"
                );
                let rest = [
                    format!("is the server up, and does its router forward udp/{port} and the service's port to it?"),
                    format!("is the clock right? Here it is {clock}"),
                    "at the server, oneknockctl why and oneknockd's log say why a knock of a known key was refused; where they say nothing, the packet did not arrive, or its key is not the server's any more".into(),
                ];
                let first = knock_refused.then_some(at_server);
                first.into_iter().chain(rest).collect()
            }
            Self::SequenceInVain { .. } => vec![
                "does the server's router forward every port of the sequence, and the service's, and leave the sources as they are?".into(),
                "a step that was lost, or a connection to another port of the server, costs this machine's address a penalty there: wait a minute without one, and try again".into(),
            ],
            Self::NoSequence { .. } => vec![
                "where the server has one, its administrator gives a new invitation with it: oneknockctl key invite NAME (a key that is to sign its address, or may open for less, has none: oneknockctl check)".into(),
            ],
            Self::NothingListens { port, .. } => vec![
                format!("the knock was probably accepted, and the service is down: is it running at the server, on tcp/{port}?"),
                format!("a router in front that does not pass tcp/{port} on may refuse it in the server's place"),
            ],
            _ => Vec::new(),
        }
    }
}

fn texts<T: ToString>(list: &[T]) -> String {
    let all: Vec<String> = list.iter().map(ToString::to_string).collect();
    all.join(", ")
}

/// Says a line to the person, on standard error.
pub fn say(text: &str) {
    eprint_line("oneknock", text);
}

/// Says what the person may do next.
pub fn hint(text: &str) {
    eprint_line("hint", text);
}

fn eprint_line(prefix: &str, text: &str) {
    use io::Write;
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "{prefix}: {}", printable(text));
}

fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_without_control_characters() {
        assert_eq!(printable("a\nb\u{1b}[31mä"), "a\\nb\\u{1b}[31mä");
    }
}
