//! Rules as the kernel has them: a list of expressions for each.
//!
//! The numbers are those of the kernel's `nf_tables.h`. Expressions come in the order in
//! which nft 1.0.6 writes them, so that a listing by nft reads like its own.

use super::super::names::AddressFamily;
use super::super::netlink::{Batch, CREATE, Writer, kind};
use super::{Compare, CtState, Field, Rule, Statement, Value};
use oneknock_shared::port::Transport;
use std::net::IpAddr;

/// `NLM_F_APPEND`, without which a rule goes to the front.
const APPEND: u16 = 0x800;
/// The first 32-bit register.
const REGISTER: u32 = 8;
/// The register that verdicts are put into.
const VERDICT: u32 = 0;
/// What `cmp` does.
const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;
const AT_MOST: u32 = 3;
const AT_LEAST: u32 = 5;
/// The headers that `payload` reads from.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
/// The keys of `meta`.
const META_MARK: u32 = 3;
const META_INPUT_INTERFACE: u32 = 6;
const META_FAMILY: u32 = 15;
const META_PROTOCOL: u32 = 16;
/// The states of `ct`, as bits.
const ESTABLISHED: u32 = 2;
const NEW: u32 = 8;

/// Appends a message that adds the rule at the end of its chain.
pub fn add_rule(batch: &mut Batch, table: &str, chain: &str, rule: &Rule) {
    batch.push(kind::NEW_RULE, CREATE | APPEND, |message| {
        message.text(1, table);
        message.text(2, chain);
        message.nest(4, |list| {
            let mut rule_writer = RuleWriter {
                list,
                family: None,
                transport: None,
            };
            for statement in rule {
                rule_writer.statement(statement);
            }
        });
    });
}

/// Writes a rule's expressions, and knows what those before have made sure of.
struct RuleWriter<'l, 'b> {
    list: &'l mut Writer<'b>,
    family: Option<AddressFamily>,
    transport: Option<Transport>,
}

