//! What tells one connection from another.

use oneknock_shared::port::Transport;
use std::net::IpAddr;

/// A connection to a guarded port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    /// TCP or UDP.
    pub transport: Transport,
    /// Who.
    pub remote: IpAddr,
    /// From where.
    pub remote_port: u16,
    /// To which guarded port.
    pub port: u16,
}
