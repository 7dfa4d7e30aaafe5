//! `[sequence]` of `oneknockd.toml`: the port sequence, and what makes one worth having.

use super::key::Policy;
use super::reader::Section;
use super::service::Service;
use oneknock_shared::name::ServiceName;
use oneknock_shared::port::{Ports, Transport};
use oneknock_shared::rolling;
use oneknock_shared::secret::{NoRandomness, random};
use std::time::Duration;

/// How long the next step may take where the configuration does not say.
const STEP: Duration = Duration::from_secs(10);
/// A client that is in doubt walks again within this time, and completes what it began.
const MIN_STEP: Duration = Duration::from_secs(5);
const MAX_STEP: Duration = Duration::from_secs(60);
/// How long a sequence opens where the configuration does not say, and at most.
const OPEN_FOR: Duration = Duration::from_secs(20);
const MAX_OPEN_FOR: Duration = Duration::from_secs(300);
/// How many steps there may be.
const STEPS: std::ops::RangeInclusive<usize> = 4..=8;
/// How many are proposed: a random scan of these alone has them right once in 720 times.
const PROPOSED: usize = 6;
/// The ports that are proposed: below those that Linux hands out to outgoing connections.
const PROPOSED_PORTS: std::ops::Range<u16> = 1024..32_768;

/// The only time for which rolling steps hold.
const PERIOD: Duration = Duration::from_secs(rolling::PERIOD_SECONDS as u64);
/// How many keys may have a rolling sequence: each has so many ports at all times that the
/// steps of more would often be in each other's way.
pub const ROLLING_KEYS: usize = 16;

/// What the steps are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Steps {
    /// 4 to 8 single ports; the kernel alone needs no more.
    Fixed(Vec<Ports>),
    /// They follow from each key's secret and the minute; the daemon has to say them.
    Rolling,
}

/// A port sequence that opens a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// What it opens; one of the configuration's services.
    pub service: ServiceName,
    /// The steps.
    pub steps: Steps,
    /// How long each step may take after the one before: 5 s to 1 min.
    pub step_time: Duration,
    /// How long it opens the service: at least a step's time, at most 5 min, and shorter than
    /// the service's own limit.
    pub open_for: Duration,
    /// Ports that anybody may use: no misstep.
    pub public: Vec<Ports>,
}

impl Sequence {
    /// The steps where they are fixed; else none.
    #[must_use]
    pub fn fixed(&self) -> &[Ports] {
        match &self.steps {
            Steps::Fixed(steps) => steps,
            Steps::Rolling => &[],
        }
    }

    /// Whether a key of this policy has it. It admits whoever walks it, for its own time: not
    /// what a key may open that is to sign its address, or for less.
    #[must_use]
    pub fn is_for(&self, policy: &Policy) -> bool {
        let is_long_enough = policy.max_open_for.is_none_or(|most| most >= self.open_for);
        policy.services.contains(&self.service) && !policy.signed_address && is_long_enough
    }

    /// How long an address whose last packet was a misstep cannot do anything: longer than
    /// a step and than the grant, so that none of its steps is left when it is over; and how
    /// long a step that was done may come again.
    #[must_use]
    pub fn penalty(&self) -> Duration {
        2 * self.step_time.max(self.open_for)
    }
}

