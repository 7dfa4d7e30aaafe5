//! What rules are made of: exactly what the guard's need. Each statement is described at one
//! place, as nft text and as the kernel's expressions together.
//!
//! Expressions come in the order in which nft 1.0.6 writes them, so that a listing by nft
//! reads like its own.

use super::super::address::{AddressFamily, octets};
use super::super::netlink::{Batch, CREATE, Writer, kind};
use super::field::{Field, MARK_KEY, PacketKind, Value};
use oneknock_shared::port::Transport;
use std::net::IpAddr;
use std::time::Duration;

/// `NLM_F_APPEND`, without which a rule goes to the front.
const APPEND: u16 = 0x800;
/// The first 32-bit register.
const REGISTER: u32 = 8;
/// What `cmp` does, and as nft writes it.
const EQUAL: (u32, &str) = (0, "");
const UNEQUAL: (u32, &str) = (1, "!= ");
const AT_MOST: u32 = 3;
const AT_LEAST: u32 = 5;
/// The states of `ct`, as bits.
const ESTABLISHED: u32 = 2;
const NEW: u32 = 8;

/// A part of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// As nft writes it.
    pub text: String,
    /// The kernel's expressions.
    expressions: Writer,
    /// The packets that have the fields which it looks at.
    needs: PacketKind,
    /// What every packet is that it lets go on.
    proves: PacketKind,
}

/// A rule: its statements, of which each is done if all before it hold.
pub type Rule = Vec<Statement>;

/// Appends a message that adds the rule at the end of its chain.
pub fn add_rule(batch: &mut Batch, table: &str, chain: &str, rule: &Rule) {
    batch.push(kind::NEW_RULE, CREATE | APPEND, |message| {
        message.text(1, table);
        message.text(2, chain);
        message.nest(4, |list| {
            let mut known = PacketKind::default();
            for statement in rule {
                statement.add(list, &mut known);
            }
        });
    });
}

impl Statement {
    fn new(text: impl Into<String>, write: impl FnOnce(&mut Writer)) -> Self {
        let mut expressions = Writer::default();
        write(&mut expressions);
        Self {
            text: text.into(),
            expressions,
            needs: PacketKind::default(),
            proves: PacketKind::default(),
        }
    }

    /// One that loads fields one behind the other, each at a register of its own, and then
    /// does the rest.
    fn of_key(key: &[Field], text: impl Into<String>, rest: impl FnOnce(&mut Writer)) -> Self {
        let mut statement = Self::new(text, |list| {
            let mut register = REGISTER;
            for field in key {
                field.load(list, field.data.length, register);
                register += field.data.length.div_ceil(4);
            }
            rest(list);
        });
        for Field { of, .. } in key {
            statement.needs.family = statement.needs.family.or(of.family);
            statement.needs.transport = statement.needs.transport.or(of.transport);
        }
        statement
    }

    /// Whether it asks what is in this set.
    pub fn looks_into(&self, set: &str) -> bool {
        let asked = self.text.rsplit_once('@');
        asked.is_some_and(|(_, name)| name == set)
    }

    /// Appends its expressions, behind those that make sure, once, that the packet has the
    /// fields. nft's text says that by the fields' names.
    fn add(&self, list: &mut Writer, known: &mut PacketKind) {
        if let Some(family) = self.needs.family.filter(|f| known.family != Some(*f)) {
            of_family(family).add(list, known);
        }
        if let Some(transport) = self.needs.transport.filter(|t| known.transport != Some(*t)) {
            of_transport(transport).add(list, known);
        }
        list.0.extend_from_slice(&self.expressions.0);
        known.family = self.proves.family.or(known.family);
        known.transport = self.proves.transport.or(known.transport);
    }
}

/// Goes on where the field is this.
pub fn is(field: Field, value: impl Into<Value>) -> Statement {
    compare(field, EQUAL, &value.into())
}

/// Goes on where the field is anything else.
pub fn is_not(field: Field, value: impl Into<Value>) -> Statement {
    compare(field, UNEQUAL, &value.into())
}

