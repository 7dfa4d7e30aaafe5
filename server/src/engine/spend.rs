//! A packet that has passed the judge: it is spent, whatever policy makes of it.

use super::grant::Source;
use oneknock_shared::knock::{Action, Timestamp};
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_shared::packet::PacketId;
use oneknock_shared::secret::GenerationId;
use std::net::IpAddr;
use std::sync::Arc;

/// An authentic packet that was never seen before, to be appended to the spent log and then
/// committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spend {
    /// Whose it is.
    pub key: Arc<KeyName>,
    /// Which of the key's generations made it.
    pub generation: GenerationId,
    /// That generation's number, from 1.
    pub number: u32,
    /// The packet's timestamp.
    pub at: Timestamp,
    /// What it is remembered by: its HMAC.
    pub id: PacketId,
    /// Where the packet came from; canonical, and not proved by anything.
    pub from: IpAddr,
    /// The address to admit.
    pub source: Source,
    /// Whether that address is signed into the packet.
    pub is_signed: bool,
    /// What was asked.
    pub action: Action,
    /// For which service; every service that the key may open where there is none.
    pub service: Option<ServiceName>,
}
