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

use super::super::address::AddressFamily;
use super::super::guard::{Guard, OptionalPart, SequenceGuard, SequenceSteps};
use super::super::names::{self, DONE, GATEWAY, PENALTY, PENALTY_OVERFLOW, ROLLING, SEQUENCE};
use super::parts::{self, ESTABLISHED, FROM_LOOPBACK, to};
use super::step::{self, CHECK, NOT_DUE};
use super::{Chain, HookPoint, PERMANENT, Ruleset, Set};
use oneknock_shared::port::{Ports, Transport};
use oneknock_shared::rolling;
use std::fmt::Write;

/// Behind the guard, which has dropped what is not for everybody.
const PRIORITY: i32 = parts::PRIORITY + 1;
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

/// The sets of the sources that a sequence has admitted to its service: the guard reads them.
pub fn grant_sets(sequence: &SequenceGuard) -> [Set; 2] {
    AddressFamily::BOTH.map(|family| {
        let name = names::sequence_set(sequence.service, family);
        Set::dynamic(name, family.data_type(), MAX_GRANTS)
    })
}

/// Adds the sequence to a ruleset.
pub fn add(ruleset: &mut Ruleset, guard: &Guard, sequence: &SequenceGuard) {
    let (mut sets, mut chains) = (sets(guard), penalty_chains(sequence));
    step::add(&mut sets, &mut chains, sequence);
    chains.push(base(guard, sequence));
    // An empty chain: the steps of another sequence must not count for this one.
    chains.push(Chain::new::<&str>(&tag(sequence), []));
    ruleset.extend(OptionalPart::Sequence, sets, chains);
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
        let (source, name) = (family.data_type(), |sets| names::set_of(sets, family));
        let gateways = guard.blocked_gateways.iter();
        let gateways = gateways.filter(|address| AddressFamily::of(**address) == family);
        sets.push(Set {
            flags: PERMANENT,
            elements: gateways.map(|of| (of.to_string(), None)).collect(),
            ..Set::timed(name(GATEWAY), source)
        });
        let packet = format!("{source} . inet_proto . inet_service");
        sets.push(Set::dynamic(name(DONE), &packet, MAX_DONE));
        sets.push(Set::dynamic(name(PENALTY), source, MAX_PENALTIES));
    }
    sets.push(Set::dynamic(PENALTY_OVERFLOW, "nf_proto", FAMILIES));
    sets
}

fn penalty_chains(sequence: &SequenceGuard) -> Vec<Chain> {
    let seconds = sequence.penalty().as_secs();
    let to_penalty = format!("goto {PENALIZE_DROP}");
    // Header after header is a way to hide one; a flag besides SYN begins nothing.
    let mut check = vec![
        "ct state != new drop".to_owned(),
        format!("ip6 nexthdr != tcp ip6 nexthdr != udp {to_penalty}"),
        format!("tcp flags & (fin | syn | rst | ack) != syn {to_penalty}"),
    ];
    let (mut penalize, mut not_due) = (Vec::new(), Vec::new());
    for family in AddressFamily::BOTH {
        let (ip, set) = (family.text(), |sets| names::set_of(sets, family));
        // Of IPv6 the /64.
        let penalized = match family {
            AddressFamily::V4 => "ip saddr",
            AddressFamily::V6 => "ip6 saddr & ffff:ffff:ffff:ffff::",
        };
        let penalty = set(PENALTY);
        check.push(format!("{ip} saddr @{} counter drop", set(GATEWAY)));
        check.push(format!("{penalized} @{penalty} {to_penalty}"));
        not_due.push(format!("{} @{} drop", step::packet(family), set(DONE)));
        penalize.push(format!(
            "update @{penalty} {{ {penalized} timeout {seconds}s }} return"
        ));
    }
    check.push(format!("meta nfproto @{PENALTY_OVERFLOW} drop"));
    // Only what found no room comes here.
    penalize.push(format!(
        "update @{PENALTY_OVERFLOW} {{ meta nfproto timeout {seconds}s }}"
    ));
    not_due.push(to_penalty);
    let penalize_drop = [&format!("jump {PENALIZE}"), "counter drop"];
    vec![
        Chain::new(PENALIZE, penalize),
        Chain::new(PENALIZE_DROP, penalize_drop),
        Chain::new(NOT_DUE, not_due),
        Chain::new(CHECK, check),
    ]
}

fn base(guard: &Guard, sequence: &SequenceGuard) -> Chain {
    let mut rules = vec![FROM_LOOPBACK.to_owned()];
    rules.extend(ESTABLISHED.map(str::to_owned));
    rules.push("fib daddr type != local accept".into());
    rules.push("meta l4proto != tcp meta l4proto != udp accept".into());
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
    rules.extend(open.iter().map(|ports| format!("{} accept", to(*ports))));
    for (ports, at) in sequence.fixed().iter().zip(1..) {
        rules.push(format!("{} goto {}", to(*ports), names::step_chain(at)));
    }
    if sequence.steps == SequenceSteps::Rolling {
        let (first, last) = rolling::PORTS.into_inner();
        rules.push(format!("tcp dport {first}-{last} jump {ROLLING}"));
    }
    rules.push(format!("ct state new jump {PENALIZE}"));
    Chain::base(SEQUENCE, HookPoint::Prerouting, PRIORITY, rules)
}
