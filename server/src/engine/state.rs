//! What must outlive the process, as values: the store writes it and reads it back.

use super::grant::{Grant, Source};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_shared::packet::PacketId;
use oneknock_shared::secret::GenerationId;

/// Everything of an earlier run that bears on what is accepted now.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct State {
    /// The packets that are spent and could still pass the time window.
    pub seen: Vec<(GenerationId, Timestamp, PacketId)>,
    /// The replay floors: nothing that is not later is accepted of this generation.
    pub floors: Vec<(GenerationId, Timestamp)>,
    /// The replay floor of generations without a record, where a state was lost.
    pub default_floor: Option<Timestamp>,
    /// Each key's last close of a target.
    pub closes: Vec<Close>,
    /// The grants that had not ended.
    pub grants: Vec<Grant>,
    /// When older generations end, since a newer one of their key was used.
    pub retirements: Vec<(GenerationId, Timestamp)>,
}

/// A key's close: an open of the key that is not later is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// The key's name.
    pub key: KeyName,
    /// The service; every service where there is none.
    pub service: Option<ServiceName>,
    /// The source.
    pub source: Source,
    /// The timestamp of the packet that closed.
    pub at: Timestamp,
}
