//! When a connection counts as open: the service behind it has shown itself. A handshake alone
//! proves nothing, since a proxy on the way answers every SYN. Pure.

use oneknock_shared::name::ServiceName;
use std::time::Duration;

/// How long a connection to a service other than ssh has to stand where nobody says.
pub const SETTLE: Duration = Duration::from_millis(350);

/// What a service has to send before its version, at most; RFC 4253 section 4.2 lets it.
const MAX_GREETING: usize = 8 * 1024;

/// What shows that the service itself answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// A line that begins with `SSH-`.
    Ssh,
    /// The first byte; or no byte, and the connection stands for this long.
    Stands(Duration),
}

/// What the bytes that came so far say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The service has shown itself.
    Shown,
    /// More bytes are needed.
    Unknown,
    /// This is another service.
    Other,
}

impl Proof {
    /// For this service on this port; `settle` is what [`Proof::Stands`] waits.
    #[must_use]
    pub fn of(service: &ServiceName, port: u16, settle: Duration) -> Self {
        if port == 22 || service.as_str().contains("ssh") {
            Self::Ssh
        } else {
            Self::Stands(settle)
        }
    }

    /// Judges what has been read so far.
    #[must_use]
    pub fn judge(self, read: &[u8]) -> Verdict {
        match self {
            Self::Stands(_) if read.is_empty() => Verdict::Unknown,
            Self::Stands(_) => Verdict::Shown,
            Self::Ssh => {
                let mut lines = read.split(|&b| b == b'\n');
                if lines.any(|line| line.starts_with(b"SSH-")) {
                    Verdict::Shown
                } else if read.len() < MAX_GREETING {
                    Verdict::Unknown
                } else {
                    Verdict::Other
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_shows_itself_by_its_version_also_after_other_lines() {
        let judge = |text: &str| Proof::Ssh.judge(text.as_bytes());
        assert_eq!(judge(""), Verdict::Unknown);
        assert_eq!(judge("SSH"), Verdict::Unknown);
        assert_eq!(judge("SSH-2.0-x\r\n"), Verdict::Shown);
        assert_eq!(judge("welcome\r\nSSH-2.0-x\r\n"), Verdict::Shown);
        assert_eq!(judge("HTTP/1.1 400 SSH-\r\n"), Verdict::Unknown);
        assert_eq!(judge(&"x".repeat(MAX_GREETING)), Verdict::Other);
    }

    #[test]
    fn any_byte_shows_another_service() {
        let of = |name: &str, port| Proof::of(&name.parse().unwrap(), port, SETTLE);
        assert_eq!(of("web", 443), Proof::Stands(SETTLE));
        assert_eq!(of("web", 443).judge(b""), Verdict::Unknown);
        assert_eq!(of("web", 443).judge(b"x"), Verdict::Shown);
        assert_eq!(of("ssh", 2222), Proof::Ssh);
        assert_eq!(of("admin", 22), Proof::Ssh);
    }
}