impl RuleWriter<'_, '_> {
    fn expression(&mut self, name: &str, data: impl FnOnce(&mut Writer<'_>)) {
        self.list.nest(1, |one| {
            one.text(1, name);
            one.nest(2, data);
        });
    }

    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::If(field, compare) => self.compare(*field, compare),
            Statement::In(key, set) => {
                self.key(key);
                self.lookup(set, false);
            }
            Statement::NotIn(key, set) => {
                self.key(key);
                self.lookup(set, true);
            }
            Statement::State(state) => self.state(*state),
            Statement::Update { set, key, timeout } => {
                self.key(key);
                self.expression("dynset", |data| {
                    data.text(1, set);
                    data.number(3, 1);
                    data.number(4, REGISTER);
                    data.long(6, timeout.as_secs().saturating_mul(1000));
                });
            }
            Statement::MarkByPort(map) => {
                self.key(&[Field::Port(Transport::Tcp)]);
                self.expression("lookup", |data| {
                    data.text(1, map);
                    data.number(2, REGISTER);
                    data.number(3, REGISTER);
                });
                self.expression("meta", |data| {
                    data.number(2, META_MARK);
                    data.number(3, REGISTER);
                });
            }
            Statement::Counter => self.expression("counter", |data| {
                data.long(1, 0);
                data.long(2, 0);
            }),
            Statement::Limit { per_second, burst } => self.expression("limit", |data| {
                data.long(1, u64::from(*per_second));
                data.long(2, 1);
                data.number(3, *burst);
                data.number(4, 0);
                data.number(5, 0);
            }),
            Statement::Notrack => self.list.nest(1, |one| one.text(1, "notrack")),
            Statement::Drop => self.verdict(0, None),
            Statement::Accept => self.verdict(1, None),
            Statement::Jump(chain) => self.verdict(-3, Some(chain)),
            Statement::Goto(chain) => self.verdict(-4, Some(chain)),
            Statement::Return => self.verdict(-5, None),
        }
    }

    fn verdict(&mut self, code: i32, chain: Option<&str>) {
        self.expression("immediate", |data| {
            data.number(1, VERDICT);
            data.nest(2, |value| {
                value.nest(2, |verdict| {
                    verdict.bytes(1, &code.to_be_bytes());
                    if let Some(chain) = chain {
                        verdict.text(2, chain);
                    }
                });
            });
        });
    }

    fn lookup(&mut self, set: &str, inverted: bool) {
        self.expression("lookup", |data| {
            data.text(1, set);
            data.number(2, REGISTER);
            if inverted {
                data.number(5, 1);
            }
        });
    }

    fn state(&mut self, state: CtState) {
        self.expression("ct", |data| {
            data.number(1, REGISTER);
            data.number(2, 0);
        });
        let bits = |bits: u32| bits.to_ne_bytes();
        match state {
            CtState::NotNew => self.cmp(UNEQUAL, &bits(NEW)),
            CtState::Established | CtState::New => {
                let is_new = state == CtState::New;
                self.mask(&bits(if is_new { NEW } else { ESTABLISHED }), REGISTER);
                self.cmp(UNEQUAL, &bits(0));
            }
        }
    }

    fn compare(&mut self, field: Field, compare: &Compare) {
        self.require(field);
        if let Compare::Network(address, bits) = compare {
            return self.network(field, *address, *bits);
        }
        self.load(field, field.length(), REGISTER);
        match compare {
            Compare::Equal(value) => {
                self.cmp(EQUAL, &value.bytes());
                match (field, value) {
                    (Field::NetworkFamily, Value::Family(family)) => self.family = Some(*family),
                    (Field::TransportProtocol, Value::Transport(transport)) => {
                        self.transport = Some(*transport);
                    }
                    _ => {}
                }
            }
            Compare::Unequal(value) => self.cmp(UNEQUAL, &value.bytes()),
            Compare::Between(first, last) => {
                self.cmp(AT_LEAST, &first.to_be_bytes());
                self.cmp(AT_MOST, &last.to_be_bytes());
            }
            Compare::FlagsEqual(of, set) => {
                self.mask(&[*of], REGISTER);
                self.cmp(EQUAL, &[*set]);
            }
            Compare::FlagsUnequal(of, set) => {
                self.mask(&[*of], REGISTER);
                self.cmp(UNEQUAL, &[*set]);
            }
            Compare::Network(..) => {}
        }
    }

    /// Where the prefix ends with a byte, the bytes before are all that is loaded.
    fn network(&mut self, field: Field, address: IpAddr, bits: u8) {
        let octets = super::values::octets(address);
        let whole = usize::from(bits / 8);
        if bits > 0 && bits.is_multiple_of(8) && whole <= octets.len() {
            self.load(field, whole, REGISTER);
            return self.cmp(EQUAL, &octets[..whole]);
        }
        let mask: Vec<u8> = (0..octets.len())
            .map(|at| match at.cmp(&whole) {
                std::cmp::Ordering::Less => 0xff,
                std::cmp::Ordering::Equal => !(0xff >> (bits % 8)),
                std::cmp::Ordering::Greater => 0,
            })
            .collect();
        self.load(field, octets.len(), REGISTER);
        self.mask(&mask, REGISTER);
        self.cmp(EQUAL, &octets);
    }

    /// Loads fields one behind the other, each at a register of its own.
    fn key(&mut self, fields: &[Field]) {
        for field in fields {
            self.require(*field);
        }
        let mut register = REGISTER;
        for field in fields {
            self.load(*field, field.length(), register);
            // At most 16 bytes.
            register += u32::try_from(field.length().div_ceil(4)).unwrap_or(4);
        }
    }

    /// Makes sure that the packet has the field, once.
    fn require(&mut self, field: Field) {
        if let Some(family) = field.family().filter(|f| self.family != Some(*f)) {
            self.compare(Field::NetworkFamily, &Compare::Equal(Value::Family(family)));
        }
        if let Some(transport) = field.transport().filter(|t| self.transport != Some(*t)) {
            self.compare(
                Field::TransportProtocol,
                &Compare::Equal(Value::Transport(transport)),
            );
        }
    }

    fn load(&mut self, field: Field, length: usize, register: u32) {
        match source(field) {
            Origin::Meta(key) => self.expression("meta", |data| {
                data.number(1, register);
                data.number(2, key);
            }),
            Origin::Fib => self.expression("fib", |data| {
                data.number(1, register);
                // The destination's type.
                data.number(2, 3);
                data.number(3, 2);
            }),
            Origin::Payload(header, offset) => self.expression("payload", |data| {
                data.number(1, register);
                data.number(2, header);
                data.number(3, offset);
                data.number(4, u32::try_from(length).unwrap_or_default());
            }),
        }
        if field == Field::SourceNetwork64 {
            let mask = u128::MAX << 64;
            self.mask(&mask.to_be_bytes(), register);
        }
    }

    fn mask(&mut self, mask: &[u8], register: u32) {
        self.expression("bitwise", |data| {
            data.number(1, register);
            data.number(2, register);
            data.number(3, u32::try_from(mask.len()).unwrap_or_default());
            data.nest(4, |value| value.bytes(1, mask));
            data.nest(5, |value| value.bytes(1, &vec![0; mask.len()]));
        });
    }

    fn cmp(&mut self, operator: u32, value: &[u8]) {
        self.expression("cmp", |data| {
            data.number(1, REGISTER);
            data.number(2, operator);
            data.nest(3, |data| data.bytes(1, value));
        });
    }
}

/// Where a field is loaded from.
enum Origin {
    Meta(u32),
    Fib,
    /// A header, and the offset in it.
    Payload(u32, u32),
}

fn source(field: Field) -> Origin {
    match field {
        Field::InputInterface => Origin::Meta(META_INPUT_INTERFACE),
        Field::NetworkFamily => Origin::Meta(META_FAMILY),
        Field::TransportProtocol => Origin::Meta(META_PROTOCOL),
        Field::Mark => Origin::Meta(META_MARK),
        Field::DestinationType => Origin::Fib,
        Field::Source(AddressFamily::V4) => Origin::Payload(NETWORK, 12),
        Field::Destination(AddressFamily::V4) => Origin::Payload(NETWORK, 16),
        Field::Source(AddressFamily::V6) | Field::SourceNetwork64 => Origin::Payload(NETWORK, 8),
        Field::Destination(AddressFamily::V6) => Origin::Payload(NETWORK, 24),
        Field::NextHeader => Origin::Payload(NETWORK, 6),
        Field::SourcePort => Origin::Payload(TRANSPORT, 0),
        Field::AnyPort | Field::Port(_) => Origin::Payload(TRANSPORT, 2),
        Field::UdpLength => Origin::Payload(TRANSPORT, 4),
        Field::TcpFlags => Origin::Payload(TRANSPORT, 13),
        Field::Selector => Origin::Payload(TRANSPORT, 8),
    }
}
