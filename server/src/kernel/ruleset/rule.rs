//! Rules as the kernel has them. A rule is described as nft text, of exactly the words that
//! the guard's rules are made of; here that text becomes the kernel's expressions.
//!
//! Expressions come in the order in which nft 1.0.6 writes them, so that a listing by nft
//! reads like its own. The numbers are those of the kernel's `nf_tables.h`.

use super::super::netlink::{Batch, CREATE, Writer, kind};
use super::field::{
    ANY, CT_STATE, FAMILY, FIELDS, Field, NETWORK64, PROTOCOL, TCP_PORT, flag, value,
};

/// `NLM_F_APPEND`, without which a rule goes to the front.
const APPEND: u16 = 0x800;
/// The first 32-bit register.
const REGISTER: u32 = 8;
/// What `cmp` does.
const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;
const AT_MOST: u32 = 3;
const AT_LEAST: u32 = 5;
/// Appends a message that adds the rule at the end of its chain. A rule with a word that is
/// not known here has an expression that no kernel knows: the kernel refuses the batch.
pub fn add_rule(batch: &mut Batch, table: &str, chain: &str, rule: &str) {
    batch.push(kind::NEW_RULE, CREATE | APPEND, |message| {
        message.text(1, table);
        message.text(2, chain);
        message.nest(4, |list| {
            let mut translation = Translation {
                list,
                rest: rule,
                family: ANY,
                transport: ANY,
            };
            while !translation.rest.is_empty() {
                if translation.statement().is_none() {
                    return translation.expression(rule, |_| {});
                }
            }
        });
    });
}

/// How far a rule is translated.
struct Translation<'t, 'w> {
    list: &'w mut Writer,
    rest: &'t str,
    /// What the statements before have made sure of.
    family: u8,
    transport: u8,
}

