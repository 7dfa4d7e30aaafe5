//! What rules look at: each field as nft writes it and as the kernel loads it, and the
//! values that it is compared with.
//!
//! The numbers are those of the kernel's `nf_tables.h` and of nft's data types.

use super::super::address::AddressFamily::{self, V4, V6};
use super::super::address::{octets, protocol_number};
use super::super::netlink::Writer;
use oneknock_shared::port::Transport::{self, Tcp, Udp};
use std::net::IpAddr;

/// The headers that `payload` reads from.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
/// The number of the mark, of what `meta` reads and writes.
pub const MARK_KEY: u32 = 3;

/// A type of nft's, of a field or of what is in a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataType {
    /// As nft writes it in a set's type.
    pub text: &'static str,
    /// nft's number of it.
    pub number: u32,
    /// Bytes.
    pub length: u32,
    /// nft's number of the byte order: 0 of a single byte, 1 of this machine's, 2 of the
    /// network's.
    pub byte_order: u32,
}

impl DataType {
    const IPV4: Self = Self::new("ipv4_addr", 7, 4, 2);
    const IPV6: Self = Self::new("ipv6_addr", 8, 16, 2);
    const PROTOCOL: Self = Self::new("inet_proto", 12, 1, 0);
    const PORT: Self = Self::new("inet_service", 13, 2, 2);
    const FAMILY: Self = Self::new("nf_proto", 2, 1, 0);
    const MARK: Self = Self::new("mark", 19, 4, 1);
    /// nft has no name for the type of raw payload.
    const SELECTOR: Self = Self::new("@th,64,64", 4, 8, 2);
    const INTERFACE: Self = Self::new("ifname", 41, 16, 1);
    const ADDRESS_TYPE: Self = Self::new("fib_addrtype", 42, 4, 1);
    const TCP_FLAGS: Self = Self::new("tcp_flag", 14, 1, 0);

    const fn new(text: &'static str, number: u32, length: u32, byte_order: u32) -> Self {
        Self {
            text,
            number,
            length,
            byte_order,
        }
    }
}

/// Where a field is loaded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// What the kernel knows of a packet, by its number.
    Meta(u32),
    /// What routing says of the destination address.
    Fib,
    /// A header, and the offset in it.
    Payload(u32, u32),
}

/// What a packet must be for it to have a field.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct PacketKind {
    /// Its family of addresses, where that matters.
    pub family: Option<AddressFamily>,
    /// Its transport, where that matters.
    pub transport: Option<Transport>,
}

/// A field of a packet, or something that the kernel knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// As nft writes it.
    pub text: &'static str,
    /// Its type.
    pub data: DataType,
    /// The packets that have it.
    pub of: PacketKind,
    origin: Origin,
    /// Whether only the first 64 bits count, and the rest is zero.
    is_network64: bool,
}

impl Field {
    /// The name of the interface that the packet came in by.
    pub const INPUT_INTERFACE: Self = Self::meta("iifname", DataType::INTERFACE, 6);
    /// The family of its addresses.
    pub const FAMILY: Self = Self::meta("meta nfproto", DataType::FAMILY, 15);
    /// The transport protocol, behind all extension headers.
    pub const PROTOCOL: Self = Self::meta("meta l4proto", DataType::PROTOCOL, 16);
    /// The mark.
    pub const MARK: Self = Self::meta("meta mark", DataType::MARK, MARK_KEY);
    /// What routing says of the destination address.
    pub const DESTINATION_TYPE: Self = Self {
        origin: Origin::Fib,
        ..Self::meta("fib daddr type", DataType::ADDRESS_TYPE, 0)
    };
    /// The protocol that the IPv6 header names as the next.
    pub const NEXT_HEADER: Self = Self::network("ip6 nexthdr", DataType::PROTOCOL, 6, V6);
    /// The source port of any transport.
    pub const SOURCE_PORT: Self = Self::transport("th sport", DataType::PORT, 0, None);
    /// The destination port of any transport.
    pub const ANY_PORT: Self = Self::transport("th dport", DataType::PORT, 2, None);
    /// The length of UDP's header and payload.
    pub const UDP_LENGTH: Self = Self::transport("udp length", DataType::PORT, 4, Some(Udp));
    /// TCP's flags.
    pub const TCP_FLAGS: Self = Self::transport("tcp flags", DataType::TCP_FLAGS, 13, Some(Tcp));
    /// The first eight bytes of UDP's payload.
    pub const SELECTOR: Self = Self::transport("@th,64,64", DataType::SELECTOR, 8, None);

    /// The source address.
    pub const fn source(family: AddressFamily) -> Self {
        match family {
            V4 => Self::network("ip saddr", DataType::IPV4, 12, family),
            V6 => Self::network("ip6 saddr", DataType::IPV6, 8, family),
        }
    }