/// Reads the section. `taken` are ports that a step cannot be, each with the reason.
pub fn read(
    section: &mut Section<'_, '_>,
    services: Option<&[Service]>,
    knock: &[u16],
) -> Option<Sequence> {
    let service: Option<ServiceName> = section.text("service", "\"ssh\"");
    let rolling = section.duration_if("rolling", PERIOD..=PERIOD);
    let is_rolling = rolling.is_none_or(|rolling| rolling.is_some());
    let ports: Option<Vec<Ports>> = if is_rolling {
        section.list_or_none("ports")
    } else {
        section.list("ports", "[\"tcp/…\", \"udp/…\", …]")
    };
    let step_time = section.duration_or("step_time", MIN_STEP..=MAX_STEP, STEP);
    let open_for = section.duration_or("open_for", MIN_STEP..=MAX_OPEN_FOR, OPEN_FOR);
    let public: Option<Vec<Ports>> = section.list_or_none("public");
    if let (Some(ports), Some(services), Some(public)) = (&ports, services, &public) {
        let taken = Taken {
            services,
            knock,
            public,
        };
        if !is_rolling {
            for what in faults(ports, &taken) {
                section.note("ports", what);
            }
        } else if !ports.is_empty() {
            section.note("ports", "a rolling sequence has no ports of its own");
        } else if let Some(why) = taken.in_the_way() {
            section.note("rolling", why);
        }
    }
    if let (Some(step_time), Some(open_for)) = (step_time, open_for)
        && open_for < step_time
    {
        // Until a step has ended it comes again, and opens nothing anew.
        section.note("open_for", "must not be shorter than step_time");
    }
    if let (Some(name), Some(services)) = (service, services) {
        match services.iter().find(|s| s.name == name) {
            None => section.note("service", format!("{name} is no [[service]] here")),
            Some(of) if open_for.is_some_and(|open_for| open_for >= of.max_open_for) => {
                let what = format!("must be shorter than max_open_for of service {name}");
                section.note("open_for", what);
            }
            Some(_) => {}
        }
    }
    Some(Sequence {
        service: service?,
        steps: match rolling? {
            Some(_) => Steps::Rolling,
            None => Steps::Fixed(ports?),
        },
        step_time: step_time?,
        open_for: open_for?,
        public: public?,
    })
}

/// Ports that something else is for.
struct Taken<'c> {
    services: &'c [Service],
    knock: &'c [u16],
    public: &'c [Ports],
}

