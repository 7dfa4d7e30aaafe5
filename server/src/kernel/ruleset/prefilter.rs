//! The prefilter: what is no knock of a known key ends in the kernel, before connection
//! tracking and before it wakes anybody.
//!
//! It decides nothing: what passes is judged by the engine as if there were no prefilter.
//! What begins with a current selector passes, and is not tracked either: a flood of it
//! fills no table. The running daemon keeps the set filled a minute ahead.

use super::super::address::AddressFamily;
use super::super::guard::{Guard, OptionalPart};
use super::super::names::{PREFILTER, PREFILTER_VERDICT, SELECTORS};
use super::{Chain, HookPoint, Ruleset, Set};
use std::net::SocketAddr;

/// Before connection tracking (-200), with what else is "raw".
const PRIORITY: i32 = -300;
/// Lengths of a packet behind UDP's header of 8 bytes: 112, with no padding, to 512.
const OF_LENGTH: &str = "udp length 120-520";

/// Adds it to the guard's ruleset, for where the daemon listens.
pub fn add(ruleset: &mut Ruleset, guard: &Guard) {
    let set = Set::timed(SELECTORS, "@th,64,64");
    // The daemon can tell a clock that is hours wrong from the few that pass without a
    // current selector, and nobody is shut out where the set is not what it should be.
    let few = "limit rate 10/second burst 20 packets";
    let passing = if guard.prefilter_open {
        vec![OF_LENGTH.to_owned()]
    } else {
        vec![
            format!("@th,64,64 @{SELECTORS} {OF_LENGTH}"),
            format!("{OF_LENGTH} {few}"),
        ]
    };
    let passing = passing.iter();
    let mut verdict: Vec<_> = passing.map(|of| format!("{of} notrack accept")).collect();
    verdict.push("counter drop".into());
    let verdict = Chain::new(PREFILTER_VERDICT, verdict);
    let to_verdict = guard.listen.iter().map(|address| to(*address)).collect();
    let base = Chain::base(PREFILTER, HookPoint::Prerouting, PRIORITY, to_verdict);
    ruleset.extend(OptionalPart::Prefilter, vec![set], vec![verdict, base]);
}

/// Where to. Another program may have the port at another address. Broadcast and multicast
/// reach the socket too; what is on its way elsewhere is not this machine's.
fn to(address: SocketAddr) -> String {
    let (ip, family) = (address.ip(), AddressFamily::of(address.ip()).text());
    let here = match address {
        _ if !ip.is_unspecified() => format!("{family} daddr {ip}"),
        SocketAddr::V4(_) => "meta nfproto ipv4".into(),
        SocketAddr::V6(_) => "meta nfproto ipv6".into(),
    };
    let port = address.port();
    let is_near = "fib daddr type != unicast";
    format!("{here} udp dport {port} {is_near} jump {PREFILTER_VERDICT}")
}
