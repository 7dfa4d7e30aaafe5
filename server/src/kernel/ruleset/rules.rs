//! Rules that the guard and the port sequence share.

use super::super::address::AddressFamily;
use super::field::{Field, Value};
use super::statement::{Rule, Statement, accept, flags_are_not, is, is_between, is_established};
use super::statement::{is_in, of_transport};
use oneknock_shared::port::{Ports, Transport};

/// The guard comes after connection tracking (-200), before destination NAT (-100): what a
/// container publishes is guarded too.
pub const PRIORITY: i32 = -150;
/// TCP's flags, RFC 9293.
pub const FIN: u8 = 0x01;
/// See [`FIN`].
pub const SYN: u8 = 0x02;
/// See [`FIN`].
pub const RST: u8 = 0x04;
/// See [`FIN`].
pub const ACK: u8 = 0x10;

/// What this machine sends to itself is not guarded.
pub fn from_loopback() -> Rule {
    vec![is(Field::INPUT_INTERFACE, Value::loopback()), accept()]
}

/// Packets of connections that were made before. A SYN begins a connection, whatever
/// connection tracking takes it for: an outsider's stray segment that was answered with RST
/// makes the next SYN "established".
pub fn established() -> [Rule; 2] {
    let no_syn = flags_are_not(SYN | ACK, SYN);
    [
        vec![is_established(), no_syn, accept()],
        vec![is_established(), of_transport(Transport::Udp), accept()],
    ]
}

/// Whether a packet is to one of these ports.
pub fn to(ports: Ports) -> Statement {
    let field = Field::port(ports.transport());
    if ports.first() == ports.last() {
        is(field, ports.first())
    } else {
        is_between(field, ports.first(), ports.last())
    }
}

/// Sources that are in a set pass.
pub fn admitted(family: AddressFamily, set: &str) -> Rule {
    vec![is_in(&[Field::source(family)], set), accept()]
}