/// Goes on with packets of this family.
pub fn of_family(family: AddressFamily) -> Statement {
    let mut statement = is(Field::FAMILY, family);
    statement.proves.family = Some(family);
    statement
}

/// Goes on with packets of this transport.
pub fn of_transport(transport: Transport) -> Statement {
    let mut statement = is(Field::PROTOCOL, transport);
    statement.proves.transport = Some(transport);
    statement
}

fn compare(field: Field, (operator, sign): (u32, &str), value: &Value) -> Statement {
    let text = format!("{} {sign}{}", field.text, value.text);
    Statement::of_key(&[field], text, |list| {
        list.cmp(REGISTER, operator, &value.bytes);
    })
}

/// Goes on where the field lies between the two, or is one of them.
pub fn is_between(field: Field, first: u16, last: u16) -> Statement {
    let text = format!("{} {first}-{last}", field.text);
    Statement::of_key(&[field], text, |list| {
        list.cmp(REGISTER, AT_LEAST, &first.to_be_bytes());
        list.cmp(REGISTER, AT_MOST, &last.to_be_bytes());
    })
}

/// Goes on where the source lies in the network of this address and so many bits. Where the
/// prefix ends with a byte, the bytes before are all that is loaded.
pub fn is_from(address: IpAddr, bits: u8) -> Statement {
    let (field, octets) = (Field::source(AddressFamily::of(address)), octets(address));
    let whole = usize::from(bits / 8);
    let text = match octets.len() {
        length if whole == length => format!("{} {address}", field.text),
        _ => format!("{} {address}/{bits}", field.text),
    };
    let mut statement = Statement::new(text, |list| {
        if bits > 0 && bits.is_multiple_of(8) && whole <= octets.len() {
            field.load(list, u32::from(bits / 8), REGISTER);
            return list.cmp(REGISTER, EQUAL.0, &octets[..whole]);
        }
        let mut mask = vec![0xff; whole.min(octets.len())];
        mask.push(!(0xff >> (bits % 8)));
        mask.resize(octets.len(), 0);
        field.load(list, field.data.length, REGISTER);
        list.mask(&mask, REGISTER);
        list.cmp(REGISTER, EQUAL.0, &octets);
    });
    statement.needs = field.of;
    statement
}

/// Goes on where of these TCP flags exactly those are set.
pub fn flags_are(of: u8, set: u8) -> Statement {
    flags(of, EQUAL.0, "==", set)
}

/// Goes on where of these TCP flags others are set than those.
pub fn flags_are_not(of: u8, set: u8) -> Statement {
    flags(of, UNEQUAL.0, "!=", set)
}

fn flags(of: u8, operator: u32, sign: &str, set: u8) -> Statement {
    let text = format!(
        "tcp flags & ({}) {sign} {}",
        flag_names(of),
        flag_names(set)
    );
    Statement::of_key(&[Field::TCP_FLAGS], text, |list| {
        list.mask(&[of], REGISTER);
        list.cmp(REGISTER, operator, &[set]);
    })
}

fn flag_names(set: u8) -> String {
    const NAMES: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"];
    let named = NAMES.iter().enumerate();
    let named = named.filter(|(bit, _)| set >> bit & 1 == 1);
    let named: Vec<&str> = named.map(|(_, name)| *name).collect();
    if named.is_empty() {
        return "0".into();
    }
    named.join(" | ")
}

/// Goes on where packets of the connection were seen in both directions.
pub fn is_established() -> Statement {
    state("ct state established", Some(ESTABLISHED))
}

/// Goes on where the packet is the first of its connection.
pub fn is_new() -> Statement {
    state("ct state new", Some(NEW))
}

/// Goes on where it is not the first.
pub fn is_not_new() -> Statement {
    state("ct state != new", None)
}

fn state(text: &str, one_of: Option<u32>) -> Statement {
    Statement::new(text, |list| {
        list.expression("ct", |data| {
            data.number(1, REGISTER);
            data.number(2, 0);
        });
        let Some(bits) = one_of else {
            return list.cmp(REGISTER, UNEQUAL.0, &NEW.to_ne_bytes());
        };
        list.mask(&bits.to_ne_bytes(), REGISTER);
        list.cmp(REGISTER, UNEQUAL.0, &[0; 4]);
    })
}