impl Taken<'_> {
    /// What stands in the way of rolling steps.
    fn in_the_way(&self) -> Option<String> {
        let guarded = self.services.iter().flat_map(|service| &service.ports);
        let mut taken = guarded.chain(self.public);
        let (first, last) = rolling::PORTS.into_inner();
        let is_there =
            |p: &&Ports| p.transport() == Transport::Tcp && p.first() <= last && first <= p.last();
        let found = taken.find(is_there)?;
        Some(format!(
            "takes tcp/{first}-{last} for itself: {found} is guarded or public"
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
        has(self.public).then(|| "is public".into())
    }
}

/// What is wrong with the steps: what a scan would have right, or what cannot work.
fn faults(steps: &[Ports], taken: &Taken<'_>) -> Vec<String> {
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

/// How often a proposal is drawn: where hardly a port is left there is none.
const DRAWS: usize = 1_000;

/// A good random sequence for these services, where there are ports for one; `listens` tells
/// ports that something uses.
pub fn propose(
    services: &[Service],
    knock: &[u16],
    public: &[Ports],
    listens: impl Fn(Ports) -> bool,
) -> Result<Option<Vec<Ports>>, NoRandomness> {
    let taken = Taken {
        services,
        knock,
        public,
    };
    let count = u64::try_from(PROPOSED_PORTS.len()).unwrap_or(1);
    for _ in 0..DRAWS {
        let mut steps: Vec<Ports> = Vec::new();
        for _ in 0..PROPOSED {
            let drawn = u64::from_be_bytes(random()?) % count;
            let port = PROPOSED_PORTS.start + u16::try_from(drawn).unwrap_or(0);
            steps.extend(Ports::single(Transport::Tcp, port));
        }
        if faults(&steps, &taken).is_empty() && !steps.iter().any(|step| listens(*step)) {
            return Ok(Some(steps));
        }
    }
    Ok(None)
}

/// The steps as the configuration writes them.
#[must_use]
pub fn ports_text(ports: &[Ports]) -> String {
    let ports: Vec<String> = ports.iter().map(|p| format!("\"{p}\"")).collect();
    format!("[{}]", ports.join(", "))
}

/// The section as [`read`] reads it, or how it would look where there is none.
pub fn text(sequence: Option<&Sequence>) -> String {
    let Some(of) = sequence else {
        return "
# The fallback for networks that swallow UDP and for the day when the daemon is dead:
# connection attempts to these ports in this order open the service; the kernel alone
# watches. Weak: whoever is on the path can do it again. \"oneknockctl check\" proposes ports.
# A key that is to sign its address, or may open for less than open_for, does not have it.
#[sequence]
#service = \"ssh\"
#ports = []
# Instead of ports: they follow from each key's secret and the minute, so that a recorded
# sequence is worthless two minutes later. Needs the daemon; forward tcp/10000-19999.
#rolling = \"1m\"
# How long each step may take, and how long it opens.
#step_time = \"10s\"
#open_for = \"20s\"
# Ports that anybody may use. A connection attempt to any other port of this machine costs
# its address a while in which no sequence opens.
#public = [\"tcp/443\"]
"
        .into();
    };
    let (about, steps) = match &of.steps {
        Steps::Fixed(steps) => (
            "# The fallback in the kernel alone; weak: whoever is on the path can do it again.",
            format!("ports = {}", ports_text(steps)),
        ),
        Steps::Rolling => (
            "# The fallback for networks that swallow UDP; it needs the daemon, and without it is shut
# for good within three minutes. Weak: whoever is on the path can do it again at once.",
            "rolling = \"1m\"".into(),
        ),
    };
    format!(
        "
{about}
[sequence]
service = \"{}\"
{steps}
step_time = \"{}\"
open_for = \"{}\"
public = {}
",
        of.service,
        humantime::format_duration(of.step_time),
        humantime::format_duration(of.open_for),
        ports_text(&of.public),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(texts: &[&str]) -> Vec<Ports> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn shortest() -> Sequence {
        Sequence {
            service: "ssh".parse().unwrap(),
            steps: Steps::Rolling,
            step_time: MIN_STEP,
            open_for: MIN_STEP,
            public: Vec::new(),
        }
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
    fn a_step_may_come_again_for_longer_than_tcp_takes_to_send_a_syn_a_fourth_time() {
        // After 1, 3 and 7 seconds.
        assert!(shortest().penalty() > Duration::from_secs(7));
    }

    #[test]
    fn a_key_that_is_to_sign_its_address_or_may_open_for_less_has_no_sequence() {
        let sequence = shortest();
        let policy = || Policy::new(vec!["web".parse().unwrap(), "ssh".parse().unwrap()]);
        let most = |time| Policy {
            max_open_for: Some(time),
            ..policy()
        };
        let is_for = |policy| sequence.is_for(&policy);
        assert!(is_for(policy()) && is_for(most(MIN_STEP)));
        assert!(!is_for(most(Duration::from_secs(4))));
        assert!(!is_for(Policy {
            signed_address: true,
            ..policy()
        }));
        assert!(!is_for(Policy::new(vec!["web".parse().unwrap()])));
    }

    #[test]
    fn a_rolling_sequence_is_written_with_what_it_needs() {
        assert!(text(Some(&shortest())).contains("needs the daemon"));
        let steps = Steps::Fixed(ports(&["tcp/9", "tcp/5", "tcp/90", "udp/50"]));
        let fixed = Sequence {
            steps,
            ..shortest()
        };
        assert!(text(Some(&fixed)).contains("in the kernel alone"));
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
            (&["tcp/443", "tcp/30", "tcp/20", "tcp/10"], "is public"),
            (&["udp/9500", "tcp/30", "tcp/20", "tcp/10"], "is public"),
            (&["tcp/50-60", "tcp/30", "tcp/20", "tcp/10"], "is a range"),
        ] {
            let found = found(bad).join("\n");
            assert!(found.contains(why), "{bad:?}: {found}");
        }
    }

    #[test]
    fn a_proposal_is_without_a_fault_and_uses_no_port_that_is_listened_on() {
        let services = [Service::new("ssh".parse().unwrap(), ports(&["tcp/22"]))];
        for _ in 0..50 {
            let even = |step: Ports| step.first().is_multiple_of(2);
            let steps = propose(&services, &[45123], &[], even).unwrap().unwrap();
            let texts: Vec<String> = steps.iter().map(ToString::to_string).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            assert_eq!(found(&texts), [""; 0]);
            assert!(!steps.iter().copied().any(even));
        }
        let nothing = propose(&services, &[45123], &ports(&["tcp/1-65535"]), |_| false);
        assert_eq!(nothing.unwrap(), None);
    }
}
