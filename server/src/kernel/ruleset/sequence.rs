//! The port sequence, in the kernel alone: a stage machine for each address, of sets whose
//! elements have timeouts. No process is needed for it once it is installed.
//!
//! That a source is at step k is an element of `stepK_v4` or `stepK_v6`. The first step is
//! always due, and any other while the element of the one before lasts: a source may begin
//! again at any time. An out-of-order probe puts the source (of IPv6 the /64, which is one
//! customer's) into the penalty set for longer than any step or grant lasts, and each
//! further probe and each packet to a step renews that: none of its steps is left when the
//! penalty ends. A full set fails closed. An update of a full one ends its rule, and what
//! follows drops; where a probe finds no room, no source of that family gets on for as long
//! as a penalty lasts (`penalty_overflow`, which has one element for a family).
//!
//! A step is a new connection's first packet and nothing else. A step that was done comes
//! again where a SYN is sent again, after 1, 3, 7 and 15 seconds, when its own element and
//! that of the step before may have ended: `done_v4` and `done_v6` know it for as long as a
//! penalty lasts, and until then it is no out-of-order probe. They let nothing on, and what
//! a source had done before a probe is forgotten when its penalty ends.
//!
//! Behind a default gateway that rewrites sources is everybody: no step of it counts.

use super::super::OptionalPart;
use super::super::guard::{Guard, SequenceGuard, SequenceSteps};
use super::super::names::{self, AddressFamily, PENALTY_OVERFLOW, ROLLING, SEQUENCE};
use super::guard::{ACK, FIN, RST, SYN, address_type, established, from_loopback, to};
use super::{AddressType, Chain, Compare, CtState, DataType, ElementKey, Field, InitialElement};
use super::{HookPoint, Rule, Ruleset, Set, Statement, step};
use oneknock_shared::port::{Ports, Transport};
use oneknock_shared::rolling;
use std::fmt::Write;

/// Behind the guard, which has dropped what is not for everybody.
const PRIORITY: i32 = super::guard::PRIORITY + 1;
/// Sources that may have a penalty at a time, in each family.
const MAX_PENALTIES: u32 = 65_536;
/// Steps that were done and are known, in each family. Of more, a copy is out of order.
const MAX_DONE: u32 = 65_536;
/// Sources that a sequence may have admitted at a time, in each family.
const MAX_GRANTS: u32 = 1_024;
/// More than there are families.
const FAMILIES: u32 = 16;
/// The chain that gives a penalty.
const PENALIZE: &str = "sequence-penalize";
/// The chain that gives a penalty and drops.
const PENALIZE_DROP: &str = "sequence-penalize-drop";
/// The chain for a step that is not due.
pub(super) const NOT_DUE: &str = "sequence-not-due";
/// The chain that every packet to a step goes through first.
pub(super) const CHECK: &str = "sequence-check";

/// The sets of the sources that a sequence has admitted to its service: the guard reads them.
pub(super) fn grant_sets(sequence: &SequenceGuard) -> [Set; 2] {
    AddressFamily::BOTH.map(|family| {
        let name = names::sequence_set(sequence.service, family);
        Set::dynamic(name, &[address_type(family)], MAX_GRANTS)
    })
}

/// Adds the sequence to a ruleset.
pub(super) fn add(ruleset: &mut Ruleset, guard: &Guard, sequence: &SequenceGuard) {
    let (mut sets, mut chains) = (sets(guard), penalty_chains(sequence));
    match &sequence.steps {
        SequenceSteps::Fixed(steps) => {
            for at in 1..=steps.len() {
                step::add_fixed(&mut sets, &mut chains, sequence, at);
            }
        }
        SequenceSteps::Rolling => step::add_rolling(&mut sets, &mut chains, sequence),
    }
    chains.push(base(guard, sequence));
    // An empty chain: the steps of another sequence must not count for this one.
    chains.push(Chain::new(tag(sequence), Vec::new()));
    for set in &mut sets {
        set.part = Some(OptionalPart::Sequence);
    }
    for chain in &mut chains {
        chain.part = Some(OptionalPart::Sequence);
    }
    ruleset.sets.append(&mut sets);
    ruleset.chains.append(&mut chains);
}

/// What tells one sequence from another, as a chain's name.
#[must_use]
pub fn tag(sequence: &SequenceGuard) -> String {
    let SequenceGuard {
        service,
        steps,
        step_time,
        open_for,
        ignored: _,
    } = sequence;
    let (step, open) = (step_time.as_secs(), open_for.as_secs());
    let mut tag = format!("sequence-of-{service}-{step}s-{open}s");
    match steps {
        // A String takes whatever is written to it.
        SequenceSteps::Fixed(steps) => {
            for ports in steps {
                let _ = write!(tag, "-{}{}", ports.transport(), ports.first());
            }
        }
        SequenceSteps::Rolling => tag.push_str("-rolling"),
    }
    tag
}

