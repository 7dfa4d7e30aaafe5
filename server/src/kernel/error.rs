//! Why the kernel did not do something.

use super::netlink::{RefusedBatch, kind};
use nix::errno::Errno;
use std::io;

/// Why a change was not made, or an answer not had. Nothing of a failed batch was applied.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The process lacks `CAP_NET_ADMIN`.
    #[error(
        "cannot change the firewall: CAP_NET_ADMIN is missing (run it as root, or give its unit AmbientCapabilities=CAP_NET_ADMIN)"
    )]
    Capability,
    /// The guard of another server is installed: a machine has one.
    #[error(
        "the guard of another configuration is installed, and there is one to a machine: stop its oneknockd, remove it with \"oneknockctl disable\", and start again"
    )]
    ForeignGuard,
    /// A running process owns the table.
    #[error("a running oneknockd owns the guard: stop it first")]
    OwnedByAnother,
    /// The table, or a set that should be in it, is not there.
    #[error("the guard is not installed: {0} is missing")]
    Missing(String),
    /// The kernel refused one part of a batch, and so all of it.
    #[error("the kernel refused {what}: {source}")]
    Refused {
        /// Which part, such as `rule 3 of chain guard`.
        what: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// The netlink socket failed.
    #[error("netlink: {0}")]
    Io(#[from] io::Error),
}

impl RefusedBatch {
    /// The kernel's error, as a number.
    pub(super) fn errno(&self) -> Errno {
        Errno::from_raw(self.error.raw_os_error().unwrap_or_default())
    }
}

impl From<RefusedBatch> for KernelError {
    fn from(refused: RefusedBatch) -> Self {
        let errno = refused.errno();
        let RefusedBatch { subject, error } = refused;
        match (errno, subject) {
            // Without the capability there would be no socket's owner.
            (Errno::EPERM, _) => Self::OwnedByAnother,
            (Errno::ENOENT, Some(subject))
                if [kind::NEW_ELEMENT, kind::DELETE_ELEMENT].contains(&subject.kind) =>
            {
                Self::Missing(format!("set {}", subject.name))
            }
            (_, Some(subject)) => Self::Refused {
                what: subject.to_string(),
                source: error,
            },
            (_, None) => Self::Io(error),
        }
    }
}
