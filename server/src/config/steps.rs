//! What makes the steps of a sequence worth having: that no scan comes by them in order, and
//! that nothing else has their ports.

use super::service::Service;
use oneknock_shared::port::{Ports, Transport};
use oneknock_shared::rolling;
use oneknock_shared::secret::{NoRandomness, random};

/// How many steps there may be.
const STEPS: std::ops::RangeInclusive<usize> = 4..=8;
/// How many are proposed: a random scan of these alone has them right once in 720 times.
const PROPOSED: usize = 6;
/// The ports that are proposed: below those that Linux hands out to outgoing connections.
const PROPOSED_PORTS: std::ops::Range<u16> = 1024..32_768;

/// Ports that something else is for.
pub struct Taken<'c> {
    /// Those of services.
    pub services: &'c [Service],
    /// Those to knock on.
    pub knock: &'c [u16],
    /// Those that anybody may use.
    pub public: &'c [Ports],
}

impl Taken<'_> {
    /// What stands in the way of rolling steps.
    pub fn in_the_way(&self) -> Option<String> {
        let guarded = self.services.iter().flat_map(|service| &service.ports);
        let mut taken = guarded.chain(self.public);
        let (first, last) = rolling::PORTS.into_inner();
        let is_there =
            |p: &&Ports| p.transport() == Transport::Tcp && p.first() <= last && first <= p.last();
        let found = taken.find(is_there)?;
        Some(format!(
            "takes tcp/{first}-{last} for itself: {found} is guarded or ignored"
        ))
    }

    fn by(&self, step: Ports) -> Option<String> {
        let has = |ports: &[Ports]| ports.iter().any(|p| p.overlaps(&step));
        if let Some(service) = self.services.iter().find(|s| has(&s.ports)) {
            return Some(format!("is guarded by service {}", service.name));
        }
        if step.transport() == Transport::Udp && self.knock.contains(&step.first()) {
            return Some("is the port to knock on".into());
        }
        has(self.public).then(|| "is one of ignored_ports".into())
    }
}

/// What is wrong with the steps: what a scan would have right, or what cannot work.
pub fn faults(steps: &[Ports], taken: &Taken<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    if !STEPS.contains(&steps.len()) {
        let (least, most) = (STEPS.start(), STEPS.end());
        faults.push(format!("must be {least} to {most} steps"));
    }
    for (at, step) in steps.iter().enumerate() {
        let number = step.first();
        if step.last() != number {
            faults.push(format!("{step} is a range: a step is one port"));
        }
        if [1, u16::MAX].contains(&number) {
            faults.push(format!("{step}: scans begin or end with it"));
        }
        if let Some(why) = taken.by(*step) {
            faults.push(format!("{step} {why}"));
        }
        let near = |other: &&Ports| other.first().abs_diff(number) <= 1;
        if let Some(other) = steps[..at].iter().find(near) {
            faults.push(format!(
                "{other} and {step} are the same or next to each other"
            ));
        }
    }
    let numbers: Vec<u16> = steps.iter().map(Ports::first).collect();
    if is_one_way(&numbers) || is_protocol_by_protocol(steps) {
        faults.push(
            "must not rise or fall all the way, nor one protocol after the other, as scans do"
                .into(),
        );
    }
    faults
}

fn is_one_way(numbers: &[u16]) -> bool {
    numbers.is_sorted() || numbers.iter().rev().is_sorted()
}

/// Whether a scan of the one protocol's ports and then of the other's, each of them upwards
/// or downwards, comes by these in order.
fn is_protocol_by_protocol(steps: &[Ports]) -> bool {
    let parts = steps.chunk_by(|a, b| a.transport() == b.transport());
    let parts: Vec<Vec<u16>> = parts
        .map(|part| part.iter().map(Ports::first).collect())
        .collect();
    parts.len() <= 2 && parts.iter().all(|part| is_one_way(part))
}

/// How many ports are drawn for a proposal: where hardly one is left there is none.
const DRAWS: usize = 10_000;

