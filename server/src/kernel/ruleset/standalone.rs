//! The port sequence and the service that it opens, with no daemon: a ruleset of its own,
//! as text.

use super::super::guard::{Guard, SequenceSteps};
use super::super::names::{self, AddressFamily, GRACE, GUARD, INPUT, STANDALONE_TABLE};
use super::guard::{PRIORITY, elsewhere, from_loopback, live_connections, to, trusted};
use super::{Chain, DataType, ElementKey, Field, HookPoint, InitialElement, Rule, Ruleset, Set};
use super::{Statement, sequence};
use oneknock_shared::port::Transport;
use std::time::Duration;

/// How long connections that are older than the guard may show themselves.
const GRACE_TIME: Duration = Duration::from_secs(60);

/// The guard's port sequence and what it opens, as text for `nft -f`. `None` where there is
/// no sequence, or one that only a daemon can set.
#[must_use]
pub fn standalone_sequence_text(guard: &Guard) -> Option<String> {
    let sequence = guard.sequence.as_ref()?;
    if sequence.steps == SequenceSteps::Rolling {
        return None;
    }
    let mut guard = guard.clone();
    // Nothing listens there.
    guard.listen.clear();
    guard.services.retain(|s| s.name == sequence.service);
    let service = guard.services.first()?;
    let name = names::service_chain(service.name);
    let mut ruleset = Ruleset {
        table: STANDALONE_TABLE,
        sets: vec![Set {
            elements: vec![InitialElement {
                key: ElementKey::Protocol(Transport::Tcp),
                timeout: Some(GRACE_TIME),
            }],
            ..Set::timed(GRACE, &[DataType::Protocol])
        }],
        chains: Vec::new(),
    };
    ruleset.sets.extend(sequence::grant_sets(sequence));
    let admitted = AddressFamily::BOTH.map(|family| {
        let set = names::sequence_set(service.name, family);
        let is_in = Statement::In(vec![Field::Source(family)], set);
        vec![is_in, Statement::Accept]
    });
    let mut rules: Vec<Rule> = admitted.into();
    rules.push(vec![Statement::Counter, Statement::Drop]);
    ruleset.chains.push(Chain::new(name.clone(), rules));
    // What leads past the guard, in order, and then the service: as the daemon's has it.
    let base = || {
        let mut rules = vec![from_loopback()];
        rules.extend(trusted(&guard.trusted));
        rules.extend(live_connections());
        let jump = || Statement::Jump(name.clone());
        rules.extend(service.ports.iter().map(|ports| vec![to(*ports), jump()]));
        rules
    };
    let mut before_routing = vec![elsewhere()];
    before_routing.extend(base());
    // Before routing, and where packets are delivered: a redirect leads past the first.
    ruleset.chains.extend([
        Chain::base(GUARD, HookPoint::Prerouting, PRIORITY, before_routing),
        Chain::base(INPUT, HookPoint::Input, PRIORITY, base()),
    ]);
    sequence::add(&mut ruleset, &guard, sequence);
    let gateways = if guard.blocked_gateways.is_empty() {
        ""
    } else {
        "\
# A packet from one of the gateways of the machine that wrote this opens nothing: their
# addresses are the elements of gateway_v4 and gateway_v6, to be changed where they change.
"
    };
    let service = service.name;
    Some(format!(
        "\
# oneknock: a port sequence that opens {service}, with no daemon. For \"nft -f\"; loading it
# again begins from scratch. Anybody on the path can replay a sequence: a weak lock before
# sshd's. For a minute after it was loaded segments that begin no connection pass, so that
# older sessions live on. \"nft delete table inet {STANDALONE_TABLE}\" removes it.
{gateways}table inet {STANDALONE_TABLE}
delete table inet {STANDALONE_TABLE}
{ruleset}"
    ))
}
