//! What the table and what is in it are called.

use oneknock_shared::name::ServiceName;
use oneknock_shared::secret::ServerId;
use std::net::IpAddr;

/// The table's name; its family is inet.
pub const TABLE: &str = "oneknock";
/// Sees packets as they are on the wire: before destination NAT, forwarded ones too.
pub const GUARD: &str = "guard";
/// Sees what is delivered here, after any redirect, by whichever routing table.
pub const INPUT: &str = "guard-input";
/// Sees what is sent to the knock port before connection tracking does.
pub const SIEVE: &str = "sieve";
/// What becomes of it.
pub const KNOCK: &str = "knock";
/// The selectors in force: what a packet of a known key begins with.
pub const SELECTORS: &str = "selectors";
/// Sees what the guard has let by, and watches for the port sequence.
pub const SEQUENCE: &str = "sequence";
/// Where the daemon says the steps: looks for them.
pub const ROLLING: &str = "rolling";
/// Protocols whose connections may be older than the guard: for a minute.
pub const GRACE: &str = "grace";
/// Protocols whose doors are shut while the guard is on trial; in force or not, by its time.
pub const TRIAL: &str = "trial";
/// After connection tracking (-200), before destination NAT (-100): what a container
/// publishes is guarded too.
pub const PRIORITY: i32 = -150;

/// What is written of each address family: its mark in names, its set type, an address, and
/// what a penalty is for.
pub const FAMILIES: [[&str; 4]; 2] = [
    ["v4", "ipv4_addr", "ip saddr", "ip saddr"],
    [
        "v6",
        "ipv6_addr",
        "ip6 saddr",
        "ip6 saddr & ffff:ffff:ffff:ffff::",
    ],
];

/// The mark in names of the family that an address is of.
#[must_use]
pub fn family_of(address: IpAddr) -> &'static str {
    let [[v4, ..], [v6, ..]] = FAMILIES;
    if address.is_ipv6() { v6 } else { v4 }
}

/// The set of the sources of one family that are nobody's to the port sequence, since
/// everybody may be behind them.
#[must_use]
pub fn gateway_set(family: &str) -> String {
    format!("gateway_{family}")
}

/// The set of admitted addresses of one family.
#[must_use]
pub fn set_name(service: ServiceName, is_ipv6: bool) -> String {
    format!("{service}{}", if is_ipv6 { 6 } else { 4 })
}

/// The set of addresses of one family that a port sequence has admitted. No service has a
/// name with an underscore.
#[must_use]
pub fn seq_name(service: ServiceName, is_ipv6: bool) -> String {
    format!("seq_{}", set_name(service, is_ipv6))
}

/// An empty chain whose name says whose guard this is.
const MARK: &str = "server-";

/// That chain of this server.
#[must_use]
pub fn mark(server: ServerId) -> String {
    format!("{MARK}{}", server.to_hex())
}

/// Whether the chain's name says that the guard is that of a server other than this one.
#[must_use]
pub fn mark_of_another(chain: &str, server: ServerId) -> bool {
    chain.starts_with(MARK) && chain != mark(server)
}

/// The set of connections of one family whose packets are dropped.
#[must_use]
pub fn cut_name(is_ipv6: bool) -> &'static str {
    if is_ipv6 { "cut-v6" } else { "cut-v4" }
}