impl<'t> Translation<'t, '_> {
    /// Translates the next statement. `None` where it has a word that is not known.
    fn statement(&mut self) -> Option<()> {
        if self.take("meta mark set tcp dport map").is_some() {
            return self.mark_by_port();
        }
        if let Some(key) = self.key() {
            return self.condition(&key);
        }
        match self.word()? {
            "accept" => self.verdict(1, None),
            "drop" => self.verdict(0, None),
            "return" => self.verdict(-5, None),
            way @ ("jump" | "goto") => {
                let code = if way == "jump" { -3 } else { -4 };
                let chain = self.word()?;
                self.verdict(code, Some(chain));
            }
            "notrack" => self.list.nest(1, |one| one.text(1, "notrack")),
            "counter" => self.expression("counter", |data| {
                data.long(1, 0);
                data.long(2, 0);
            }),
            "limit" => self.limit()?,
            "update" => self.update()?,
            _ => return None,
        }
        Some(())
    }

    /// Takes these words, where they come next.
    fn take(&mut self, words: &str) -> Option<()> {
        let rest = self.rest.strip_prefix(words)?;
        self.rest = match rest {
            "" => rest,
            _ => rest.strip_prefix(' ')?,
        };
        Some(())
    }

    /// Takes the next word.
    fn word(&mut self) -> Option<&'t str> {
        let (word, rest) = self.rest.split_once(' ').unwrap_or((self.rest, ""));
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }

    /// Takes fields with dots between them.
    fn key(&mut self) -> Option<Vec<&'static Field>> {
        let mut key = Vec::new();
        loop {
            let mut fields = FIELDS.iter();
            key.push(fields.find(|field| self.take(field.text).is_some())?);
            if self.take(".").is_none() {
                return Some(key);
            }
        }
    }

    /// Goes on where the fields compare as the next words say.
    fn condition(&mut self, key: &[&Field]) -> Option<()> {
        self.require(key);
        let operator = match self.take("!=") {
            Some(()) => UNEQUAL,
            None => EQUAL,
        };
        if self.rest.starts_with('@') {
            let set = self.word()?.strip_prefix('@')?;
            self.load(key);
            self.expression("lookup", |data| {
                data.text(1, set);
                data.number(2, REGISTER);
                if operator == UNEQUAL {
                    data.number(5, 1);
                }
            });
            return Some(());
        }
        let &[field] = key else {
            return None;
        };
        if self.take("&").is_some() {
            return self.flags(key);
        }
        let word = self.word()?;
        if let Some((first, last)) = word.split_once('-') {
            self.load(key);
            self.cmp(AT_LEAST, &value(first)?);
            self.cmp(AT_MOST, &value(last)?);
        } else if let Some((address, bits)) = word.split_once('/') {
            self.network(field, &value(address)?, bits.parse().ok()?);
        } else {
            let value = value(word)?;
            self.load(key);
            if field.text == CT_STATE && operator == EQUAL {
                // It is one of a mask's bits.
                self.mask(&value, REGISTER);
                self.cmp(UNEQUAL, &[0; 4]);
                return Some(());
            }
            self.cmp(operator, &value);
            if operator == EQUAL {
                self.learn(field, value[0]);
            }
        }
        Some(())
    }

    /// Goes on where the field lies in a network. Where the prefix ends with a byte, the
    /// bytes before are all that is loaded.
    fn network(&mut self, field: &Field, octets: &[u8], bits: u32) {
        let whole = (bits / 8) as usize;
        if bits > 0 && bits.is_multiple_of(8) && whole <= octets.len() {
            self.load_bytes(field, bits / 8, REGISTER);
            return self.cmp(EQUAL, &octets[..whole]);
        }
        let mut mask = vec![0xff; whole.min(octets.len())];
        mask.push(!(0xff >> (bits % 8)));
        mask.resize(octets.len(), 0);
        self.load_bytes(field, field.length, REGISTER);
        self.mask(&mask, REGISTER);
        self.cmp(EQUAL, octets);
    }

    /// Goes on where of some of TCP's flags exactly one is set, or none; or where it is not so.
    fn flags(&mut self, key: &[&Field]) -> Option<()> {
        let (of, rest) = self.rest.strip_prefix('(')?.split_once(") ")?;
        self.rest = rest;
        let mut mask = 0;
        for name in of.split(" | ") {
            mask |= flag(name)?;
        }
        let operator = match self.word()? {
            "==" => EQUAL,
            "!=" => UNEQUAL,
            _ => return None,
        };
        let set = match self.word()? {
            "0" => 0,
            name => flag(name)?,
        };
        self.load(key);
        self.mask(&[mask], REGISTER);
        self.cmp(operator, &[set]);
        Some(())
    }

    /// Adds fields to a set for some seconds, or renews them there. Where the set is full,
    /// the rule ends here.
    fn update(&mut self) -> Option<()> {
        let set = self.word()?.strip_prefix('@')?;
        self.take("{")?;
        let key = self.key()?;
        self.take("timeout")?;
        let seconds: u64 = self.word()?.strip_suffix('s')?.parse().ok()?;
        self.take("}")?;
        self.require(&key);
        self.load(&key);
        self.expression("dynset", |data| {
            data.text(1, set);
            data.number(3, 1);
            data.number(4, REGISTER);
            data.long(6, seconds.saturating_mul(1000));
        });
        Some(())
    }

    /// Sets the packet's mark to what a map says of its TCP port. Where the map does not have
    /// the port, the rule ends here.
    fn mark_by_port(&mut self) -> Option<()> {
        let map = self.word()?.strip_prefix('@')?;
        self.require(&[&TCP_PORT]);
        self.load(&[&TCP_PORT]);
        self.expression("lookup", |data| {
            data.text(1, map);
            data.number(2, REGISTER);
            data.number(3, REGISTER);
        });
        self.expression("meta", |data| {
            // The mark.
            data.number(2, 3);
            data.number(3, REGISTER);
        });
        Some(())
    }

    /// Goes on for so many packets a second, and for so many at once.
    fn limit(&mut self) -> Option<()> {
        self.take("rate")?;
        let rate = self.word()?.strip_suffix("/second")?.parse().ok()?;
        self.take("burst")?;
        let burst = self.word()?.parse().ok()?;
        self.take("packets")?;
        self.expression("limit", |data| {
            data.long(1, rate);
            data.long(2, 1);
            data.number(3, burst);
            data.number(4, 0);
            data.number(5, 0);
        });
        Some(())
    }

    fn verdict(&mut self, code: i32, chain: Option<&str>) {
        self.expression("immediate", |data| {
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
    }

    /// Makes sure, once, that the packet has the fields. nft's text says that by their names.
    fn require(&mut self, key: &[&Field]) {
        for field in key {
            for (needed, known, by) in [
                (field.family, self.family, &FAMILY),
                (field.transport, self.transport, &PROTOCOL),
            ] {
                if needed != ANY && needed != known {
                    self.load(&[by]);
                    self.cmp(EQUAL, &[needed]);
                    self.learn(by, needed);
                }
            }
        }
    }

    /// The rule goes on only where the field has this value.
    fn learn(&mut self, field: &Field, value: u8) {
        match field.text {
            text if text == FAMILY.text => self.family = value,
            text if text == PROTOCOL.text => self.transport = value,
            _ => {}
        }
    }

    /// Loads fields one behind the other, each at a register of its own.
    fn load(&mut self, key: &[&Field]) {
        let mut register = REGISTER;
        for field in key {
            self.load_bytes(field, field.length, register);
            register += field.length.div_ceil(4);
        }
    }

    fn load_bytes(&mut self, field: &Field, length: u32, register: u32) {
        let (name, numbers) = field.expression;
        let mut numbers = [&[register], numbers].concat();
        if let [_, _header, _offset, bytes] = &mut numbers[..] {
            *bytes = length;
        }
        self.numbers(name, &numbers);
        if field.text == NETWORK64 {
            self.mask(&(u128::MAX << 64).to_be_bytes(), register);
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

    /// An expression whose data are these numbers.
    fn numbers(&mut self, name: &str, numbers: &[u32]) {
        self.expression(name, |data| {
            for (at, number) in (1..).zip(numbers) {
                data.number(at, *number);
            }
        });
    }

    fn expression(&mut self, name: &str, data: impl FnOnce(&mut Writer)) {
        self.list.nest(1, |one| {
            one.text(1, name);
            one.nest(2, data);
        });
    }
}
