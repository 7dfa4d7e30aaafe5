//! The port sequence and the service that it opens, with no daemon: a ruleset of its own,
//! as text.

use super::super::address::AddressFamily;
use super::super::guard::{Guard, OptionalPart, SequenceSteps};
use super::super::names::{self, BLOCKED, STANDALONE_TABLE};
use super::ruleset;

/// The guard's port sequence and what it opens, as text for `nft -f`. `None` where there is
/// no sequence, or one that only a daemon can set.
#[must_use]
pub fn standalone_sequence_text(guard: &Guard) -> Option<String> {
    let sequence = guard.sequence.as_ref()?;
    if sequence.steps == SequenceSteps::Rolling {
        return None;
    }
    let mut guard = guard.clone();
    // Nothing listens there, and nothing can begin a trial or add an allow entry.
    guard.listen.clear();
    guard.enforcing = true;
    guard.services.retain(|s| s.name == sequence.service);
    let service = guard.services.first()?.name;
    let mut ruleset = ruleset(&guard);
    ruleset.table = STANDALONE_TABLE;
    ruleset.remove(OptionalPart::Prefilter);
    let mark = names::mark(guard.server);
    ruleset.chains.retain(|chain| chain.name != mark);
    for family in AddressFamily::BOTH {
        ruleset.remove_set(&names::set_of(BLOCKED, family));
        ruleset.remove_set(&names::allow_set(service, family));
    }
    ruleset.begin_grace();
    let gateways = if guard.blocked_gateways.is_empty() {
        ""
    } else {
        "\
# A packet from one of the gateways of the machine that wrote this opens nothing: their
# addresses are the elements of gateway_v4 and gateway_v6, to be changed where they change.
"
    };
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
