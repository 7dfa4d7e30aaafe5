//! The port sequence, in the kernel alone: a stage machine for each address, of sets whose
//! elements have timeouts. No process is needed for it once it stands.
//!
//! That somebody is at step k is an element of `stepK_v4` or `stepK_v6`. The first step is
//! always due, and any other while the element of the one before lasts: whoever begins anew
//! may do so at any time. A misstep puts the address (of IPv6 the /64, which is one
//! customer's) into the penalty set for longer than any step or grant lasts, and each further
//! misstep and each packet to a step renews that: none of its steps is left when it ends. A
//! full set fails closed. An update of one ends its rule, and what follows drops; where a
//! misstep finds no room, nobody of that family gets on for as long as a penalty lasts
//! (`jammed`, which has one element for a family).
//!
//! A step is a new connection's first packet and nothing else. A step that was done comes
//! again where a SYN is sent again, after 1, 3, 7 and 15 seconds, when its own element and
//! that of the step before may have ended: `done_v4` and `done_v6` know it for as long as a
//! penalty lasts, and till then it is no misstep. They let nobody on, and what an address
//! had done before a misstep is forgotten when its penalty ends.
//!
//! Behind a default gateway that rewrites sources is everybody: it is nobody's step.

use super::gateways::barred;
use super::names::{FAMILIES, SEQUENCE, TABLE, family_of, gateway_set, seq_name};
use super::nft::{self, NftFailed};
use super::rolling::port_map;
use crate::config::{Config, Sequence, Steps};
use oneknock_shared::port::Ports;
use oneknock_shared::rolling;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

/// How many may be at one step at a time, in each family.
const STEPPING: u32 = 16_384;
/// How many may have a penalty at a time, in each family.
const PENALISED: u32 = 65_536;
/// How many steps that were done are known, in each family. Of more, a copy is a misstep.
const DONE: u32 = 65_536;
/// How many default gateways a machine has at most, in each family.
const GATEWAYS: u32 = 1_024;
/// How many ports may be the same step of rolling sequences.
const ROLLING: u32 = 1_024;
/// How many may be admitted at a time, in each family.
pub const ADMITTED: u32 = 1_024;

/// What belongs to a sequence in a table.
#[derive(Debug, Default)]
pub struct Parts {
    sets: Vec<(String, String)>,
    maps: Vec<(String, String)>,
    /// A chain's name, how it is declared, and its rules.
    chains: Vec<(String, &'static str, Vec<String>)>,
}

/// The sequence of this configuration; nothing where there is none.
#[must_use]
pub fn parts(config: &Config) -> Parts {
    let mut parts = Parts::default();
    if let Some(sequence) = &config.sequence {
        parts.misstep(sequence);
        match &sequence.steps {
            Steps::Fixed(steps) => {
                for at in 1..=steps.len() {
                    parts.step(sequence, at);
                }
            }
            Steps::Rolling => parts.roll(sequence),
        }
        parts.base(config, sequence);
        // An empty chain: the steps of another sequence must not count for this one.
        parts.chains.push((tag(sequence), "", Vec::new()));
    }
    parts
}

/// Tells one sequence from another; between two builds of this program it may differ.
fn tag(sequence: &Sequence) -> String {
    let mut hasher = DefaultHasher::new();
    let Sequence {
        service,
        steps,
        step_time,
        open_for,
        public: _,
    } = sequence;
    (service.as_str(), steps, step_time, open_for).hash(&mut hasher);
    format!("sequence-{:016x}", hasher.finish())
}

fn step_set(at: usize, family: &str) -> String {
    format!("step{at}_{family}")
}

impl Parts {
    pub(super) fn chain(&mut self, name: impl Into<String>, rules: Vec<String>) {
        self.chains.push((name.into(), "", rules));
    }

    pub(super) fn set(&mut self, name: impl Into<String>, kind: &str, size: u32) {
        let what = format!("type {kind}; flags dynamic,timeout; size {size};");
        self.sets.push((name.into(), what));
    }

