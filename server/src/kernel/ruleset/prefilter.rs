//! The prefilter: what is no knock of a known key ends in the kernel, before connection
//! tracking and before it wakes anybody.
//!
//! It decides nothing: what passes is judged by the engine as if there were no prefilter.
//! What begins with a current selector passes, and is not tracked either: a flood of it
//! fills no table. The running daemon keeps the set filled a minute ahead.

use super::super::address::AddressFamily;
use super::super::guard::OptionalPart;
use super::super::names::{PREFILTER, PREFILTER_VERDICT, SELECTORS};
use super::field::{Field, Value};
use super::statement::{Rule, Statement, accept, count, discard, is, is_between, is_in, is_not};
use super::statement::{jump, limit, no_track, of_family};
use super::{Chain, HookPoint, Ruleset, Set};
use oneknock_shared::port::Transport;
use std::net::SocketAddr;

/// Before connection tracking (-200), with what else is "raw".
const PRIORITY: i32 = -300;
/// UDP's header before a packet.
const UDP_HEADER: u16 = 8;
/// Lengths of a packet: from no padding to the longest.
const PACKET: (u16, u16) = (112, 512);

/// Adds it to the guard's ruleset, for where the daemon listens.
pub fn add(ruleset: &mut Ruleset, listen: &[SocketAddr]) {
    let set = Set::timed(SELECTORS, &[Field::SELECTOR]);
    let verdict = Chain::new(PREFILTER_VERDICT, verdict().into());
    let to_verdict = listen.iter().map(|address| to(*address)).collect();
    let base = Chain::base(PREFILTER, HookPoint::Prerouting, PRIORITY, to_verdict);
    ruleset.extend(OptionalPart::Prefilter, vec![set], vec![verdict, base]);
}

/// Where to. Another program may have the port at another address. Broadcast and multicast
/// reach the socket too; what is on its way elsewhere is not this machine's.
fn to(address: SocketAddr) -> Rule {
    let (ip, family) = (address.ip(), AddressFamily::of(address.ip()));
    let here = if ip.is_unspecified() {
        of_family(family)
    } else {
        is(Field::destination(family), ip)
    };
    vec![
        here,
        is(Field::port(Transport::Udp), address.port()),
        is_not(Field::DESTINATION_TYPE, Value::unicast()),
        jump(PREFILTER_VERDICT),
    ]
}

/// What becomes of a datagram. The daemon can tell a clock that is hours wrong from the few
/// that pass without a current selector, and nobody is shut out where the set is not what it
/// should be.
fn verdict() -> [Rule; 3] {
    let is_current = is_in(&[Field::SELECTOR], SELECTORS);
    let few = limit(10, 20);
    [
        vec![is_current, of_length(), no_track(), accept()],
        vec![of_length(), few, no_track(), accept()],
        vec![count(), discard()],
    ]
}

/// What becomes of a datagram where the set of selectors cannot be filled: every one of a
/// packet's length passes, and the engine does the work.
#[must_use]
pub fn open_verdict() -> [Rule; 2] {
    [
        vec![of_length(), no_track(), accept()],
        vec![count(), discard()],
    ]
}

fn of_length() -> Statement {
    let (least, most) = PACKET;
    is_between(Field::UDP_LENGTH, UDP_HEADER + least, UDP_HEADER + most)
}