fn sets(guard: &Guard) -> Vec<Set> {
    let mut sets = Vec::new();
    for family in AddressFamily::BOTH {
        let gateways = guard.blocked_gateways.iter();
        let gateways = gateways.filter(|address| AddressFamily::of(**address) == family);
        let element = |address: &_| InitialElement {
            key: ElementKey::Address(*address),
            timeout: None,
        };
        let address = address_type(family);
        sets.push(Set {
            has_timeouts: false,
            elements: gateways.map(element).collect(),
            ..Set::timed(names::gateway_set(family), &[address])
        });
        let key = [address, DataType::Protocol, DataType::Port];
        sets.push(Set::dynamic(names::done_set(family), &key, MAX_DONE));
        let name = names::penalty_set(family);
        sets.push(Set::dynamic(name, &[address], MAX_PENALTIES));
    }
    sets.push(Set::dynamic(
        PENALTY_OVERFLOW,
        &[DataType::Family],
        FAMILIES,
    ));
    sets
}

fn penalty_chains(sequence: &SequenceGuard) -> Vec<Chain> {
    let timeout = sequence.penalty();
    let to_penalty = || Statement::Goto(PENALIZE_DROP.into());
    let mut penalize: Vec<Rule> = Vec::new();
    // Header after header is a way to hide one; a flag besides SYN begins nothing.
    let mut check = vec![
        vec![Statement::State(CtState::NotNew), Statement::Drop],
        vec![
            Statement::is_not(Field::NextHeader, Transport::Tcp),
            Statement::is_not(Field::NextHeader, Transport::Udp),
            to_penalty(),
        ],
        vec![
            Statement::If(
                Field::TcpFlags,
                Compare::FlagsUnequal(FIN | SYN | RST | ACK, SYN),
            ),
            to_penalty(),
        ],
    ];
    let mut not_due: Vec<Rule> = Vec::new();
    for family in AddressFamily::BOTH {
        let gateway = Statement::In(vec![Field::Source(family)], names::gateway_set(family));
        check.push(vec![gateway, Statement::Counter, Statement::Drop]);
        let (key, set) = (vec![Field::penalized(family)], names::penalty_set(family));
        check.push(vec![Statement::In(key.clone(), set.clone()), to_penalty()]);
        let done = Statement::In(step::packet(family), names::done_set(family));
        not_due.push(vec![done, Statement::Drop]);
        let update = Statement::Update { set, key, timeout };
        penalize.push(vec![update, Statement::Return]);
    }
    let of_family = vec![Field::NetworkFamily];
    check.push(vec![
        Statement::In(of_family.clone(), PENALTY_OVERFLOW.into()),
        Statement::Drop,
    ]);
    // Only what found no room comes here.
    penalize.push(vec![Statement::Update {
        set: PENALTY_OVERFLOW.into(),
        key: of_family,
        timeout,
    }]);
    not_due.push(vec![to_penalty()]);
    let penalize_drop = vec![
        vec![Statement::Jump(PENALIZE.into())],
        vec![Statement::Counter, Statement::Drop],
    ];
    vec![
        Chain::new(PENALIZE, penalize),
        Chain::new(PENALIZE_DROP, penalize_drop),
        Chain::new(NOT_DUE, not_due),
        Chain::new(CHECK, check),
    ]
}

fn base(guard: &Guard, sequence: &SequenceGuard) -> Chain {
    let mut rules = vec![from_loopback()];
    rules.extend(established());
    rules.push(vec![
        Statement::is_not(Field::DestinationType, AddressType::Local),
        Statement::Accept,
    ]);
    rules.push(vec![
        Statement::is_not(Field::TransportProtocol, Transport::Tcp),
        Statement::is_not(Field::TransportProtocol, Transport::Udp),
        Statement::Accept,
    ]);
    let guarded = guard.services.iter().flat_map(|service| &service.ports);
    let ignored = guarded.chain(&sequence.ignored).copied();
    let knock = guard.listen.iter().map(std::net::SocketAddr::port);
    let knock = knock.filter_map(|port| Ports::single(Transport::Udp, port));
    let mut open: Vec<Ports> = Vec::new();
    for ports in ignored.chain(knock) {
        if !open.contains(&ports) {
            open.push(ports);
        }
    }
    rules.extend(open.iter().map(|ports| vec![to(*ports), Statement::Accept]));
    let steps = sequence.fixed().iter().zip(1..);
    rules.extend(steps.map(|(ports, at)| {
        let step = Statement::Goto(names::step_chain(at));
        vec![to(*ports), step]
    }));
    if sequence.steps == SequenceSteps::Rolling {
        let (first, last) = rolling::PORTS.into_inner();
        let is_in = Statement::If(Field::Port(Transport::Tcp), Compare::Between(first, last));
        rules.push(vec![is_in, Statement::Jump(ROLLING.into())]);
    }
    rules.push(vec![
        Statement::State(CtState::New),
        Statement::Jump(PENALIZE.into()),
    ]);
    Chain::base(SEQUENCE, HookPoint::Prerouting, PRIORITY, rules)
}
