//! What the table and what is in it are called.
//!
//! A service's allow sets are its name with a 4 or a 6 behind it. A service's name has no
//! underscore. Every other set has one in its name, or a name that ends in a letter: no
//! service, whatever it is called, has another set's name.

use super::address::AddressFamily;
use oneknock_shared::name::ServiceName;
use oneknock_shared::secret::ServerId;

/// The table's name; its family is inet.
pub const TABLE: &str = "oneknock";
/// The table of [`super::standalone_sequence_text`].
pub const STANDALONE_TABLE: &str = "oneknock_sequence";
/// The chain that sees packets as they are on the wire: before destination NAT, forwarded
/// ones too.
pub const GUARD: &str = "guard";
/// The chain that sees what is delivered here, after any redirect, by whichever routing
/// table.
pub const INPUT: &str = "guard-input";
/// The chain that sees what is sent to the knock port before connection tracking does.
pub const PREFILTER: &str = "prefilter";
/// The chain that says what becomes of it.
pub const PREFILTER_VERDICT: &str = "prefilter-verdict";
/// The set of the current selectors: what a packet of a known key begins with.
pub const SELECTORS: &str = "selectors";
/// The chain that sees what the guard has let by, and watches for the port sequence.
pub const SEQUENCE: &str = "sequence";
/// The chain that looks for the steps of rolling sequences.
pub const ROLLING: &str = "sequence-rolling";
/// The set of protocols whose connections may be older than the guard: for a minute.
pub const GRACE: &str = "grace";
/// The set of protocols whose services are guarded while a trial lasts.
pub const TRIAL: &str = "trial";
/// The set of the families that no step counts for: a penalty found no room.
pub const PENALTY_OVERFLOW: &str = "penalty_overflow";

/// The sets of the connections whose packets are dropped.
pub const BLOCKED: &str = "blocked_v";
/// The sets of the sources that the port sequence never admits, since everybody may be
/// behind them.
pub const GATEWAY: &str = "gateway_v";
/// The sets of the sources that have a penalty.
pub const PENALTY: &str = "penalty_v";
/// The sets of the steps that were done: they may come again.
pub const DONE: &str = "done_v";

/// That of these sets which is for this family.
#[must_use]
pub fn set_of(sets: &str, family: AddressFamily) -> String {
    let digit = match family {
        AddressFamily::V4 => '4',
        AddressFamily::V6 => '6',
    };
    format!("{sets}{digit}")
}

/// The set of a service's allow entries of one family.
#[must_use]
pub fn allow_set(service: ServiceName, family: AddressFamily) -> String {
    set_of(service.as_str(), family)
}

/// The set of the addresses that a port sequence has admitted to a service.
#[must_use]
pub fn sequence_set(service: ServiceName, family: AddressFamily) -> String {
    set_of(&format!("seq_{service}"), family)
}

/// The set of the sources that are at this step, from 1.
#[must_use]
pub fn step_set(at: usize, family: AddressFamily) -> String {
    set_of(&format!("step{at}_v"), family)
}

/// The map of the ports that are this step of some rolling sequence, from 1.
#[must_use]
pub fn step_ports(at: usize) -> String {
    format!("port_{at}")
}

/// The chain of this step, from 1.
#[must_use]
pub fn step_chain(at: usize) -> String {
    format!("sequence-step-{at}")
}

/// The chain of a service.
#[must_use]
pub fn service_chain(service: ServiceName) -> String {
    format!("service-{service}")
}

/// An empty chain whose name says whose guard this is.
const MARK: &str = "server-";

/// That chain of this server.
#[must_use]
pub fn mark(server: ServerId) -> String {
    format!("{MARK}{}", server.to_hex())
}

/// The id of the server whose mark this chain is.
#[must_use]
pub fn marked_server(chain: &str) -> Option<&str> {
    chain.strip_prefix(MARK)
}
