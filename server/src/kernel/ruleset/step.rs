//! The steps of a port sequence: for each a chain, and for each family the set of the
//! sources that have done it.

use super::super::address::AddressFamily;
use super::super::guard::{SequenceGuard, SequenceSteps};
use super::super::names::{self, DONE, ROLLING};
use super::{Chain, Set};
use oneknock_shared::rolling;
use std::time::Duration;

/// Sources that may be at one step at a time, in each family.
const MAX_STEPPING: u32 = 16_384;
/// Ports that may be the same step of rolling sequences.
const MAX_ROLLING: u32 = 1_024;
/// The chain for a step that is not due.
pub const NOT_DUE: &str = "sequence-not-due";
/// The chain that every packet to a step goes through first.
pub const CHECK: &str = "sequence-check";

/// A packet's source and destination port.
pub fn packet(family: AddressFamily) -> String {
    format!("{} saddr . meta l4proto . th dport", family.text())
}

/// Adds the steps. Those of rolling sequences are set by the daemon: for each there is a map
/// of ports, whose values tell the sequences of several keys and minutes apart. Every mark
/// that is set here is of a packet that ends here.
pub fn add(sets: &mut Vec<Set>, chains: &mut Vec<Chain>, sequence: &SequenceGuard) {
    let is_rolling = sequence.steps == SequenceSteps::Rolling;
    let last = if is_rolling {
        rolling::STEPS
    } else {
        sequence.fixed().len()
    };
    for at in 1..=last {
        if is_rolling {
            sets.push(Set {
                size: MAX_ROLLING,
                ..Set::timed(names::step_ports(at), "inet_service : mark")
            });
        }
        let mut rules = vec![format!("jump {CHECK}")];
        for family in AddressFamily::BOTH {
            let mark = if is_rolling { " . mark" } else { "" };
            let key = format!("{}{mark}", family.data_type());
            let name = names::step_set(at, family);
            sets.push(Set::dynamic(name, &key, MAX_STEPPING));
            rules.extend(step(sequence, is_rolling, at, at == last, family));
        }
        rules.push("drop".into());
        chains.push(Chain::new(&names::step_chain(at), rules));
    }
    if is_rolling {
        chains.push(rolling_chain(last));
    }
}

/// What a step is to a packet of this family.
fn step(
    sequence: &SequenceGuard,
    is_rolling: bool,
    at: usize,
    is_last: bool,
    family: AddressFamily,
) -> Vec<String> {
    let update = |set: &str, key: &str, time: Duration| {
        let seconds = time.as_secs();
        format!("update @{set} {{ {key} timeout {seconds}s }}")
    };
    let source = format!("{} saddr", family.text());
    let mark = if is_rolling { " . meta mark" } else { "" };
    let (key, set) = (format!("{source}{mark}"), names::step_set(at, family));
    let mut rules = Vec::new();
    if is_last {
        // Until it has ended it opens nothing again.
        rules.push(format!("{key} @{set} drop"));
    }
    if at > 1 {
        let before = names::step_set(at - 1, family);
        // A port of a rolling sequence may be another step of another key's.
        let not_due = if is_rolling {
            "return".to_owned()
        } else {
            format!("goto {NOT_DUE}")
        };
        rules.push(format!("{key} != @{before} {not_due}"));
        // No condition: where there is no room, it goes on with the next rule.
        let done = names::set_of(DONE, family);
        rules.push(update(&done, &packet(family), sequence.penalty()));
    }
    let mut done = update(&set, &key, sequence.step_time);
    if is_last {
        let grants = names::sequence_set(sequence.service, family);
        let grant = update(&grants, &source, sequence.open_for);
        done = format!("{done} {grant} counter");
    }
    rules.push(format!("{done} drop"));
    rules
}

/// Where a packet to a port of rolling sequences goes.
fn rolling_chain(last: usize) -> Chain {
    let found = |at| format!("meta mark set tcp dport map @{}", names::step_ports(at));
    let chain = names::step_chain;
    // A port may be several steps, each of another sequence: the last that is due counts.
    let due = (2..=last).rev();
    let due = due.map(|at| format!("{} jump {}", found(at), chain(at)));
    let first = std::iter::once(format!("{} goto {}", found(1), chain(1)));
    let not_due = (2..=last).map(|at| format!("{} goto {NOT_DUE}", found(at)));
    Chain::new(ROLLING, due.chain(first).chain(not_due))
}
