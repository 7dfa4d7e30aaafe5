//! What may be the matter, of all that was seen.

use super::{Findings, Way};
use crate::knock::address::is_global;
use crate::knock::engine::{EndpointOutcome, Outcome, Refusal};
use oneknock_shared::invitation::AddressRule;
use std::net::IpAddr;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cause {
    /// A word for it that stays as it is.
    pub code: &'static str,
    /// What it is, and what to do about it.
    pub text: String,
}

impl Cause {
    fn new(code: &'static str, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { code, text }
    }
}

/// What may be the matter, the most likely first; nothing where nothing is.
pub(super) fn causes(port: u16, rule: AddressRule, seen: &Findings) -> Vec<Cause> {
    let offline = || {
        let text = "this computer is not online, or has no way to the server";
        vec![Cause::new("D-OFFLINE", text)]
    };
    let ways = match &seen.ways {
        Ok(ways) => ways,
        Err(_) if !seen.is_online => return offline(),
        Err(_) => {
            return vec![Cause::new(
                "D-NO-ADDRESS",
                "the server's name has no address: it is wrong, its owner's dynamic DNS no longer knows it, or the name service of this network does not answer",
            )];
        }
    };
    if ways.iter().any(Way::was_open) {
        return vec![Cause::new(
            "D-OPEN-BEFORE",
            "the server does not enforce, or this computer is admitted already or never needs to knock: for the first, run \"oneknockctl doctor\" there",
        )];
    }
    // An address of a family that this computer does not have is no trouble.
    let ways: Vec<&Way> = ways.iter().filter(|way| way.from.is_ok()).collect();
    if ways.is_empty() {
        return offline();
    }
    let failed: Vec<&Way> = ways.iter().copied().filter(|way| way.failed()).collect();
    if failed.is_empty() {
        return Vec::new();
    }
    let any = |wanted: &EndpointOutcome| failed.iter().any(|way| way.known == *wanted);
    let refused = |refusal| any(&EndpointOutcome::KnockRefused(refusal));
    let mut causes = Vec::new();
    if refused(Refusal::NotPermitted) {
        causes.push(Cause::new(
            "D-OWN-FIREWALL",
            format!("a firewall on this computer drops packets to udp/{port}"),
        ));
    }
    if failed.len() < ways.len() {
        causes.push(Cause::new("D-ONE-ADDRESS", "the port opens, but not at every address: the others are not the server's, or its router forwards the ports over one family alone; ssh uses the one that answers"));
        return causes;
    }
    let mut own = ways.iter().flat_map(|way| &way.from);
    if rule == AddressRule::Signed && !own.any(|own| is_global(*own)) {
        causes.push(Cause::new("D-ADDRESS-RULE", "the server demands this computer's address in the packet, and behind NAT it does not know its own: set require_signed_address = false for its key on the server, and bring over a new invitation"));
    }
    if seen.clock == Some(false) {
        causes.push(Cause::new(
            "D-CLOCK",
            "this computer's clock is wrong: timedatectl set-ntp true",
        ));
    }
    if refused(Refusal::Prohibited) {
        causes.push(Cause::new("D-REJECTED", format!("a firewall rejects udp/{port}: this network's own, or the server's: try from another network, and run \"oneknockctl doctor\" there")));
    }
    if refused(Refusal::PortUnreachable) {
        causes.push(Cause::new("D-NOT-RUNNING", format!("nothing listens on udp/{port}: oneknockd is not running, or the router forwards the port to another machine")));
    }
    if failed.iter().all(|way| way.outcome == Outcome::PortRefused) {
        causes.push(Cause::new(
            "D-SERVICE-DOWN",
            "the knock was accepted, and the service behind the port does not run",
        ));
        return causes;
    }
    if failed
        .iter()
        .any(|way| answers_instead(&way.before) || answers_instead(&way.known))
    {
        causes.push(Cause::new("D-PROXY", "something on the way answers in the server's place (a transparent proxy, a captive portal, a relay): log in to this network, or try another one"));
    }
    causes.push(Cause::new("D-NO-PACKET", format!("the packet does not arrive: the server is off, its router does not forward udp/{port}, or another firewall stops it: run \"oneknockctl doctor\" there")));
    if let Some(command) = &seen.by_sequence {
        causes.push(Cause::new(
            "D-NO-UDP",
            format!("this network drops UDP: \"{command}\" works without"),
        ));
    }
    if ways
        .iter()
        .flat_map(|way| &way.from)
        .any(may_be_carrier_nat)
    {
        causes.push(Cause::new("D-CARRIER-NAT", "a carrier's NAT sends UDP and TCP from different addresses, so that the server admits the wrong one: use another network, or a port sequence of TCP steps"));
    }
    if seen.clock.is_none() {
        causes.push(Cause::new("D-CLOCK", "this computer's clock is wrong: compare \"date -u\" with a correct clock; \"oneknockctl log --denied\" on the server says by how much"));
    }
    causes.push(Cause::new(
        "D-KNOCK-REJECTED",
        "the knock arrives but is rejected: run \"oneknockctl log --denied\" on the server",
    ));
    causes.push(Cause::new("D-OLD-KEY", "the key is not the server's any more: bring over its newest invitation (\"oneknockctl key invite\" there), and run: oneknock import --replace"));
    causes
}

