//! Everything that ends a command: its words, its code and its exit status.
//!
//! Exit status, the same for every command: 0 done, 1 failed, 2 usage, 3 configuration
//! invalid. `oneknock ssh` gives ssh's own, and 127 where there is no ssh.

mod code;
mod hints;

use crate::knock::connect::describe;
use crate::knock::engine::EndpointOutcome;
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
    /// The environment names no folder to keep profiles in.
    #[error("no directory for profiles: neither XDG_CONFIG_HOME nor a home directory is known")]
    NoHome,
    /// There is no profile of this name.
    #[error("no profile {name}")]
    NoProfile {
        /// The wanted profile.
        name: KeyName,
        /// Those that there are.
        have: Vec<String>,
    },
    /// A profile's file cannot be opened, read, written or removed.
    #[error("cannot {what} {}: {why}", path.display())]
    File {
        /// "read", "write" or "remove".
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        why: io::Error,
    },
    /// A profile's file does not hold a profile.
    #[error("{}: {why}", path.display())]
    InvalidProfile {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line or field.
        why: String,
    },
    /// Others could read a profile's file, or change what is in its folder.
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
    #[error("refusing to take the invitation from the command line, where other users can see it")]
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
    /// The invitation's name for the profile is like another host's.
    #[error("the invitation names its profile {0}, which may be the name of another host")]
    LikeAHost(KeyName),
    /// The profile has an older secret of the same key.
    #[error("profile {name} has generation {has} of this key; this invitation is generation {new}")]
    OlderSecret {
        /// The profile.
        name: KeyName,
        /// Its generation.
        has: u32,
        /// The invitation's.
        new: u32,
    },
    /// Another profile has this name.
    #[error("profile {name} already exists and holds another key ({})", path.display())]
    ProfileExists {
        /// The name.
        name: KeyName,
        /// Its file.
        path: PathBuf,
    },
    /// The profile leads to no such service.
    #[error(
        "profile {profile} has no service {wanted} (services: {})",
        texts(have)
    )]
    NoService {
        /// The profile.
        profile: KeyName,
        /// What was asked for.
        wanted: ServiceName,
        /// What there is.
        have: Vec<ServiceName>,
    },
    /// No service of the profile has this TCP port.
    #[error(
        "profile {profile} has no service on tcp/{port} (ports: {})",
        texts(have)
    )]
    NoPort {
        /// The profile.
        profile: KeyName,
        /// What was asked for.
        port: u16,
        /// What there is.
        have: Vec<Ports>,
    },
    /// The service has UDP ports only, and TCP is needed.
    #[error("service {service} of profile {profile} has no TCP port")]
    NoTcp {
        /// The profile.
        profile: KeyName,
        /// The service.
        service: ServiceName,
    },
    /// `--address` names what no server admits.
    #[error(
        "{0} cannot be admitted: it is unspecified, loopback, link-local, multicast or broadcast"
    )]
    Inadmissible(IpAddr),
    /// `--address source`, and the server demands a signed address.
    #[error("the server of profile {0} demands a signed address: --address source is not possible")]
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
    #[error("no packet could be sent: {}", texts(errors))]
    NotSent {
        /// One for each address.
        errors: Vec<String>,
    },
    /// The port did not open in time.
    #[error(
        "{profile}: tcp/{port} still unreachable after {} ({})",
        seconds(*timeout),
        texts(&describe(endpoints, *knock_port, Some(*port)))
    )]
    NoAnswer {
        /// The profile.
        profile: KeyName,
        /// How long it was tried.
        timeout: Duration,
        /// The TCP port that was tried.
        port: u16,
        /// The UDP port that was knocked on.
        knock_port: u16,
        /// This machine's time, in UTC.
        clock: String,
        /// Whether the port sequence came last.
        by_sequence: bool,
        /// What is known of each address.
        endpoints: Vec<(IpAddr, EndpointOutcome)>,
    },
    /// The knock left, and it is known that nothing takes it.
    #[error(
        "{profile}: the knock for {service} was refused ({})",
        texts(&describe(endpoints, *knock_port, None))
    )]
    KnockRefused {
        /// The profile.
        profile: KeyName,
        /// The service.
        service: ServiceName,
        /// The UDP port that was knocked on.
        knock_port: u16,
        /// What is known of each address.
        endpoints: Vec<(IpAddr, EndpointOutcome)>,
    },
    /// The profile has no port sequence for the service.
    #[error("profile {profile} has no port sequence{}", service.map(|s| format!(" for {s}")).unwrap_or_default())]
    NoSequence {
        /// The profile.
        profile: KeyName,
        /// The service.
        service: Option<ServiceName>,
    },
    /// The port answers, and refuses.
    #[error(
        "{profile}: the knock was probably accepted, but tcp/{port} is refused ({})",
        texts(&endpoints.iter().map(|(address, _)| address).collect::<Vec<_>>())
    )]
    PortRefused {
        /// The profile.
        profile: KeyName,
        /// The port that was tried.
        port: u16,
        /// What is known of each address.
        endpoints: Vec<(IpAddr, EndpointOutcome)>,
    },
    /// `-4` or `-6`, and an address of the other family.
    #[error("{address} is not an address of {family}, which is asked for")]
    OtherFamily {
        /// The address that was given.
        address: IpAddr,
        /// The family that was asked for.
        family: &'static str,
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
    #[error("the path of this program cannot be written into ssh's configuration: {0}")]
    Program(String),
    /// The text before the @ is not a user's name.
    #[error("{0:?} is not a valid user name")]
    User(String),
    /// Another call rotates this profile just now.
    #[error("another oneknock is rotating or changing profile {0}")]
    Rotating(KeyName),
    /// The server gave no new secret; nothing has changed here.
    #[error("key rotation failed: {why}; the current key of profile {profile} still works")]
    NotRotated {
        /// The profile.
        profile: KeyName,
        /// Why.
        why: String,
    },
    /// The new secret is stored, and was not seen to work.
    #[error(
        "rotation incomplete: generation {generation} of profile {profile} is saved, the old one has not ended: {why}"
    )]
    Unfinished {
        /// The profile.
        profile: KeyName,
        /// The new generation.
        generation: u32,
        /// Why.
        why: String,
    },
    /// There is no rotation under way.
    #[error("no rotation of profile {0} is in progress")]
    NoNext(KeyName),
    /// The system refused what every program needs.
    #[error("{what}: {why}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// The system's reason.
        why: io::Error,
    },
    /// Of several profiles some failed; each was named already.
    #[error("{failed} of {count} profiles failed")]
    SomeFailed {
        /// So many did.
        failed: usize,
        /// Of so many.
        count: usize,
    },
    /// Nobody reads standard output any more: nothing is said.
    #[error("standard output is closed")]
    ClosedPipe,
    /// Some profiles were listed, others are broken; each was named already.
    #[error("{} invalid", if *_0 == 1 { "1 profile is".into() } else { format!("{_0} profiles are") })]
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
            Self::ClosedPipe => 0,
            Self::File { what: "read", .. }
            | Self::InvalidProfile { .. }
            | Self::Unsafe { .. }
            | Self::SomeBroken(_)
            | Self::NoHome => 3,
            Self::NoAddress { .. }
            | Self::File { .. }
            | Self::NotSent { .. }
            | Self::NoAnswer { .. }
            | Self::KnockRefused { .. }
            | Self::PortRefused { .. }
            | Self::Relay { .. }
            | Self::NotRotated { .. }
            | Self::Unfinished { .. }
            | Self::Rotating(_)
            | Self::SomeFailed { .. }
            | Self::System { .. } => 1,
            Self::Ssh(_) => 127,
            _ => 2,
        }
    }
}

/// A time as people say it.
fn seconds(time: Duration) -> String {
    if time.subsec_millis() == 0 {
        format!("{} s", time.as_secs())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

fn texts<T: ToString>(list: &[T]) -> String {
    let all: Vec<String> = list.iter().map(ToString::to_string).collect();
    all.join(", ")
}