/// Goes on where the fields together are a key of the set.
pub fn is_in(key: &[Field], set: &str) -> Statement {
    lookup(key, "", set, |_| {})
}

/// Goes on where they are not.
pub fn is_not_in(key: &[Field], set: &str) -> Statement {
    lookup(key, "!= ", set, |data| data.number(5, 1))
}

fn lookup(key: &[Field], sign: &str, set: &str, rest: impl FnOnce(&mut Writer)) -> Statement {
    let text = format!("{} {sign}@{set}", key_text(key));
    Statement::of_key(key, text, |list| {
        list.expression("lookup", |data| {
            data.text(1, set);
            data.number(2, REGISTER);
            rest(data);
        });
    })
}

/// Adds the fields to the set for this long, in whole seconds, or renews them there. Where
/// the set is full, the rule ends here.
pub fn update(set: &str, key: &[Field], timeout: Duration) -> Statement {
    let seconds = timeout.as_secs();
    let text = format!("update @{set} {{ {} timeout {seconds}s }}", key_text(key));
    Statement::of_key(key, text, |list| {
        list.expression("dynset", |data| {
            data.text(1, set);
            data.number(3, 1);
            data.number(4, REGISTER);
            data.long(6, seconds.saturating_mul(1000));
        });
    })
}

/// Sets the packet's mark to what the map says of its TCP port. Where the map does not have
/// the port, the rule ends here.
pub fn mark_by_port(map: &str) -> Statement {
    let text = format!("meta mark set tcp dport map @{map}");
    Statement::of_key(&[Field::port(Transport::Tcp)], text, |list| {
        list.expression("lookup", |data| {
            data.text(1, map);
            data.number(2, REGISTER);
            data.number(3, REGISTER);
        });
        list.expression("meta", |data| {
            data.number(2, MARK_KEY);
            data.number(3, REGISTER);
        });
    })
}

/// Counts the packet.
pub fn count() -> Statement {
    Statement::new("counter", |list| {
        list.expression("counter", |data| {
            data.long(1, 0);
            data.long(2, 0);
        });
    })
}

/// Goes on for so many packets a second, and for so many at once.
pub fn limit(per_second: u32, burst: u32) -> Statement {
    let text = format!("limit rate {per_second}/second burst {burst} packets");
    Statement::new(text, |list| {
        list.expression("limit", |data| {
            data.long(1, u64::from(per_second));
            data.long(2, 1);
            data.number(3, burst);
            data.number(4, 0);
            data.number(5, 0);
        });
    })
}

/// Keeps connection tracking from the packet.
pub fn no_track() -> Statement {
    Statement::new("notrack", |list| list.nest(1, |one| one.text(1, "notrack")))
}

/// Lets the packet pass this base chain.
pub fn accept() -> Statement {
    verdict("accept", 1, None)
}

/// Drops it.
pub fn discard() -> Statement {
    verdict("drop", 0, None)
}

/// Goes back to where this chain was jumped to.
pub fn go_back() -> Statement {
    verdict("return", -5, None)
}

/// Goes through that chain, and then on with the next rule.
pub fn jump(chain: &str) -> Statement {
    verdict(&format!("jump {chain}"), -3, Some(chain))
}

/// Goes through that chain in place of the rest of this one.
pub fn goto(chain: &str) -> Statement {
    verdict(&format!("goto {chain}"), -4, Some(chain))
}

fn verdict(text: &str, code: i32, chain: Option<&str>) -> Statement {
    Statement::new(text, |list| {
        list.expression("immediate", |data| {
            // Into the register of verdicts.
            data.number(1, 0);
            data.nest(2, |value| {
                value.nest(2, |verdict| {
                    verdict.bytes(1, &code.to_be_bytes());
                    if let Some(chain) = chain {
                        verdict.text(2, chain);
                    }
                });
            });
        });
    })
}

fn key_text(key: &[Field]) -> String {
    let parts: Vec<&str> = key.iter().map(|field| field.text).collect();
    parts.join(" . ")
}
