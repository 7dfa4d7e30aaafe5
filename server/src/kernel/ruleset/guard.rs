//! The guard itself: its two base chains, a chain for each service, and their sets.

use super::super::address::AddressFamily;
use super::super::guard::{Guard, GuardedService};
use super::super::names::{self, BLOCKED, GRACE, GUARD, INPUT, TABLE, TRIAL};
use super::parts::{ESTABLISHED, FROM_LOOPBACK, PRIORITY, to};
use super::{Chain, HookPoint, Ruleset, Set, prefilter, sequence};

/// A router goes on forwarding other hosts' ssh. Only unicast: broadcast, multicast and
/// anycast reach a socket here and are judged like local. What this takes for forwarded
/// although it is delivered here (a local route in another table) meets the other chain.
const ELSEWHERE: &str = "fib daddr type unicast accept";

/// The ruleset of this guard.
#[must_use]
pub fn ruleset(guard: &Guard) -> Ruleset {
    let mut sets = vec![Set::timed(GRACE, "inet_proto")];
    if !guard.enforcing {
        let mut trial = Set::timed(TRIAL, "inet_proto");
        if let Some(time) = guard.trial {
            trial.elements = ["tcp", "udp"]
                .map(|protocol| (protocol.into(), Some(time)))
                .into();
        }
        sets.push(trial);
    }
    for family in AddressFamily::BOTH {
        let connection = "inet_proto . inet_service . inet_service";
        let key = format!("{} . {connection}", family.data_type());
        sets.push(Set::timed(names::set_of(BLOCKED, family), &key));
    }
    let mut chains = vec![Chain::new::<&str>(&names::mark(guard.server), [])];
    for service in &guard.services {
        for family in AddressFamily::BOTH {
            let name = names::allow_set(service.name, family);
            sets.push(Set::timed(name, family.data_type()));
        }
        chains.push(service_chain(guard, service));
    }
    if let Some(sequence) = &guard.sequence {
        sets.extend(sequence::grant_sets(sequence));
    }
    let (services, mut rules) = (base_rules(guard), vec![ELSEWHERE.to_owned()]);
    rules.extend_from_slice(&services);
    chains.push(Chain::base(GUARD, HookPoint::Prerouting, PRIORITY, rules));
    chains.push(Chain::base(INPUT, HookPoint::Input, PRIORITY, services));
    let mut ruleset = Ruleset {
        table: TABLE,
        sets,
        chains,
    };
    prefilter::add(&mut ruleset, guard);
    if let Some(sequence) = &guard.sequence {
        sequence::add(&mut ruleset, guard, sequence);
    }
    ruleset
}

/// What leads past the guard, in order, and then the services.
fn base_rules(guard: &Guard) -> Vec<String> {
    let mut rules = Vec::new();
    if !guard.enforcing {
        // The trial is over.
        rules.push(format!("meta l4proto != @{TRIAL} accept"));
    }
    rules.push(FROM_LOOPBACK.into());
    for (address, bits) in &guard.trusted {
        let ip = AddressFamily::of(*address).text();
        let bits = match bits {
            32 if address.is_ipv4() => String::new(),
            128 => String::new(),
            bits => format!("/{bits}"),
        };
        rules.push(format!("{ip} saddr {address}{bits} accept"));
    }
    // A connection that an administrator has ended is forwarded no longer.
    for family in AddressFamily::BOTH {
        let (ip, set) = (family.text(), names::set_of(BLOCKED, family));
        let key = format!("{ip} saddr . meta l4proto . th sport . th dport");
        rules.push(format!("{key} @{set} drop"));
    }
    // Sessions live on when their grant has ended; and for the guard's first minute those
    // that are older than it, but for what could begin or end a connection.
    rules.extend(ESTABLISHED.map(str::to_owned));
    let begins_nothing = "tcp flags & (syn | rst) == 0";
    rules.push(format!("{begins_nothing} meta l4proto @{GRACE} accept"));
    for service in &guard.services {
        let chain = names::service_chain(service.name);
        let ports = service.ports.iter();
        rules.extend(ports.map(|ports| format!("{} jump {chain}", to(*ports))));
    }
    rules
}

/// A service: what is allowed passes, the rest is dropped in silence.
fn service_chain(guard: &Guard, service: &GuardedService) -> Chain {
    let mut sets: Vec<fn(_, _) -> String> = vec![names::allow_set];
    let sequence = guard.sequence.as_ref();
    if sequence.is_some_and(|sequence| sequence.service == service.name) {
        sets.push(names::sequence_set);
    }
    let mut rules = Vec::new();
    for set in sets {
        for family in AddressFamily::BOTH {
            let (ip, set) = (family.text(), set(service.name, family));
            rules.push(format!("{ip} saddr @{set} accept"));
        }
    }
    rules.push("counter drop".into());
    Chain::new(&names::service_chain(service.name), rules)
}
