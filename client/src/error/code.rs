//! The words for errors that programs read.

use super::Error;

impl Error {
    /// A word for it that stays as it is, whatever the message says.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Usage { .. } => "E-USAGE",
            Self::Name(_) => "E-NAME",
            Self::NoHome => "E-NO-HOME",
            Self::NoProfile { .. } => "E-NO-PROFILE",
            Self::File { .. } => "E-FILE",
            Self::InvalidProfile { .. } => "E-INVALID-PROFILE",
            Self::Unsafe { .. } => "E-UNSAFE-FILE",
            Self::NoInvitation { .. } => "E-INVITATION-UNREADABLE",
            Self::InvitationAsFile => "E-INVITATION-AS-ARGUMENT",
            Self::NotOneLine { .. } => "E-INVITATION-NOT-ONE-LINE",
            Self::Invitation { .. } => "E-INVITATION-INVALID",
            Self::LikeAHost(_) => "E-INVITATION-NAME",
            Self::OlderSecret { .. } => "E-NEWER-GENERATION",
            Self::ProfileExists { .. } => "E-PROFILE-EXISTS",
            Self::NoService { .. } => "E-NO-SERVICE",
            Self::NoPort { .. } => "E-NO-PORT",
            Self::NoTcp { .. } => "E-NO-TCP",
            Self::Inadmissible(_) => "E-ADDRESS",
            Self::SourceRefused(_) => "E-ADDRESS-RULE",
            Self::OtherFamily { .. } => "E-ADDRESS-FAMILY",
            Self::NoAddress { .. } => "E-NO-ADDRESS",
            Self::NotSent { .. } => "E-NOT-SENT",
            Self::NoAnswer { .. } => "E-NO-ANSWER",
            Self::KnockRefused { .. } => "E-KNOCK-REFUSED",
            Self::NoSequence { .. } => "E-NO-SEQUENCE",
            Self::PortRefused { .. } => "E-PORT-REFUSED",
            Self::Relay { .. } => "E-RELAY",
            Self::Ssh(_) => "E-SSH",
            Self::Program(_) => "E-PROGRAM-PATH",
            Self::User(_) => "E-USER",
            Self::Rotating(_) => "E-PROFILE-BUSY",
            Self::NotRotated { .. } => "E-NOT-ROTATED",
            Self::Unfinished { .. } => "E-ROTATION-INCOMPLETE",
            Self::NoNext(_) => "E-NO-ROTATION",
            Self::System { .. } => "E-SYSTEM",
            Self::SomeFailed { .. } => "E-SOME-FAILED",
            Self::ClosedPipe => "E-CLOSED-PIPE",
            Self::SomeBroken(_) => "E-INVALID-PROFILES",
        }
    }
}