    fn misstep(&mut self, sequence: &Sequence) {
        let penalty = sequence.penalty().as_secs();
        let (mut note, mut check) = (Vec::new(), vec!["ct state != new drop".to_owned()]);
        let mut early = Vec::new();
        // Header after header is a way to hide one; a flag besides SYN begins nothing.
        check.push("ip6 nexthdr != { tcp, udp } goto missed".into());
        check.push("tcp flags & (fin | syn | rst | ack) != syn goto missed".into());
        for [family, kind, address, of] in FAMILIES {
            let what = format!("type {kind}; size {GATEWAYS};");
            self.sets.push((gateway_set(family), what));
            check.push(format!("{address} @{} counter drop", gateway_set(family)));
            let what = format!("{kind} . inet_proto . inet_service");
            self.set(format!("done_{family}"), &what, DONE);
            early.push(format!("{} @done_{family} drop", which(address)));
            self.set(format!("penalty_{family}"), kind, PENALISED);
            note.push(format!(
                "update @penalty_{family} {{ {of} timeout {penalty}s }} return"
            ));
            check.push(format!("{of} @penalty_{family} goto missed"));
        }
        self.set("jammed", "nf_proto", 16);
        note.push(format!(
            "update @jammed {{ meta nfproto timeout {penalty}s }}"
        ));
        check.push("meta nfproto @jammed drop".into());
        self.chain("misstep", note);
        self.chain("missed", vec!["jump misstep".into(), "counter drop".into()]);
        early.push("goto missed".into());
        self.chain("early", early);
        self.chain("step", check);
    }

    fn step(&mut self, sequence: &Sequence, at: usize) {
        let last = sequence.fixed().len();
        let mut rules = vec!["jump step".to_owned()];
        for [family, kind, address, _] in FAMILIES {
            self.set(step_set(at, family), kind, STEPPING);
            let who = Who {
                family,
                address,
                key: address,
                early: "goto early",
            };
            rules.extend(who.steps(sequence, at, last));
        }
        rules.push("drop".into());
        self.chain(format!("step{at}"), rules);
    }

    /// Steps that the daemon says: for each of them a map of ports, whose values are what
    /// tells the sequences of several keys and minutes apart. Every mark that is set here
    /// is of a packet that ends here.
    fn roll(&mut self, sequence: &Sequence) {
        let last = rolling::STEPS;
        for at in 1..=last {
            let what = format!("type inet_service : mark; flags timeout; size {ROLLING};");
            self.maps.push((port_map(at), what));
            let mut rules = vec!["jump step".to_owned()];
            for [family, kind, address, _] in FAMILIES {
                self.set(step_set(at, family), &format!("{kind} . mark"), STEPPING);
                let who = Who {
                    family,
                    address,
                    key: &format!("{address} . meta mark"),
                    // It may be another step of another key's.
                    early: "return",
                };
                rules.extend(who.steps(sequence, at, last));
            }
            rules.push("drop".into());
            self.chain(format!("step{at}"), rules);
        }
        let found = |at| format!("meta mark set tcp dport map @{}", port_map(at));
        let mut rules: Vec<String> = Vec::new();
        rules.extend(
            (2..=last)
                .rev()
                .map(|at| format!("{} jump step{at}", found(at))),
        );
        rules.push(format!("{} goto step1", found(1)));
        rules.extend((2..=last).map(|at| format!("{} goto early", found(at))));
        self.chain(super::names::ROLLING, rules);
    }

    /// After the guard, which has dropped what is not for everybody.
    fn base(&mut self, config: &Config, sequence: &Sequence) {
        let mut rules: Vec<String> = [
            "iifname \"lo\" accept",
            "ct state established tcp flags & (syn | ack) != syn accept",
            "ct state established meta l4proto udp accept",
            "fib daddr type != local accept",
            "meta l4proto != { tcp, udp } accept",
        ]
        .map(String::from)
        .into();
        let guarded = config.services.iter().flat_map(|service| &service.ports);
        let knock = config
            .knock_ports()
            .into_iter()
            .map(|port| format!("udp dport {port}"));
        let open = guarded
            .chain(&sequence.public)
            .copied()
            .map(dport)
            .chain(knock);
        rules.extend(open.map(|port| format!("{port} accept")));
        let steps = sequence.fixed().iter().zip(1..);
        rules.extend(steps.map(|(port, at)| format!("{} goto step{at}", dport(*port))));
        if sequence.steps == Steps::Rolling {
            let (first, last) = rolling::PORTS.into_inner();
            rules.push(format!("tcp dport {first}-{last} jump rolling"));
        }
        rules.push("ct state new jump misstep".into());
        let base = "{ type filter hook prerouting priority -149; policy accept; }";
        self.base_chain(SEQUENCE, base, rules);
    }

    pub(super) fn base_chain(&mut self, name: &str, base: &'static str, rules: Vec<String>) {
        self.chains.push((name.into(), base, rules));
    }

    /// The sets' names.
    pub fn set_names(&self) -> impl Iterator<Item = &String> {
        self.sets.iter().chain(&self.maps).map(|(name, _)| name)
    }

