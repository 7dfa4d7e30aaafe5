//! The sieve: what is no knock of a known key is refused in the kernel, before connection
//! tracking and before it wakes anybody.
//!
//! It decides nothing: what passes is judged by the gate as if there were no sieve. Its
//! failure is a higher price for a flood, and nothing else.

use super::elements::{self, AT_ONCE, retried};
use super::names::{KNOCK, SELECTORS, SIEVE, TABLE};
use super::netlink::{Netlink, Step, attributes};
use netlink_packet_netfilter::nftables::{
    DataAttribute, NfTablesMessage, RuleAttribute, RuleMessage, SetElementAttribute,
};
use oneknock_shared::selector::Selector;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What does not depend on where the daemon listens.
const RULES: &str = include_str!("sieve.nft");
/// How many rules the chain [`KNOCK`] has.
const KNOCK_RULES: usize = 4;

/// The commands that make it stand, whatever stood there before; selectors that are in the
/// set stay.
#[must_use]
pub fn script(listen: &[SocketAddr]) -> String {
    let mut script = RULES.to_owned();
    for address in listen {
        let port = address.port();
        // Another program may have the port at another address. Broadcast and multicast
        // reach the socket too; what is on its way elsewhere is not ours.
        let to = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => "meta nfproto ipv4".to_owned(),
            IpAddr::V6(ip) if ip.is_unspecified() => "meta nfproto ipv6".to_owned(),
            IpAddr::V4(ip) => format!("ip daddr {ip}"),
            IpAddr::V6(ip) => format!("ip6 daddr {ip}"),
        };
        let rule = format!("{to} udp dport {port} fib daddr type != unicast jump {KNOCK}");
        // A String takes whatever is written to it.
        let _ = writeln!(script, "add rule inet {TABLE} {SIEVE} {rule}");
    }
    script
}

/// How many rules each of its chains has.
pub fn counts(listen: &[SocketAddr]) -> BTreeMap<String, usize> {
    [(KNOCK, KNOCK_RULES), (SIEVE, listen.len())]
        .map(|(chain, rules)| (chain.to_owned(), rules))
        .into()
}

/// Lets packets with these selectors through, each for so long from now, also where it is
/// in the set already. A part of them may be done where it fails. No selector twice.
pub fn fill(netlink: &mut Netlink, selectors: &[(Selector, Duration)]) -> io::Result<()> {
    for part in selectors.chunks(AT_ONCE) {
        let timed = || {
            part.iter()
                .map(|(selector, time)| element(*selector, Some(*time)))
        };
        let bare = || part.iter().map(|(selector, _)| element(*selector, None));
        let add = || NfTablesMessage::NewSetElement(elements::many(SELECTORS, timed().collect()));
        let delete = NfTablesMessage::DeleteSetElement(elements::many(SELECTORS, bare().collect()));
        // As with grants: adding alone refreshes nothing on many kernels.
        let steps = [
            Step::create(add()),
            Step::change(delete),
            Step::create(add()),
        ];
        retried(|| netlink.commit(&steps))?;
    }
    Ok(())
}

/// How many datagrams were refused since the rules were made: of another length, and of
/// no selector in force.
pub fn refused(netlink: &mut Netlink) -> io::Result<u64> {
    let attributes_of = vec![
        RuleAttribute::Table(TABLE.into()),
        RuleAttribute::Chain(KNOCK.into()),
    ];
    let rules = NfTablesMessage::GetRule(RuleMessage {
        attributes: attributes_of,
    });
    let rules = netlink.ask(rules, true)?;
    // The kernel's numbers: expressions 4; in each, name 1 and data 2; in a counter's,
    // packets 2.
    let part = |of: &[u8], wanted: u16| {
        let found = attributes(of).into_iter().find(|(kind, _)| *kind == wanted);
        found.map(|(_, value)| value)
    };
    let of_rule = rules.iter().flatten().filter(|(kind, _)| *kind == 4);
    let expressions = of_rule.flat_map(|(_, all)| attributes(all));
    let counted = expressions.filter_map(|(_, one)| {
        let data = part(&one, 2).filter(|_| part(&one, 1).as_deref() == Some(b"counter\0"))?;
        Some(u64::from_be_bytes(part(&data, 2)?.try_into().ok()?))
    });
    Ok(counted.sum())
}

fn element(selector: Selector, time: Option<Duration>) -> Vec<SetElementAttribute> {
    let mut attributes = vec![SetElementAttribute::Key(DataAttribute::Value(
        selector.0.to_vec(),
    ))];
    attributes.extend(time.map(elements::timeout));
    attributes
}
