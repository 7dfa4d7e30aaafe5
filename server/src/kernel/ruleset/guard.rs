//! The guard itself: its two base chains, a chain for each service, and their sets.

use super::super::guard::{Guard, GuardedService};
use super::super::names::{self, AddressFamily, GRACE, GUARD, INPUT, TABLE, TRIAL};
use super::{AddressType, Chain, Compare, CtState, DataType, Field, HookPoint, Rule, Ruleset};
use super::{Set, Statement, prefilter, sequence};
use oneknock_shared::port::{Ports, Transport};
use std::net::IpAddr;

/// After connection tracking (-200), before destination NAT (-100): what a container
/// publishes is guarded too.
pub const PRIORITY: i32 = -150;
/// TCP's flags, RFC 9293.
pub const FIN: u8 = 0x01;
/// See [`FIN`].
pub const SYN: u8 = 0x02;
/// See [`FIN`].
pub const RST: u8 = 0x04;
/// See [`FIN`].
pub const ACK: u8 = 0x10;

/// The ruleset of this guard.
#[must_use]
pub fn ruleset(guard: &Guard) -> Ruleset {
    let mut sets = vec![Set::timed(GRACE, &[DataType::Protocol])];
    if !guard.enforcing {
        sets.push(Set::timed(TRIAL, &[DataType::Protocol]));
    }
    sets.extend(AddressFamily::BOTH.map(|family| {
        let rest = [DataType::Protocol, DataType::Port, DataType::Port];
        let key = [&[address_type(family)][..], &rest].concat();
        Set::timed(names::blocked_set(family), &key)
    }));
    let mut chains = vec![Chain::new(names::mark(guard.server), Vec::new())];
    for service in &guard.services {
        sets.extend(AddressFamily::BOTH.map(|family| {
            let name = names::allow_set(service.name, family);
            Set::timed(name, &[address_type(family)])
        }));
        chains.push(service_chain(guard, service));
    }
    if let Some(sequence) = &guard.sequence {
        sets.extend(sequence::grant_sets(sequence));
    }
    let mut rules = vec![elsewhere()];
    rules.extend(base_rules(guard));
    chains.push(Chain::base(GUARD, HookPoint::Prerouting, PRIORITY, rules));
    chains.push(Chain::base(
        INPUT,
        HookPoint::Input,
        PRIORITY,
        base_rules(guard),
    ));
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
pub(super) fn elsewhere() -> Rule {
    vec![
        Statement::is(Field::DestinationType, AddressType::Unicast),
        Statement::Accept,
    ]
}

/// What leads past the guard, in order, and then the services.
fn base_rules(guard: &Guard) -> Vec<Rule> {
    let mut rules = Vec::new();
    if !guard.enforcing {
        let is_over = Statement::NotIn(vec![Field::TransportProtocol], TRIAL.into());
        rules.push(vec![is_over, Statement::Accept]);
    }
    rules.push(from_loopback());
    rules.extend(trusted(&guard.trusted));
    rules.extend(AddressFamily::BOTH.map(blocked));
    rules.extend(live_connections());
    for service in &guard.services {
        let jump = || Statement::Jump(names::service_chain(service.name));
        rules.extend(service.ports.iter().map(|ports| vec![to(*ports), jump()]));
    }
    rules
}

/// What this machine sends to itself is not guarded.
pub(super) fn from_loopback() -> Rule {
    let name = super::Value::Interface("lo");
    vec![
        Statement::is(Field::InputInterface, name),
        Statement::Accept,
    ]
}

/// A trusted network never needs to knock.
pub(super) fn trusted(networks: &[(IpAddr, u8)]) -> impl Iterator<Item = Rule> {
    networks.iter().map(|(address, bits)| {
        let source = Field::Source(AddressFamily::of(*address));
        let is_in = Compare::Network(*address, *bits);
        vec![Statement::If(source, is_in), Statement::Accept]
    })
}

/// A connection that an administrator has ended is forwarded no longer.
fn blocked(family: AddressFamily) -> Rule {
    let key = vec![
        Field::Source(family),
        Field::TransportProtocol,
        Field::SourcePort,
        Field::AnyPort,
    ];
    vec![
        Statement::In(key, names::blocked_set(family)),
        Statement::Drop,
    ]
}

/// Sessions live on when their grant has ended; and for the guard's first minute those that
/// are older than it.
pub(super) fn live_connections() -> [Rule; 3] {
    let [tcp, udp] = established();
    let begins_nothing = Compare::FlagsEqual(SYN | RST, 0);
    // Nothing that could begin or end a connection.
    let grace = vec![
        Statement::If(Field::TcpFlags, begins_nothing),
        Statement::In(vec![Field::TransportProtocol], GRACE.into()),
        Statement::Accept,
    ];
    [tcp, udp, grace]
}

/// Packets of connections that were made before. A SYN begins a connection, whatever
/// connection tracking takes it for: an outsider's stray segment that was answered with RST
/// makes the next SYN "established".
pub(super) fn established() -> [Rule; 2] {
    let is = || Statement::State(CtState::Established);
    let no_syn = Statement::If(Field::TcpFlags, Compare::FlagsUnequal(SYN | ACK, SYN));
    let is_udp = Statement::is(Field::TransportProtocol, Transport::Udp);
    [
        vec![is(), no_syn, Statement::Accept],
        vec![is(), is_udp, Statement::Accept],
    ]
}

/// A service: what is allowed passes, the rest is dropped in silence.
fn service_chain(guard: &Guard, service: &GuardedService) -> Chain {
    let mut rules: Vec<Rule> = Vec::new();
    let allowed = |family, set| {
        vec![
            Statement::In(vec![Field::Source(family)], set),
            Statement::Accept,
        ]
    };
    let allow = |family| allowed(family, names::allow_set(service.name, family));
    rules.extend(AddressFamily::BOTH.map(allow));
    let sequence = guard.sequence.as_ref();
    if sequence.is_some_and(|sequence| sequence.service == service.name) {
        let allow = |family| allowed(family, names::sequence_set(service.name, family));
        rules.extend(AddressFamily::BOTH.map(allow));
    }
    rules.push(vec![Statement::Counter, Statement::Drop]);
    Chain::new(names::service_chain(service.name), rules)
}

/// Whether a packet is to one of these ports.
pub(super) fn to(ports: Ports) -> Statement {
    let field = Field::Port(ports.transport());
    if ports.first() == ports.last() {
        Statement::is(field, ports.first())
    } else {
        Statement::If(field, Compare::Between(ports.first(), ports.last()))
    }
}

/// The type of this family's addresses.
pub(super) fn address_type(family: AddressFamily) -> DataType {
    match family {
        AddressFamily::V4 => DataType::Ipv4Address,
        AddressFamily::V6 => DataType::Ipv6Address,
    }
}
