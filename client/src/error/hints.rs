//! What a person can do about an error.

use super::Error;
use crate::knock::engine::{EndpointOutcome, Refusal};
use oneknock_shared::name::KeyName;
use std::net::IpAddr;

impl Error {
    /// What to do about it, a line each.
    #[must_use]
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Usage { tip, .. } => {
                let help = "oneknock --help, or oneknock COMMAND --help";
                tip.iter().cloned().chain([help.into()]).collect()
            }
            Self::NoProfile { .. } => vec![
                "oneknock list shows what there is; oneknock import makes a profile from an invitation"
                    .into(),
            ],
            Self::InvalidProfile { .. } => {
                vec!["remove the profile and import its invitation again".into()]
            }
            Self::Unsafe { mend, .. } => vec![mend.clone()],
            Self::NotOneLine { .. } | Self::Invitation { .. } => {
                vec!["ask for it again: oneknockctl key invite NAME prints one line, all of which is needed".into()]
            }
            Self::ProfileExists { name, .. } => {
                vec![format!("import it as another with --name, or in the place of profile {name} with --replace")]
            }
            Self::OlderSecret { .. } => {
                vec!["oneknock import --replace: this one takes the place of the older".into()]
            }
            Self::InvitationAsFile => {
                vec!["give it on standard input: oneknock import, then paste it".into()]
            }
            Self::LikeAHost(_) => {
                vec!["give the profile a name of your own: oneknock import --name NAME".into()]
            }
            Self::User(_) => vec!["give it with -l after the profile's name".into()],
            Self::NoAddress { .. } => vec!["is this machine online, and is the name right?".into()],
            Self::NotRotated { .. } => vec![
                "nothing has changed here: mend what was said above, and run it again within a week: where the server has begun the rotation all the same, the old secret ends then".into(),
                "the command must run at the server without asking for anything: give --user root, or --command 'sudo oneknockctl'".into(),
                "if the port does not open either, its secret may have ended at the server: bring over what \"oneknockctl key invite\" prints there, and: oneknock import --replace".into(),
            ],
            Self::Unfinished { .. } => {
                vec!["the port opens with either; run it again to complete it, or if it never does, bring over what \"oneknockctl key invite\" prints at the server, and: oneknock import --replace".into()]
            }
            Self::Ssh(_) => vec!["install OpenSSH's client".into()],
            Self::NoAnswer {
                by_sequence: true, ..
            } => vec![
                "the server's router has to forward every port of the sequence and the service's, and keep source addresses".into(),
                "a lost step, or a connection to another port of the server, costs this computer's address a penalty there: wait a minute and try again".into(),
            ],
            Self::NoAnswer {
                profile,
                knock_port,
                clock,
                endpoints,
                ..
            } => no_answer(profile, *knock_port, clock, endpoints),
            Self::KnockRefused { knock_port, .. } => vec![nothing_listens(*knock_port)],
            Self::NotSent { .. } => {
                vec!["check that this computer is online and has an address of that family".into()]
            }
            Self::NoSequence { .. } => vec![
                "where the server has one, its administrator gives a new invitation with it: oneknockctl key invite NAME (a key that is to sign its address, or may open for less, has none: oneknockctl check)".into(),
            ],
            Self::PortRefused { port, .. } => vec![
                format!("check on the server that the service is running on tcp/{port}"),
                format!("a router that does not forward tcp/{port} may refuse it in the server's place"),
            ],
            _ => Vec::new(),
        }
    }
}

fn nothing_listens(knock_port: u16) -> String {
    format!(
        "oneknockd is not running, or the router forwards udp/{knock_port} elsewhere: run \"oneknockctl status\" on the server"
    )
}

fn no_answer(
    profile: &KeyName,
    knock_port: u16,
    clock: &str,
    endpoints: &[(IpAddr, EndpointOutcome)],
) -> Vec<String> {
    let any = |wanted: &EndpointOutcome| endpoints.iter().any(|(_, outcome)| outcome == wanted);
    let mut hints = Vec::new();
    if any(&EndpointOutcome::KnockRefused(Refusal::PortUnreachable)) {
        hints.push(nothing_listens(knock_port));
    }
    if any(&EndpointOutcome::Mute) || any(&EndpointOutcome::Closed) {
        hints.push("something on the way answers in the server's place, such as a transparent proxy; the server sees another address then: run \"oneknockctl why\" there".into());
    }
    hints.extend([
        format!("check that the server is up, and that its router forwards udp/{knock_port} and the service's port to it"),
        format!("check this computer's clock (it says {clock}); knocks that are off by more than 30 s are rejected"),
        "on the server run \"oneknockctl why\"; if it lists nothing, the packet never arrived, or this key was removed".into(),
        format!("oneknock doctor {profile} looks for the cause from here"),
    ]);
    hints
}
