//! Why a packet of a known key opened nothing: one table for the engine, the log, the
//! counters and the manual.

use oneknock_shared::knock::{Malformed, Timestamp};

/// Why a packet of a known key opened nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Its timestamp is further from this machine's clock than the skew.
    ClockSkew {
        /// The packet's timestamp.
        at: Timestamp,
        /// This machine's clock.
        now: Timestamp,
    },
    /// It is not later than the generation's replay floor.
    ReplayFloor,
    /// It was spent before.
    Replayed,
    /// Steps 4 and 5.
    Malformed(Malformed),
    /// The generation is not valid yet.
    NotYetValid,
    /// The generation is valid no longer.
    Expired,
    /// The key is over its rate.
    RateLimited,
    /// The service is not in the configuration.
    NoSuchService,
    /// The key may not open the service.
    ServiceNotAllowed,
    /// The key must sign the address, and did not.
    AddressNotSigned,
    /// The signed address is not the source, and the key may not admit others.
    AddressNotSource,
    /// The address is loopback, link-local, multicast or such: no one host's.
    AddressUnusable,
    /// The source is this machine's default gateway: behind it is everybody.
    SourceIsGateway,
    /// The key has closed this target with a later packet.
    SupersededByClose,
    /// The key has as many live grants as it may.
    GrantLimit,
    /// The store could not record it.
    StoreError,
}

/// What kind of rejection a reason is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReasonKind {
    /// Too old, too new, or seen before: also by anybody who sends a captured packet again.
    Ignored,
    /// Refused by policy.
    Refused,
    /// This machine could not do it.
    Failed,
}

impl Reason {
    /// What follows `reason=` in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ClockSkew { .. } => "clock-skew",
            Self::ReplayFloor => "replay-floor",
            Self::Replayed => "replayed",
            Self::Malformed(_) => "malformed",
            Self::NotYetValid => "not-yet-valid",
            Self::Expired => "expired",
            Self::RateLimited => "rate-limited",
            Self::NoSuchService => "no-such-service",
            Self::ServiceNotAllowed => "service-not-allowed",
            Self::AddressNotSigned => "address-not-signed",
            Self::AddressNotSource => "address-not-source",
            Self::AddressUnusable => "address-unusable",
            Self::SourceIsGateway => "source-is-gateway",
            Self::SupersededByClose => "superseded-by-close",
            Self::GrantLimit => "grant-limit",
            Self::StoreError => "store-error",
        }
    }

    /// What kind of rejection it is.
    #[must_use]
    pub fn kind(self) -> ReasonKind {
        match self {
            Self::ClockSkew { .. } | Self::ReplayFloor | Self::Replayed => ReasonKind::Ignored,
            Self::StoreError => ReasonKind::Failed,
            _ => ReasonKind::Refused,
        }
    }

    /// How far the packet's clock is ahead of this machine's, in whole seconds; behind where
    /// it is negative. `None` where the clocks are not the reason.
    #[must_use]
    pub fn ahead(self) -> Option<i64> {
        let Self::ClockSkew { at, now } = self else {
            return None;
        };
        let seconds = i64::try_from(at.0.abs_diff(now.0) / 1000).unwrap_or(i64::MAX);
        Some(if at < now { -seconds } else { seconds })
    }
}
