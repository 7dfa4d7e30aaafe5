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
            Self::NoProfile { have, .. } if have.is_empty() => {
                vec!["import one: oneknock import INVITATION-FILE".into()]
            }
            Self::NoProfile { have, .. } => vec![format!("the profiles are: {}", have.join(", "))],
            Self::InvalidProfile { .. } => {
                vec!["fix the file; \"oneknockctl key invite NAME\" on the server prints its invitation again".into()]
            }
            Self::Unsafe { mend, .. } => vec![mend.clone()],
            Self::NotOneLine { .. } | Self::Invitation { .. } => {
                vec!["copy the whole line that \"oneknockctl key invite NAME\" prints on the server".into()]
            }
            Self::ProfileExists { .. } => {
                vec!["--name NAME imports it under another name, --replace in place of that profile".into()]
            }
            Self::OlderSecret { .. } => vec!["use --replace to update it".into()],
            Self::InvitationAsFile => {
                vec!["name a file, or run \"oneknock import\" and paste the line".into()]
            }
            Self::LikeAHost(_) => vec!["choose a name: oneknock import --name NAME".into()],
            Self::User(_) => vec!["give it with -l".into()],
            Self::NoAddress { .. } => {
                vec!["check that this computer is online and that the name is right".into()]
            }
            Self::NotRotated { .. } => vec![
                "fix the error above and run it again within 7 days".into(),
                "the command on the server must not ask for anything: --user root, or --command 'sudo oneknockctl'".into(),
                "if the port does not open any more, bring over what \"oneknockctl key invite\" prints on the server, and run: oneknock import --replace".into(),
            ],
            Self::Unfinished { .. } => vec![
                "both keys work; run it again to complete it".into(),
                "if that never succeeds, bring over what \"oneknockctl key invite\" prints on the server, and run: oneknock import --replace".into(),
            ],
            Self::Ssh(_) => vec!["install the OpenSSH client".into()],
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
                "if the server has one, import a new invitation: oneknockctl key invite NAME (keys that require a signed address, or for fewer services, have none)".into(),
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
        hints.push("something on the way answers in the server's place, such as a transparent proxy; the server sees another address then: run \"oneknockctl log --denied\" there".into());
    }
    hints.extend([
        format!("check that the server is up, and that its router forwards udp/{knock_port} and the service's port to it"),
        format!("check this computer's clock (it says {clock}); knocks that are off by more than 30 s are rejected"),
        "on the server run \"oneknockctl log --denied\"; if it lists nothing, the packet never arrived, or this key was removed".into(),
        format!("oneknock doctor {profile} looks for the cause from here"),
    ]);
    hints
}
