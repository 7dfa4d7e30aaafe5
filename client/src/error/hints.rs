//! What a person can do about an error.

use super::Error;

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
