//! What rules of the guard and of the port sequence share.

use oneknock_shared::port::Ports;

/// The guard comes after connection tracking (-200), before destination NAT (-100): what a
/// container publishes is guarded too.
pub const PRIORITY: i32 = -150;
/// What this machine sends to itself is not guarded.
pub const FROM_LOOPBACK: &str = "iifname \"lo\" accept";
/// Packets of connections that were made before. A SYN begins a connection, whatever
/// connection tracking takes it for: an outsider's stray segment that was answered with RST
/// makes the next SYN "established".
pub const ESTABLISHED: [&str; 2] = [
    "ct state established tcp flags & (syn | ack) != syn accept",
    "ct state established meta l4proto udp accept",
];

/// Whether a packet is to one of these ports.
pub fn to(ports: Ports) -> String {
    let (transport, first, last) = (ports.transport(), ports.first(), ports.last());
    if first == last {
        format!("{transport} dport {first}")
    } else {
        format!("{transport} dport {first}-{last}")
    }
}
