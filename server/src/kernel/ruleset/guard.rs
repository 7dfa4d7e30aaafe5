//! The guard itself: its two base chains, a chain for each service, and their sets.

use super::super::address::AddressFamily;
use super::super::guard::{Guard, GuardedService};
use super::super::names::{self, BLOCKED, GRACE, GUARD, INPUT, TABLE, TRIAL};
use super::field::{Field, Value};
use super::rules::{PRIORITY, RST, SYN, admitted, established, from_loopback, to};
use super::statement::jump;
use super::statement::{Rule, accept, count, discard, flags_are, is, is_from, is_in, is_not_in};
use super::{Chain, HookPoint, Ruleset, Set, prefilter, sequence};

/// The ruleset of this guard.
#[must_use]
pub fn ruleset(guard: &Guard) -> Ruleset {
    let mut sets = vec![Set::timed(GRACE, &[Field::PROTOCOL])];
    if !guard.enforcing {
        sets.push(Set::timed(TRIAL, &[Field::PROTOCOL]));
    }
    let blocked = |family| Set::timed(names::set_of(BLOCKED, family), &connection(family));
    sets.extend(AddressFamily::BOTH.map(blocked));
    let mut chains = vec![Chain::new(names::mark(guard.server), Vec::new())];
    for service in &guard.services {
        sets.extend(AddressFamily::BOTH.map(|family| {
            let name = names::allow_set(service.name, family);
            Set::timed(name, &[Field::source(family)])
        }));
        chains.push(service_chain(guard, service));
    }
    if let Some(sequence) = &guard.sequence {
        sets.extend(sequence::grant_sets(sequence));
    }
    let (services, mut rules) = (base_rules(guard), vec![elsewhere()]);
    rules.extend(services.iter().cloned());
    chains.push(Chain::base(GUARD, HookPoint::Prerouting, PRIORITY, rules));
    chains.push(Chain::base(INPUT, HookPoint::Input, PRIORITY, services));
    let mut ruleset = Ruleset {
        table: TABLE,
        sets,
        chains,
    };
    prefilter::add(&mut ruleset, &guard.listen);
    if let Some(sequence) = &guard.sequence {
        sequence::add(&mut ruleset, guard, sequence);
    }
    ruleset
}

/// A router goes on forwarding other hosts' ssh. Only unicast: broadcast, multicast and
/// anycast reach a socket here and are judged like local. What this takes for forwarded
/// although it is delivered here (a local route in another table) meets the other chain.
fn elsewhere() -> Rule {
    vec![is(Field::DESTINATION_TYPE, Value::unicast()), accept()]
}

/// What leads past the guard, in order, and then the services.
fn base_rules(guard: &Guard) -> Vec<Rule> {
    let mut rules = Vec::new();
    if !guard.enforcing {
        // The trial is over.
        rules.push(vec![is_not_in(&[Field::PROTOCOL], TRIAL), accept()]);
    }
    rules.push(from_loopback());
    let trusted = guard.trusted.iter();
    rules.extend(trusted.map(|(address, bits)| vec![is_from(*address, *bits), accept()]));
    // A connection that an administrator has ended is forwarded no longer.
    rules.extend(AddressFamily::BOTH.map(|family| {
        let set = names::set_of(BLOCKED, family);
        vec![is_in(&connection(family), &set), discard()]
    }));
    // Sessions live on when their grant has ended; and for the guard's first minute those
    // that are older than it, but for what could begin or end a connection.
    rules.extend(established());
    let begins_nothing = flags_are(SYN | RST, 0);
    rules.push(vec![
        begins_nothing,
        is_in(&[Field::PROTOCOL], GRACE),
        accept(),
    ]);
    for service in &guard.services {
        let chain = names::service_chain(service.name);
        let ports = service.ports.iter();
        rules.extend(ports.map(|ports| vec![to(*ports), jump(&chain)]));
    }
    rules
}

/// What tells one connection from another.
fn connection(family: AddressFamily) -> [Field; 4] {
    [
        Field::source(family),
        Field::PROTOCOL,
        Field::SOURCE_PORT,
        Field::ANY_PORT,
    ]
}

/// A service: what is allowed passes, the rest is dropped in silence.
fn service_chain(guard: &Guard, service: &GuardedService) -> Chain {
    let by_grant = |family| admitted(family, &names::allow_set(service.name, family));
    let mut rules: Vec<Rule> = AddressFamily::BOTH.map(by_grant).into();
    let sequence = guard.sequence.as_ref();
    if sequence.is_some_and(|sequence| sequence.service == service.name) {
        let by_sequence = |family| admitted(family, &names::sequence_set(service.name, family));
        rules.extend(AddressFamily::BOTH.map(by_sequence));
    }
    rules.push(vec![count(), discard()]);
    Chain::new(names::service_chain(service.name), rules)
}
