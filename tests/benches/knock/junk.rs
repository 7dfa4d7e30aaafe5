//! Packets that open nothing.

use crate::site::Measured;
use std::net::Ipv4Addr;

/// What a flood is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As long as a knock, and random.
    Junk,
    /// A captured selector, and an HMAC that does not hold.
    Forged,
}

/// So many different packets, from as many addresses that nobody has.
pub fn packets(measured: &Measured, kind: Kind, count: usize) -> Vec<Vec<u8>> {
    let keys = measured.subkeys();
    let captured = measured.knock(&keys, Ipv4Addr::LOCALHOST.into(), 60);
    // Behind the headers of IP and UDP.
    let captured = &captured[28..];
    let one = |number: usize| {
        let bits = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let [a, b, c, d, ..] = bits.to_be_bytes();
        let mut bytes = captured.to_vec();
        match kind {
            Kind::Junk => bytes[..8].copy_from_slice(&bits.to_be_bytes()),
            Kind::Forged => bytes[104..].copy_from_slice(&bits.to_be_bytes()),
        }
        measured.datagram(Ipv4Addr::new(a % 90 + 30, b, c, d).into(), &bytes)
    };
    (0..count).map(one).collect()
}