fn answers_instead(outcome: &EndpointOutcome) -> bool {
    matches!(outcome, EndpointOutcome::Mute | EndpointOutcome::Closed)
}

/// Behind a NAT whose pool has more than one address, as carriers have.
fn may_be_carrier_nat(own: &IpAddr) -> bool {
    own.is_ipv4() && !is_global(*own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way_from(own: &str, outcome: Outcome, known: EndpointOutcome) -> Way {
        Way {
            to: [192, 0, 2, 10].into(),
            from: own.parse().map_err(|_| own.into()),
            before: EndpointOutcome::Silent,
            outcome,
            known,
        }
    }

    fn open() -> Outcome {
        Outcome::Open {
            endpoint: 0,
            connection: 0,
            by: None,
            round_trip: None,
        }
    }

    fn seen(own: &str, clock: Option<bool>, known: EndpointOutcome) -> Findings {
        let outcome = match known {
            EndpointOutcome::PortRefused => Outcome::PortRefused,
            _ => Outcome::NoAnswer,
        };
        Findings {
            ways: Ok(vec![way_from(own, outcome, known)]),
            is_online: true,
            by_sequence: None,
            clock,
            last_error: None,
        }
    }

    const SILENT: EndpointOutcome = EndpointOutcome::Silent;

    fn first(rule: AddressRule, seen: &Findings) -> String {
        causes(45123, rule, seen).remove(0).text
    }

    #[test]
    fn what_is_known_to_be_wrong_here_comes_before_what_may_be_wrong_there() {
        let any = AddressRule::Any;
        let online = "198.51.100.7";
        let offline = seen("Network is unreachable", Some(true), SILENT);
        assert!(first(any, &offline).contains("not online"));
        let clock = seen(online, Some(false), SILENT);
        assert!(first(any, &clock).contains("clock"));
        let behind_nat = seen("192.168.1.5", Some(true), SILENT);
        assert!(first(AddressRule::Signed, &behind_nat).contains("NAT"));
        assert!(first(any, &behind_nat).contains("does not arrive"));
        let carrier = causes(45123, any, &behind_nat);
        assert!(
            carrier
                .iter()
                .any(|cause| cause.text.contains("carrier's NAT"))
        );
        let mut fallback = seen(online, Some(true), SILENT);
        fallback.by_sequence = Some("walk".into());
        assert!(
            causes(45123, any, &fallback)[1]
                .text
                .contains("\"walk\" works without")
        );
        // Where nobody can say how the clock is it may be that; known to be right it is not.
        let says_clock = |clock| {
            let found = causes(45123, any, &seen(online, clock, SILENT));
            found
                .iter()
                .any(|cause| cause.text.contains("clock is wrong"))
        };
        assert!(says_clock(None) && !says_clock(Some(true)));
        let refused = |refusal| {
            let known = EndpointOutcome::KnockRefused(refusal);
            first(any, &seen(online, None, known))
        };
        assert!(refused(Refusal::PortUnreachable).contains("oneknockd is not running"));
        assert!(refused(Refusal::Prohibited).contains("a firewall rejects"));
        assert!(refused(Refusal::NotPermitted).contains("on this computer drops"));
        let down = seen(online, None, EndpointOutcome::PortRefused);
        assert!(first(any, &down).contains("service behind the port"));
        let proxy = seen(online, Some(true), EndpointOutcome::Mute);
        assert!(first(any, &proxy).contains("in the server's place"));
    }

    #[test]
    fn a_name_without_an_address_is_a_cause_and_without_a_network_that_is() {
        let mut nameless = seen("198.51.100.7", Some(true), SILENT);
        nameless.ways = Err("Name or service not known".into());
        let cause = first(AddressRule::Any, &nameless);
        assert!(cause.contains("name has no address"), "{cause}");
        nameless.is_online = false;
        let cause = first(AddressRule::Any, &nameless);
        assert!(cause.contains("not online"), "{cause}");
    }

    #[test]
    fn where_it_opens_nothing_is_the_matter_and_where_one_address_stays_shut_that_is() {
        let own = "198.51.100.7";
        let shown = EndpointOutcome::Shown;
        let mut well = seen(own, Some(false), SILENT);
        well.ways = Ok(vec![way_from(own, open(), shown.clone())]);
        assert!(causes(45123, AddressRule::Any, &well).is_empty());
        let no_ipv6 = way_from("Network is unreachable", Outcome::NotSent, SILENT);
        well.ways = Ok(vec![way_from(own, open(), shown.clone()), no_ipv6]);
        assert!(causes(45123, AddressRule::Any, &well).is_empty());
        let silent = way_from(own, Outcome::NoAnswer, SILENT);
        well.ways = Ok(vec![way_from(own, open(), shown.clone()), silent]);
        assert!(first(AddressRule::Any, &well).contains("not at every address"));
        let mut before = way_from(own, open(), shown.clone());
        before.before = shown;
        well.ways = Ok(vec![before]);
        assert!(first(AddressRule::Any, &well).contains("does not enforce"));
    }
}