/// A good random sequence beside these ports, where there are others for one; `listens` tells
/// ports that something uses.
pub fn propose(
    knock: &[u16],
    taken: &[Ports],
    listens: impl Fn(Ports) -> bool,
) -> Result<Option<Vec<Ports>>, NoRandomness> {
    let taken = Taken {
        services: &[],
        knock,
        public: taken,
    };
    let count = u64::try_from(PROPOSED_PORTS.len()).unwrap_or(1);
    let mut steps: Vec<Ports> = Vec::new();
    for _ in 0..DRAWS {
        let drawn = u64::from_be_bytes(random()?) % count;
        let port = PROPOSED_PORTS.start + u16::try_from(drawn).unwrap_or(0);
        let free = Ports::single(Transport::Tcp, port);
        steps.extend(free.filter(|step| taken.by(*step).is_none() && !listens(*step)));
        if steps.len() == PROPOSED {
            if faults(&steps, &taken).is_empty() {
                return Ok(Some(steps));
            }
            steps.clear();
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(texts: &[&str]) -> Vec<Ports> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn found(steps: &[&str]) -> Vec<String> {
        let services = [Service::new("ssh".parse().unwrap(), ports(&["tcp/22"]))];
        let public = ports(&["tcp/443", "udp/9000-9999"]);
        let taken = Taken {
            services: &services,
            knock: &[45123],
            public: &public,
        };
        faults(&ports(steps), &taken)
    }

    #[test]
    fn a_mixed_sequence_of_four_to_eight_is_good() {
        for good in [
            &["tcp/7000", "udp/8000", "tcp/300", "tcp/45123"][..],
            &["tcp/7000", "udp/8000", "udp/300", "tcp/9000"],
            &["tcp/7000", "udp/8000", "udp/300", "udp/8999"],
            &[
                "tcp/9", "tcp/5", "tcp/90", "udp/50", "tcp/900", "udp/500", "tcp/2", "tcp/99",
            ],
        ] {
            assert_eq!(found(good), [""; 0]);
        }
    }

    #[test]
    fn what_a_scan_has_right_or_what_is_taken_is_no_sequence() {
        for (bad, why) in [
            (&["tcp/9", "tcp/5", "tcp/90"][..], "4 to 8"),
            (
                &[
                    "tcp/9", "tcp/5", "tcp/91", "tcp/20", "tcp/30", "tcp/40", "tcp/50", "tcp/60",
                    "tcp/70",
                ],
                "4 to 8",
            ),
            (&["tcp/10", "tcp/20", "udp/30", "tcp/40"], "rise or fall"),
            (&["tcp/40", "tcp/30", "udp/20", "tcp/10"], "rise or fall"),
            (&["tcp/30", "tcp/40", "udp/10", "udp/20"], "rise or fall"),
            (&["udp/40", "udp/30", "tcp/10", "tcp/20"], "rise or fall"),
            (&["tcp/20", "udp/40", "udp/30", "udp/10"], "rise or fall"),
            (
                &["tcp/40", "tcp/30", "udp/40", "tcp/10"],
                "tcp/40 and udp/40 are the same",
            ),
            (
                &["tcp/40", "tcp/30", "tcp/41", "tcp/10"],
                "tcp/40 and tcp/41 are the same",
            ),
            (&["tcp/1", "tcp/30", "tcp/20", "tcp/10"], "scans begin"),
            (&["tcp/5", "udp/65535", "tcp/20", "tcp/10"], "scans begin"),
            (
                &["tcp/22", "tcp/30", "tcp/20", "tcp/10"],
                "tcp/22 is guarded by service ssh",
            ),
            (
                &["udp/45123", "tcp/30", "tcp/20", "tcp/10"],
                "is the port to knock on",
            ),
            (
                &["tcp/443", "tcp/30", "tcp/20", "tcp/10"],
                "is one of ignored_ports",
            ),
            (
                &["udp/9500", "tcp/30", "tcp/20", "tcp/10"],
                "is one of ignored_ports",
            ),
            (&["tcp/50-60", "tcp/30", "tcp/20", "tcp/10"], "is a range"),
        ] {
            let found = found(bad).join("\n");
            assert!(found.contains(why), "{bad:?}: {found}");
        }
    }

    #[test]
    fn a_proposal_is_without_a_fault_and_uses_no_port_that_is_listened_on() {
        for _ in 0..50 {
            let even = |step: Ports| step.first().is_multiple_of(2);
            let steps = propose(&[45123], &ports(&["tcp/2000-30000"]), even)
                .unwrap()
                .unwrap();
            let texts: Vec<String> = steps.iter().map(ToString::to_string).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            assert_eq!(found(&texts), [""; 0]);
            assert!(!steps.iter().copied().any(even));
            assert!(
                !steps
                    .iter()
                    .any(|step| (2000..=30_000).contains(&step.first()))
            );
        }
        let nothing = propose(&[45123], &ports(&["tcp/1-65535"]), |_| false);
        assert_eq!(nothing.unwrap(), None);
    }
}