    /// The source as penalties know it: of IPv6 the first 64 bits, which is one customer's
    /// addresses.
    pub const fn penalized(family: AddressFamily) -> Self {
        match family {
            V4 => Self::source(family),
            V6 => Self {
                text: "ip6 saddr & ffff:ffff:ffff:ffff::",
                is_network64: true,
                ..Self::source(family)
            },
        }
    }

    /// The destination address.
    pub const fn destination(family: AddressFamily) -> Self {
        match family {
            V4 => Self::network("ip daddr", DataType::IPV4, 16, family),
            V6 => Self::network("ip6 daddr", DataType::IPV6, 24, family),
        }
    }

    /// The destination port of this transport.
    pub const fn port(transport: Transport) -> Self {
        let text = match transport {
            Tcp => "tcp dport",
            Udp => "udp dport",
        };
        Self::transport(text, DataType::PORT, 2, Some(transport))
    }

    const fn meta(text: &'static str, data: DataType, key: u32) -> Self {
        Self {
            text,
            data,
            of: PacketKind {
                family: None,
                transport: None,
            },
            origin: Origin::Meta(key),
            is_network64: false,
        }
    }

    const fn network(text: &'static str, data: DataType, offset: u32, of: AddressFamily) -> Self {
        let mut field = Self::meta(text, data, 0);
        field.origin = Origin::Payload(NETWORK, offset);
        field.of.family = Some(of);
        field
    }

    const fn transport(
        text: &'static str,
        data: DataType,
        offset: u32,
        of: Option<Transport>,
    ) -> Self {
        let mut field = Self::meta(text, data, 0);
        field.origin = Origin::Payload(TRANSPORT, offset);
        field.of.transport = of;
        field
    }

    /// Appends the expressions that load its first bytes, so many, into a register.
    pub fn load(self, list: &mut Writer, length: u32, register: u32) {
        match self.origin {
            Origin::Meta(key) => list.expression("meta", |data| {
                data.number(1, register);
                data.number(2, key);
            }),
            Origin::Fib => list.expression("fib", |data| {
                data.number(1, register);
                // The destination's type.
                data.number(2, 3);
                data.number(3, 2);
            }),
            Origin::Payload(header, offset) => list.expression("payload", |data| {
                data.number(1, register);
                data.number(2, header);
                data.number(3, offset);
                data.number(4, length);
            }),
        }
        if self.is_network64 {
            list.mask(&(u128::MAX << 64).to_be_bytes(), register);
        }
    }
}

/// Expressions of which several statements are made.
impl Writer {
    /// An expression with its data.
    pub fn expression(&mut self, name: &str, data: impl FnOnce(&mut Self)) {
        self.nest(1, |one| {
            one.text(1, name);
            one.nest(2, data);
        });
    }

    /// Clears the other bits of a register.
    pub fn mask(&mut self, mask: &[u8], register: u32) {
        self.expression("bitwise", |data| {
            data.number(1, register);
            data.number(2, register);
            data.number(3, u32::try_from(mask.len()).unwrap_or_default());
            data.nest(4, |value| value.bytes(1, mask));
            data.nest(5, |value| value.bytes(1, &vec![0; mask.len()]));
        });
    }

    /// Goes on where the register compares so.
    pub fn cmp(&mut self, register: u32, operator: u32, value: &[u8]) {
        self.expression("cmp", |data| {
            data.number(1, register);
            data.number(2, operator);
            data.nest(3, |data| data.bytes(1, value));
        });
    }
}

/// A value that a field is compared with: as nft writes it, and as it stands in a register.
#[derive(Debug, Clone)]
pub struct Value {
    /// As nft writes it.
    pub text: String,
    /// As it stands in a register.
    pub bytes: Vec<u8>,
}

impl Value {
    /// One that nft has a word for.
    fn word(text: &str, bytes: &[u8]) -> Self {
        let (text, bytes) = (text.into(), bytes.into());
        Self { text, bytes }
    }

    /// The loopback interface.
    pub fn loopback() -> Self {
        Self::word("\"lo\"", b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0")
    }

    /// Of an address: it is one host's elsewhere.
    pub fn unicast() -> Self {
        Self::word("unicast", &1_u32.to_ne_bytes())
    }

    /// Of an address: it is this machine's.
    pub fn local() -> Self {
        Self::word("local", &2_u32.to_ne_bytes())
    }
}

impl From<AddressFamily> for Value {
    fn from(family: AddressFamily) -> Self {
        match family {
            V4 => Self::word("ipv4", &[family.number()]),
            V6 => Self::word("ipv6", &[family.number()]),
        }
    }
}

impl From<Transport> for Value {
    fn from(transport: Transport) -> Self {
        Self::word(&transport.to_string(), &[protocol_number(transport)])
    }
}

impl From<IpAddr> for Value {
    fn from(address: IpAddr) -> Self {
        Self::word(&address.to_string(), &octets(address))
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::word(&number.to_string(), &number.to_be_bytes())
    }
}
