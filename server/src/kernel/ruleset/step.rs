//! The steps of a port sequence: for each a chain, and for each family the set of the
//! sources that have done it.

use super::super::guard::SequenceGuard;
use super::super::names::{self, AddressFamily, ROLLING};
use super::guard::address_type;
use super::sequence::{CHECK, NOT_DUE};
use super::{Chain, DataType, Field, Rule, Set, Statement};
use oneknock_shared::rolling;

/// Sources that may be at one step at a time, in each family.
const MAX_STEPPING: u32 = 16_384;
/// Ports that may be the same step of rolling sequences.
const MAX_ROLLING: u32 = 1_024;

/// A packet's source and destination port.
pub(super) fn packet(family: AddressFamily) -> Vec<Field> {
    vec![
        Field::Source(family),
        Field::TransportProtocol,
        Field::AnyPort,
    ]
}

/// Adds a step of a fixed sequence.
pub(super) fn add_fixed(
    sets: &mut Vec<Set>,
    chains: &mut Vec<Chain>,
    sequence: &SequenceGuard,
    at: usize,
) {
    let step = SequenceStep {
        sequence,
        at,
        last: sequence.fixed().len(),
        is_rolling: false,
    };
    sets.extend(step.sets());
    chains.push(step.chain());
}

/// Adds the steps that the daemon sets: for each a map of ports, whose values tell the
/// sequences of several keys and minutes apart. Every mark that is set here is of a packet
/// that ends here.
pub(super) fn add_rolling(sets: &mut Vec<Set>, chains: &mut Vec<Chain>, sequence: &SequenceGuard) {
    let last = rolling::STEPS;
    for at in 1..=last {
        sets.push(Set {
            data: Some(DataType::Mark),
            size: Some(MAX_ROLLING),
            ..Set::timed(names::step_ports(at), &[DataType::Port])
        });
        let step = SequenceStep {
            sequence,
            at,
            last,
            is_rolling: true,
        };
        sets.extend(step.sets());
        chains.push(step.chain());
    }
    let found = |at| Statement::MarkByPort(names::step_ports(at));
    // A port may be several steps, each of another sequence: the last that is due counts.
    let due = (2..=last).rev();
    let due = due.map(|at| vec![found(at), Statement::Jump(names::step_chain(at))]);
    let mut rules: Vec<Rule> = due.collect();
    rules.push(vec![found(1), Statement::Goto(names::step_chain(1))]);
    rules.extend((2..=last).map(|at| vec![found(at), Statement::Goto(NOT_DUE.into())]));
    chains.push(Chain::new(ROLLING, rules));
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
    fn sets(&self) -> [Set; 2] {
        AddressFamily::BOTH.map(|family| {
            let mark = self.is_rolling.then_some(DataType::Mark);
            let key: Vec<DataType> = [address_type(family)].into_iter().chain(mark).collect();
            Set::dynamic(names::step_set(self.at, family), &key, MAX_STEPPING)
        })
    }

    fn chain(&self) -> Chain {
        let mut rules = vec![vec![Statement::Jump(CHECK.into())]];
        rules.extend(AddressFamily::BOTH.into_iter().flat_map(|f| self.rules(f)));
        rules.push(vec![Statement::Drop]);
        Chain::new(names::step_chain(self.at), rules)
    }

    /// What the step is to a packet of this family.
    fn rules(&self, family: AddressFamily) -> Vec<Rule> {
        let Self { at, last, .. } = *self;
        let mark = self.is_rolling.then_some(Field::Mark);
        let key: Vec<Field> = [Field::Source(family)].into_iter().chain(mark).collect();
        let set = |at| names::step_set(at, family);
        let mut rules = Vec::new();
        if at == last {
            // Until it has ended it opens nothing again.
            rules.push(vec![Statement::In(key.clone(), set(at)), Statement::Drop]);
        }
        if at > 1 {
            let not_due = if self.is_rolling {
                // It may be another step of another key's.
                Statement::Return
            } else {
                Statement::Goto(NOT_DUE.into())
            };
            rules.push(vec![Statement::NotIn(key.clone(), set(at - 1)), not_due]);
            // No condition: where there is no room, it goes on with the next rule.
            rules.push(vec![Statement::Update {
                set: names::done_set(family),
                key: packet(family),
                timeout: self.sequence.penalty(),
            }]);
        }
        let mut done = vec![Statement::Update {
            set: set(at),
            key,
            timeout: self.sequence.step_time,
        }];
        if at == last {
            done.push(Statement::Update {
                set: names::sequence_set(self.sequence.service, family),
                key: vec![Field::Source(family)],
                timeout: self.sequence.open_for,
            });
            done.push(Statement::Counter);
        }
        done.push(Statement::Drop);
        rules.push(done);
        rules
    }
}
