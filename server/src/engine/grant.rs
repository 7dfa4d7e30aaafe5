//! What a key has opened: one type, from the moment of the grant to its end.

use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_shared::secret::GenerationId;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use oneknock_shared::knock::Timestamp;

/// The address that a grant admits; an IPv4-mapped one is IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(IpAddr);

impl Source {
    /// The source that is this address alone.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self(address.to_canonical())
    }

    /// The address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.0
    }

    /// Whether a packet from this address has this source.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.0 == address.to_canonical()
    }

    /// Whether it is of IPv6.
    #[must_use]
    pub fn is_ipv6(self) -> bool {
        self.0.is_ipv6()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Source {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self::of)
    }
}

/// A service, and who may reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// The service.
    pub service: ServiceName,
    /// The admitted source.
    pub source: Source,
}

/// One key's right to a target until a time. A key has at most one for each target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The key.
    pub key: Arc<KeyName>,
    /// The generation of the key that opened or renewed it last.
    pub generation: GenerationId,
    /// That generation's number, from 1.
    pub number: u32,
    /// What is open for whom.
    pub target: Target,
    /// When it was opened, by the wall clock then.
    pub opened: Timestamp,
    /// When it ends, since boot.
    pub until: Duration,
}

/// What the kernel is to hold for all grants of one target: the one that ends last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowEntry {
    /// The key of that grant, which stands in the entry's comment.
    pub key: Arc<KeyName>,
    /// When it ends, since boot.
    pub until: Duration,
}
