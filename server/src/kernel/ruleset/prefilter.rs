//! The prefilter: what is no knock of a known key ends in the kernel, before connection
//! tracking and before it wakes anybody.
//!
//! It decides nothing: what passes is judged by the engine as if there were no prefilter.
//! What begins with a current selector passes, and is not tracked either: a flood of it
//! fills no table. The running daemon keeps the set filled a minute ahead.

use super::super::OptionalPart;
use super::super::names::{AddressFamily, PREFILTER, PREFILTER_VERDICT, SELECTORS};
use super::{AddressType, Chain, Compare, DataType, Field, HookPoint, Rule, Ruleset};
use super::{Set, Statement};
use oneknock_shared::port::Transport;
use std::net::SocketAddr;

/// Before connection tracking (-200), with what else is "raw".
const PRIORITY: i32 = -300;
/// UDP's header before a packet.
const UDP_HEADER: u16 = 8;
/// Lengths of a packet: from no padding to the longest.
const PACKET: (u16, u16) = (112, 512);

/// Adds it to the guard's ruleset, for where the daemon listens.
pub(super) fn add(ruleset: &mut Ruleset, listen: &[SocketAddr]) {
    let mut set = Set::timed(SELECTORS, &[DataType::Selector]);
    set.part = Some(OptionalPart::Prefilter);
    ruleset.sets.push(set);
    let verdict = Chain::new(PREFILTER_VERDICT, verdict().into());
    let to_verdict = listen.iter().map(|address| to(*address)).collect();
    let base = Chain::base(PREFILTER, HookPoint::Prerouting, PRIORITY, to_verdict);
    ruleset.chains.extend([verdict, base].map(|chain| Chain {
        part: Some(OptionalPart::Prefilter),
        ..chain
    }));
}

/// Where to. Another program may have the port at another address. Broadcast and multicast
/// reach the socket too; what is on its way elsewhere is not this machine's.
fn to(address: SocketAddr) -> Rule {
    let (ip, family) = (address.ip(), AddressFamily::of(address.ip()));
    let here = if ip.is_unspecified() {
        Statement::is(Field::NetworkFamily, family)
    } else {
        Statement::is(Field::Destination(family), ip)
    };
    vec![
        here,
        Statement::is(Field::Port(Transport::Udp), address.port()),
        Statement::is_not(Field::DestinationType, AddressType::Unicast),
        Statement::Jump(PREFILTER_VERDICT.into()),
    ]
}

/// What becomes of a datagram.
fn verdict() -> [Rule; 3] {
    let is_current = Statement::In(vec![Field::Selector], SELECTORS.into());
    // The daemon can tell a clock that is hours wrong from these few packets, and nobody is
    // shut out where the set is not what it should be.
    let few = Statement::Limit {
        per_second: 10,
        burst: 20,
    };
    [
        vec![
            is_current,
            of_length(),
            Statement::Notrack,
            Statement::Accept,
        ],
        vec![of_length(), few, Statement::Notrack, Statement::Accept],
        vec![Statement::Counter, Statement::Drop],
    ]
}

/// What becomes of a datagram where the set of selectors cannot be filled: every one of a
/// packet's length passes, and the engine does the work.
#[must_use]
pub fn open_verdict() -> [Rule; 2] {
    [
        vec![of_length(), Statement::Notrack, Statement::Accept],
        vec![Statement::Counter, Statement::Drop],
    ]
}

fn of_length() -> Statement {
    let (least, most) = PACKET;
    let between = Compare::Between(UDP_HEADER + least, UDP_HEADER + most);
    Statement::If(Field::UdpLength, between)
}
