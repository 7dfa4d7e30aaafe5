//! The port sequence and the door that it opens, with no daemon: a ruleset that works by
//! itself, as text.

use super::gateways::barred;
use super::names::{FAMILIES, GRACE, GUARD, INPUT, PRIORITY, seq_name};
use super::sequence::{self, ADMITTED, dport};
use crate::config::{Config, Network, Service, Steps};
use std::net::IpAddr;

/// Its table, of family inet.
pub const ALONE: &str = "oneknock_sequence";
/// Before routing, and where packets are delivered: a redirect leads past the first.
const HOOKS: [(&str, &str); 2] = [
    (
        GUARD,
        "{ type filter hook prerouting priority -150; policy accept; }",
    ),
    (
        INPUT,
        "{ type filter hook input priority -150; policy accept; }",
    ),
];

/// The sequence of this configuration and what it opens, as text for `nft -f`, on a machine
/// with these gateways. `None` where there is no sequence, or one that only a daemon can say.
#[must_use]
pub fn alone(config: &Config, gateways: &[IpAddr]) -> Option<String> {
    let sequence = config.sequence.as_ref()?;
    if sequence.steps == Steps::Rolling {
        return None;
    }
    let service = config.service(sequence.service)?;
    let mut config = config.clone();
    // Nobody listens there.
    config.listen.clear();
    config.services.retain(|s| s.name == sequence.service);
    let mut parts = sequence::parts(&config);
    let mut door = Vec::new();
    for ([_, kind, address, _], is_ipv6) in FAMILIES.into_iter().zip([false, true]) {
        let set = seq_name(service.name, is_ipv6);
        parts.set(&set, kind, ADMITTED);
        door.push(format!("{address} @{set} accept"));
    }
    door.push("counter drop".into());
    parts.chain("door", door);
    parts.set(GRACE, "inet_proto", 16);
    let rules = guard(service, &config.always);
    for (name, base) in HOOKS {
        let mut rules = rules.clone();
        if name == GUARD {
            rules.insert(0, "fib daddr type unicast accept".into());
        }
        parts.base_chain(name, base, rules);
    }
    debug_assert_eq!(PRIORITY, -150);
    let gateways = barred(&config, gateways);
    let behind = if gateways.is_empty() {
        ""
    } else {
        "\
# Whoever comes from one of the gateways of the machine that wrote this opens nothing: their
# addresses are the elements of gateway_v4 and gateway_v6, to be changed where they change.
"
    };
    Some(format!(
        "\
# oneknock: a port sequence that opens {name}, with no daemon. For \"nft -f\"; loading it
# again begins anew. Whoever is on the path can replay a sequence: a weak lock before sshd's.
# For a minute after it was loaded segments that begin no connection pass, so that sessions
# older than it live on. \"nft delete table inet {ALONE}\" takes it down.
{behind}add table inet {ALONE}
delete table inet {ALONE}
add table inet {ALONE}
{}add element inet {ALONE} {GRACE} {{ tcp timeout 60s }}
",
        parts.commands(ALONE, &gateways),
        name = service.name,
    ))
}

/// What leads past the guard, in order, and then the door: as the daemon's guard has it.
fn guard(service: &Service, always: &[Network]) -> Vec<String> {
    let mut rules = vec!["iifname \"lo\" accept".to_owned()];
    for ([_, _, address, _], is_ipv6) in FAMILIES.into_iter().zip([false, true]) {
        let of = always.iter().filter(|n| n.first().is_ipv6() == is_ipv6);
        let of: Vec<String> = of.map(ToString::to_string).collect();
        if !of.is_empty() {
            rules.push(format!("{address} {{ {} }} accept", of.join(", ")));
        }
    }
    rules.extend(
        [
            "ct state established tcp flags & (syn | ack) != syn accept",
            "ct state established meta l4proto udp accept",
            "tcp flags & (syn | rst) == 0 meta l4proto @grace accept",
        ]
        .map(String::from),
    );
    let doors = service.ports.iter();
    rules.extend(doors.map(|port| format!("{} jump door", dport(*port))));
    rules
}
