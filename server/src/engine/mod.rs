//! The engine: what a datagram is worth, what it opens, and what the kernel is to hold.
//! Sans-IO: time, source and bytes come in; events and a desired state go out. No clock,
//! socket, file, configuration or control socket is known here.

mod desired;
mod event;
mod grant;
mod reason;
mod rules;
mod spend;
mod state;

pub use desired::Desired;
pub use event::{EndReason, Event, Junk, Rejection};
pub use grant::{AllowEntry, Grant, Source, Target};
pub use reason::{Reason, ReasonKind};
pub use rules::{GenerationRules, KeyRules, Rules, ServiceRules};
pub use spend::Spend;
pub use state::{Close, State};

use oneknock_shared::knock::Timestamp;
use std::time::Duration;

/// A point in time, read once at the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The wall clock: for packets' timestamps and keys' validity. May jump.
    pub wall: Timestamp,
    /// Since boot: for grants and rates. Never jumps.
    pub mono: Duration,
}
