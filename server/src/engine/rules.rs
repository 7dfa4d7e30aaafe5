//! The rules by which packets are judged, in the engine's own types.

use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_shared::secret::Subkeys;
use std::sync::Arc;
use std::time::Duration;

/// Everything that the engine is to go by.
#[derive(Clone)]
pub struct Rules {
    /// How far a packet's timestamp may be from this machine's clock.
    pub skew: Duration,
    /// How long an older generation of a key works on after the first use of a newer one.
    pub rotation_grace: Duration,
    /// Whether this machine's own default gateway may be admitted.
    pub allow_gateway: bool,
    /// The services, no name twice.
    pub services: Vec<ServiceRules>,
    /// The keys, no name twice.
    pub keys: Vec<KeyRules>,
}

/// What holds for a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRules {
    /// Its name.
    pub name: ServiceName,
    /// How long a knock that asks for no time opens it.
    pub default_time: Duration,
    /// The longest time that a knock can open it.
    pub max_time: Duration,
}

/// What a key may do.
#[derive(Clone)]
pub struct KeyRules {
    /// Its name.
    pub name: Arc<KeyName>,
    /// The services that it may open.
    pub services: Vec<ServiceName>,
    /// The longest time that it may open any of them; the service's own limit holds too.
    pub max_time: Option<Duration>,
    /// Whether the address to admit must be signed into the packet.
    pub require_signed_address: bool,
    /// Whether it may admit an address other than the packet's source.
    pub allow_other_address: bool,
    /// Live grants at once.
    pub max_grants: u32,
    /// Knocks a minute that are accepted.
    pub knocks_per_minute: u32,
    /// Its generations, no number twice.
    pub generations: Vec<GenerationRules>,
}

/// One generation of a key.
#[derive(Clone)]
pub struct GenerationRules {
    /// Counted from 1.
    pub number: u32,
    /// What its secret gives with this server's id.
    pub subkeys: Subkeys,
    /// Valid from then on; always, where there is none.
    pub not_before: Option<Timestamp>,
    /// Valid up to and including then; for ever, where there is none.
    pub not_after: Option<Timestamp>,
}