    /// The chains' names.
    pub fn chain_names(&self) -> impl Iterator<Item = &String> {
        self.chains.iter().map(|(name, ..)| name)
    }

    /// How many rules each chain has.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let counts = self.chains.iter();
        counts
            .map(|(name, _, rules)| (name.clone(), rules.len()))
            .collect()
    }

    /// Whether these steps, and no others, stand among these chains.
    pub fn stand_in(&self, chains: &[String]) -> bool {
        self.chains
            .last()
            .is_some_and(|(tag, ..)| chains.contains(tag))
    }

    /// The commands that make it stand in a table that is there; elements stay, but for the
    /// gateways, which are these.
    pub(super) fn commands(&self, table: &str, gateways: &BTreeSet<IpAddr>) -> String {
        let mut script = String::new();
        // A String takes whatever is written to it.
        for (name, what) in &self.sets {
            let _ = writeln!(script, "add set inet {table} {name} {{ {what} }}");
        }
        for [family, ..] in FAMILIES {
            let set = gateway_set(family);
            let _ = writeln!(script, "flush set inet {table} {set}");
        }
        for gateway in gateways {
            let set = gateway_set(family_of(*gateway));
            let _ = writeln!(script, "add element inet {table} {set} {{ {gateway} }}");
        }
        for (name, what) in &self.maps {
            let _ = writeln!(script, "add map inet {table} {name} {{ {what} }}");
        }
        for (name, base, _) in &self.chains {
            let _ = writeln!(script, "add chain inet {table} {name} {base}");
            let _ = writeln!(script, "flush chain inet {table} {name}");
        }
        for (name, _, rules) in &self.chains {
            for rule in rules {
                let _ = writeln!(script, "add rule inet {table} {name} {rule}");
            }
        }
        script
    }

    /// Makes it stand in the guard's table; elements of a sequence that stays are kept.
    pub fn load(&self, gateways: &BTreeSet<IpAddr>) -> Result<(), NftFailed> {
        if self.chains.is_empty() {
            return Ok(());
        }
        nft::apply_text(&self.commands(TABLE, gateways))
    }
}

/// Somebody who comes to a step, as rules write it.
struct Who<'w> {
    family: &'w str,
    address: &'w str,
    /// How the sets of steps know him.
    key: &'w str,
    /// What becomes of him where the step is not due.
    early: &'w str,
}

impl Who<'_> {
    /// What a step is to him.
    fn steps(&self, sequence: &Sequence, at: usize, last: usize) -> Vec<String> {
        let Self {
            family,
            address,
            key,
            early,
        } = self;
        let set = |at| step_set(at, family);
        let mut rules = Vec::new();
        if at == last {
            // Until it has ended it opens nothing anew.
            rules.push(format!("{key} @{} drop", set(at)));
        }
        if at > 1 {
            rules.push(format!("{key} != @{} {early}", set(at - 1)));
            // No condition: where there is no room, it goes on with the next rule.
            let (penalty, which) = (sequence.penalty().as_secs(), which(address));
            rules.push(format!(
                "update @done_{family} {{ {which} timeout {penalty}s }}"
            ));
        }
        let open = opening(sequence, at == last, family, address);
        let time = sequence.step_time.as_secs();
        let done = format!("update @{} {{ {key} timeout {time}s }}", set(at));
        rules.push(format!("{done}{open} drop"));
        rules
    }
}

/// Which port this is, to whom.
fn which(address: &str) -> String {
    format!("{address} . meta l4proto . th dport")
}

/// The commands that make the sequence of this configuration stand in the guard's table, on a
/// machine with these gateways; empty where there is none.
#[must_use]
pub fn script(config: &Config, gateways: &[IpAddr]) -> String {
    let parts = parts(config);
    if parts.chains.is_empty() {
        return String::new();
    }
    parts.commands(TABLE, &barred(config, gateways))
}

/// What the last step does besides.
fn opening(sequence: &Sequence, is_last: bool, family: &str, address: &str) -> String {
    if !is_last {
        return String::new();
    }
    let set = seq_name(sequence.service, family == "v6");
    let time = sequence.open_for.as_secs();
    format!(" update @{set} {{ {address} timeout {time}s }} counter")
}

pub(super) fn dport(ports: Ports) -> String {
    let (transport, first, last) = (ports.transport(), ports.first(), ports.last());
    if first == last {
        format!("{transport} dport {first}")
    } else {
        format!("{transport} dport {first}-{last}")
    }
}
