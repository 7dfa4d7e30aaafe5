//! What may be the matter, of all that was seen.

use super::{Outcome, Seen, Way};
use crate::knock::address::is_global;
use crate::knock::attempt::OpenError;
use oneknock_shared::invitation::AddressRule;

/// What may be the matter, the most likely first; nothing where nothing is.
pub(super) fn causes(port: u16, rule: AddressRule, seen: &Seen) -> Vec<String> {
    let offline = "this machine is not online, or has no way to the server";
    let ways = match &seen.ways {
        Ok(ways) => ways,
        Err(_) if !seen.is_online => return vec![offline.into()],
        Err(_) => {
            return vec![
                "the server's name has no address: it is wrong, its owner's dynamic DNS no longer knows it, or the name service of this network does not answer".into(),
            ];
        }
    };
    if ways.iter().any(|way| way.was_open) {
        return vec!["the guard is not up at the server, this machine is admitted already, or never needs to knock: for the first, \"oneknockctl doctor\" there".into()];
    }
    // An address of a family that this machine does not have is no trouble.
    let ways: Vec<&Way> = ways.iter().filter(|way| way.from.is_ok()).collect();
    if ways.is_empty() {
        return vec![offline.into()];
    }
    let shut = ways.iter().filter_map(|way| match &way.outcome {
        Outcome::OpenError(shut) => Some(shut),
        _ => None,
    });
    let shut: Vec<&OpenError> = shut.collect();
    if shut.is_empty() {
        return Vec::new();
    }
    let mut causes = Vec::new();
    let says = |what: &str| {
        shut.iter()
            .any(|s| s.troubles.iter().any(|t| t.contains(what)))
    };
    if says("not permitted") {
        causes.push(format!(
            "a firewall on this machine keeps packets to udp/{port} back"
        ));
    }
    if shut.len() < ways.len() {
        causes.push("the port opens, but not at every address: the others are not the server's, or its router passes the ports on over one family alone; ssh goes by the one that answers".into());
        return causes;
    }
    let mut own = ways.iter().flat_map(|way| &way.from);
    if rule == AddressRule::Signed && !own.any(|own| is_global(*own)) {
        causes.push("the server demands the address in the packet, and behind NAT this machine does not know its own: signed_address = false for its key at the server, and a new invitation".into());
    }
    if seen.clock == Some(false) {
        causes.push("this machine's clock is wrong: timedatectl set-ntp true".into());
    }
    if shut.iter().any(|shut| shut.knock_rejected) {
        causes.push(format!("a firewall rejects udp/{port}: this network's own, or the server's: try from another network, and \"oneknockctl doctor\" there"));
    }
    if shut.iter().any(|shut| shut.knock_refused) {
        causes.push(format!("nothing takes knocks at udp/{port}: oneknockd does not run, or the router passes the port on to another machine"));
    }
    if shut.iter().all(|shut| shut.refused) {
        causes.push("the knock was taken, and the service behind the port does not run".into());
        return causes;
    }
    causes.push(format!("the packet does not arrive: the server is off, its router does not pass on udp/{port}, or another firewall stops it: \"oneknockctl doctor\" there"));
    if let Some(command) = &seen.by_sequence {
        causes.push(format!(
            "this network swallows UDP: \"{command}\" goes without"
        ));
    }
    if seen.clock.is_none() {
        causes.push("this machine's clock is off: hold \"date --utc\" against one that is right; \"oneknockctl why\" at the server says by how much".into());
    }
    causes.push("it arrives and is refused: \"oneknockctl why\" there says why".into());
    causes.push("the key is not the server's any more: bring its newest invitation over (\"oneknockctl key invite\" there), and: oneknock import --replace".into());
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way_from(own: &str, outcome: Outcome) -> Way {
        Way {
            to: [192, 0, 2, 10].into(),
            from: own.parse().map_err(|_| own.into()),
            was_open: false,
            outcome,
        }
    }

    fn seen(own: &str, clock: Option<bool>, shut: OpenError) -> Seen {
        Seen {
            ways: Ok(vec![way_from(own, Outcome::OpenError(shut))]),
            is_online: true,
            by_sequence: None,
            clock,
        }
    }

    fn silent() -> OpenError {
        OpenError {
            refused: false,
            knock_refused: false,
            knock_rejected: false,
            troubles: vec!["192.0.2.10 is silent".into()],
        }
    }

    fn first(rule: AddressRule, seen: &Seen) -> String {
        causes(45123, rule, seen).remove(0)
    }

    #[test]
    fn what_is_known_to_be_wrong_here_comes_before_what_may_be_wrong_there() {
        let any = AddressRule::Any;
        let online = "198.51.100.7";
        let offline = seen("Network is unreachable", Some(true), silent());
        assert!(first(any, &offline).contains("not online"));
        let clock = seen(online, Some(false), silent());
        assert!(first(any, &clock).contains("clock"));
        let behind_nat = seen("192.168.1.5", Some(true), silent());
        assert!(first(AddressRule::Signed, &behind_nat).contains("NAT"));
        assert!(first(any, &behind_nat).contains("does not arrive"));
        let mut fallback = seen(online, Some(true), silent());
        fallback.by_sequence = Some("walk".into());
        assert!(causes(45123, any, &fallback)[1].contains("\"walk\" goes without"));
        // Where nobody can say how the clock is it may be that; known to be right it is not.
        let says_clock = |clock| {
            let found = causes(45123, any, &seen(online, clock, silent()));
            found.iter().any(|cause| cause.contains("clock is off"))
        };
        assert!(says_clock(None) && !says_clock(Some(true)));
        let dead = OpenError {
            knock_refused: true,
            ..silent()
        };
        assert!(first(any, &seen(online, None, dead)).contains("oneknockd does not run"));
        let rejected = OpenError {
            knock_rejected: true,
            ..silent()
        };
        assert!(first(any, &seen(online, None, rejected)).contains("a firewall rejects"));
        let down = OpenError {
            refused: true,
            ..silent()
        };
        assert!(first(any, &seen(online, None, down)).contains("service behind the port"));
    }

    #[test]
    fn a_name_without_an_address_is_a_cause_and_without_a_network_that_is() {
        let mut nameless = seen("198.51.100.7", Some(true), silent());
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
        let mut well = seen(own, Some(false), silent());
        well.ways = Ok(vec![way_from(own, Outcome::Open)]);
        assert!(causes(45123, AddressRule::Any, &well).is_empty());
        let no_ipv6 = way_from("Network is unreachable", Outcome::OpenError(silent()));
        well.ways = Ok(vec![way_from(own, Outcome::Open), no_ipv6]);
        assert!(causes(45123, AddressRule::Any, &well).is_empty());
        let ways = [Outcome::Open, Outcome::OpenError(silent())];
        well.ways = Ok(ways.map(|outcome| way_from(own, outcome)).into());
        assert!(first(AddressRule::Any, &well).contains("not at every address"));
        let mut open = way_from(own, Outcome::Open);
        open.was_open = true;
        well.ways = Ok(vec![open]);
        assert!(first(AddressRule::Any, &well).contains("guard is not up"));
    }
}
