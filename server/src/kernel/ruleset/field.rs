//! What rules look at: the fields of packets, and the values that they are compared with, as
//! nft writes them and as the kernel has them.

use super::super::address::octets;
use std::net::IpAddr;

/// A field of a packet, or something that the kernel knows of it.
#[derive(Debug)]
pub struct Field {
    /// As nft writes it.
    pub text: &'static str,
    /// The expression that loads it, and its numbers behind the register. Those of `payload`
    /// are the header, the offset in it, and how many bytes.
    pub expression: (&'static str, &'static [u32]),
    /// Bytes.
    pub length: u32,
    /// The family of addresses that a packet must have for it to have the field.
    pub family: u8,
    /// The transport that it must have.
    pub transport: u8,
}

/// The numbers of families of addresses and of transports; of none in particular.
pub const ANY: u8 = 0;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// The expressions.
const META: &str = "meta";
const PAYLOAD: &str = "payload";
/// The headers that `payload` reads from.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// The family of a packet's addresses, and its transport behind all extension headers.
pub const FAMILY: Field = field("meta nfproto", (META, &[15]), 1, ANY, ANY);
/// See [`FAMILY`].
pub const PROTOCOL: Field = field("meta l4proto", (META, &[16]), 1, ANY, ANY);
/// The destination port of TCP.
pub const TCP_PORT: Field = field("tcp dport", (PAYLOAD, &[TRANSPORT, 2, 2]), 2, ANY, TCP);
/// The source's first 64 bits, the rest zero: of IPv6 one customer's addresses.
pub const NETWORK64: &str = "ip6 saddr & ffff:ffff:ffff:ffff::";

/// The state of the packet's connection, which is a bit.
pub const CT_STATE: &str = "ct state";

/// All of them. One whose name begins with another's comes first.
pub const FIELDS: [Field; 19] = [
    FAMILY,
    PROTOCOL,
    field("meta mark", (META, &[3]), 4, ANY, ANY),
    field(CT_STATE, ("ct", &[0]), 4, ANY, ANY),
    field("iifname", (META, &[6]), 16, ANY, ANY),
    field("fib daddr type", ("fib", &[3, 2]), 4, ANY, ANY),
    field("ip saddr", (PAYLOAD, &[NETWORK, 12, 4]), 4, IPV4, ANY),
    field("ip daddr", (PAYLOAD, &[NETWORK, 16, 4]), 4, IPV4, ANY),
    field(NETWORK64, (PAYLOAD, &[NETWORK, 8, 16]), 16, IPV6, ANY),
    field("ip6 saddr", (PAYLOAD, &[NETWORK, 8, 16]), 16, IPV6, ANY),
    field("ip6 daddr", (PAYLOAD, &[NETWORK, 24, 16]), 16, IPV6, ANY),
    field("ip6 nexthdr", (PAYLOAD, &[NETWORK, 6, 1]), 1, IPV6, ANY),
    TCP_PORT,
    field("th sport", (PAYLOAD, &[TRANSPORT, 0, 2]), 2, ANY, ANY),
    field("th dport", (PAYLOAD, &[TRANSPORT, 2, 2]), 2, ANY, ANY),
    field("udp dport", (PAYLOAD, &[TRANSPORT, 2, 2]), 2, ANY, UDP),
    field("udp length", (PAYLOAD, &[TRANSPORT, 4, 2]), 2, ANY, UDP),
    field("tcp flags", (PAYLOAD, &[TRANSPORT, 13, 1]), 1, ANY, TCP),
    field("@th,64,64", (PAYLOAD, &[TRANSPORT, 8, 8]), 8, ANY, ANY),
];

const fn field(
    text: &'static str,
    expression: (&'static str, &'static [u32]),
    length: u32,
    family: u8,
    transport: u8,
) -> Field {
    Field {
        text,
        expression,
        length,
        family,
        transport,
    }
}

/// A value as it stands in a register.
pub fn value(word: &str) -> Option<Vec<u8>> {
    Some(match word {
        "ipv4" => vec![IPV4],
        "ipv6" => vec![IPV6],
        "tcp" => vec![TCP],
        "udp" => vec![UDP],
        // Numbers of this machine's own: what routing says of an address, and a connection's
        // state.
        "unicast" => 1_u32.to_ne_bytes().into(),
        "local" | "established" => 2_u32.to_ne_bytes().into(),
        "new" => 8_u32.to_ne_bytes().into(),
        "\"lo\"" => [&b"lo"[..], &[0; 14]].concat(),
        _ => match word.parse::<u16>() {
            Ok(number) => number.to_be_bytes().into(),
            Err(_) => octets(word.parse::<IpAddr>().ok()?),
        },
    })
}

/// The bit of a flag of TCP's, RFC 9293.
pub fn flag(name: &str) -> Option<u8> {
    const NAMES: [&str; 5] = ["fin", "syn", "rst", "psh", "ack"];
    let at = NAMES.iter().position(|known| *known == name)?;
    Some(1 << at)
}
