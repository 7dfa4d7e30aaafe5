//! The guard in the kernel: one description of its ruleset, which prints as nft text and is
//! installed as one netlink batch; the allow entries, made what they are to be. No program
//! is started for any of it.

mod address;
mod blocking;
mod connection;
mod connections;
mod elements;
mod error;
mod flows;
mod guard;
mod install;
mod monitor;
mod names;
mod netlink;
mod nftables;
mod plan;
mod ports;
mod prefilter;
mod present;
mod route_monitor;
mod routes;
mod ruleset;
mod sequence;
mod sockets;
mod state;
mod sync;
mod tampering;
#[cfg(test)]
mod tests;
mod trial;
mod watcher;

pub use blocking::{BLOCK_TIME, BlockChange, BlockReason, BlockedConnections, BlockedSet};
pub use connection::ConnectionId;
pub use connections::{Connections, Disconnected, GapRule, GuardContext};
pub use connections::{disconnect, disconnect_all};
pub use error::KernelError;
pub use guard::{Guard, GuardMode, GuardedService, OptionalPart, SequenceGuard, SequenceSteps};
pub use install::Installed;
pub use monitor::{ForeignChange, Monitor, TableChange};
pub use names::{STANDALONE_TABLE, TABLE};
pub use nftables::{Kernel, can_be_exclusive, has_net_admin};
pub use ports::GuardedPorts;
pub use present::{ConnectionError, Snapshot, redirected};
pub use route_monitor::RouteMonitor;
pub use routes::{RouteError, UnknownGateways, default_gateways};
pub use ruleset::standalone_sequence_text;
pub use sequence::RollingStep;
pub use state::{GuardForm, InstalledTable};
pub use sync::ListedEntry;
pub use trial::TrialState;

/// The ruleset of this guard as nft text, one `table` block that `nft -f -` takes.
#[must_use]
pub fn ruleset_text(guard: &Guard) -> String {
    ruleset::ruleset(guard).to_string()
}
