//! The steps of a port sequence: for each a chain, and for each family the set of the
//! sources that have done it.

use super::super::address::AddressFamily;
use super::super::guard::{SequenceGuard, SequenceSteps};
use super::super::names::{self, DONE, ROLLING};
use super::field::Field;
use super::statement::{Rule, count, discard, go_back, goto, is_in, is_not_in, jump};
use super::statement::{mark_by_port, update};
use super::{Chain, Set};
use oneknock_shared::port::Transport;
use oneknock_shared::rolling;

/// Sources that may be at one step at a time, in each family.
const MAX_STEPPING: u32 = 16_384;
/// Ports that may be the same step of rolling sequences.
const MAX_ROLLING: u32 = 1_024;
/// The chain for a step that is not due.
pub const NOT_DUE: &str = "sequence-not-due";
/// The chain that every packet to a step goes through first.
pub const CHECK: &str = "sequence-check";

/// A packet's source and destination port.
pub fn packet(family: AddressFamily) -> [Field; 3] {
    [Field::source(family), Field::PROTOCOL, Field::ANY_PORT]
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
                data: Some(Field::MARK),
                size: MAX_ROLLING,
                ..Set::timed(names::step_ports(at), &[Field::port(Transport::Tcp)])
            });
        }
        let step = SequenceStep {
            sequence,
            at,
            last,
            is_rolling,
        };
        let set =
            |family| Set::dynamic(names::step_set(at, family), &step.key(family), MAX_STEPPING);
        sets.extend(AddressFamily::BOTH.map(set));
        chains.push(step.chain());
    }
    if is_rolling {
        chains.push(rolling_chain(last));
    }
}

/// Where a packet to a port of rolling sequences goes.
fn rolling_chain(last: usize) -> Chain {
    let found = |at| mark_by_port(&names::step_ports(at));
    let chain = names::step_chain;
    // A port may be several steps, each of another sequence: the last that is due counts.
    let due = (2..=last).rev();
    let due = due.map(|at| vec![found(at), jump(&chain(at))]);
    let mut rules: Vec<Rule> = due.collect();
    rules.push(vec![found(1), goto(&chain(1))]);
    rules.extend((2..=last).map(|at| vec![found(at), goto(NOT_DUE)]));
    Chain::new(ROLLING, rules)
}

/// A step.
struct SequenceStep<'s> {
    sequence: &'s SequenceGuard,
    /// Which, from 1.
    at: usize,
    last: usize,
    is_rolling: bool,
}

impl SequenceStep<'_> {
    /// What its sets know a source by.
    fn key(&self, family: AddressFamily) -> Vec<Field> {
        let mark = self.is_rolling.then_some(Field::MARK);
        [Field::source(family)].into_iter().chain(mark).collect()
    }

    fn chain(&self) -> Chain {
        let mut rules = vec![vec![jump(CHECK)]];
        rules.extend(AddressFamily::BOTH.into_iter().flat_map(|f| self.rules(f)));
        rules.push(vec![discard()]);
        Chain::new(names::step_chain(self.at), rules)
    }

    /// What the step is to a packet of this family.
    fn rules(&self, family: AddressFamily) -> Vec<Rule> {
        let Self { at, last, .. } = *self;
        let key = self.key(family);
        let set = |at| names::step_set(at, family);
        let mut rules = Vec::new();
        if at == last {
            // Until it has ended it opens nothing again.
            rules.push(vec![is_in(&key, &set(at)), discard()]);
        }
        if at > 1 {
            // It may be another step of another key's.
            let not_due = if self.is_rolling {
                go_back()
            } else {
                goto(NOT_DUE)
            };
            rules.push(vec![is_not_in(&key, &set(at - 1)), not_due]);
            // No condition: where there is no room, it goes on with the next rule.
            let done = names::set_of(DONE, family);
            rules.push(vec![update(
                &done,
                &packet(family),
                self.sequence.penalty(),
            )]);
        }
        let mut done = vec![update(&set(at), &key, self.sequence.step_time)];
        if at == last {
            let grants = names::sequence_set(self.sequence.service, family);
            done.push(update(
                &grants,
                &[Field::source(family)],
                self.sequence.open_for,
            ));
            done.push(count());
        }
        done.push(discard());
        rules.push(done);
        rules
    }
}
