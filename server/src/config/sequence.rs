//! `[sequence]` of `oneknockd.toml`: the port sequence.

use super::key::Policy;
use super::reader::Section;
use super::service::Service;
use super::steps::{Taken, faults};
use oneknock_shared::name::ServiceName;
use oneknock_shared::port::Ports;
use std::time::Duration;

/// How long the next step may take where the configuration does not say.
const STEP: Duration = Duration::from_secs(10);
/// A client that is in doubt walks again within this time, and completes what it began.
const MIN_STEP: Duration = Duration::from_secs(5);
const MAX_STEP: Duration = Duration::from_secs(60);
/// How long a sequence opens where the configuration does not say, and at most.
const OPEN_FOR: Duration = Duration::from_secs(20);
const MAX_OPEN_FOR: Duration = Duration::from_secs(300);

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
        let is_long_enough = policy.max_duration.is_none_or(|most| most >= self.open_for);
        policy.services.contains(&self.service) && !policy.require_signed_address && is_long_enough
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
    let rolling = section.flag("rolling");
    let is_rolling = rolling.unwrap_or(true);
    let ports: Option<Vec<Ports>> = if is_rolling {
        section.list_or_none("ports")
    } else {
        section.list("ports", "[\"tcp/…\", \"udp/…\", …]")
    };
    let step_time = section.duration_or("step_time", MIN_STEP..=MAX_STEP, STEP);
    let open_for = section.duration_or("duration", MIN_STEP..=MAX_OPEN_FOR, OPEN_FOR);
    let public: Option<Vec<Ports>> = section.list_or_none("ignored_ports");
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
        section.note("duration", "must not be shorter than step_time");
    }
    if let (Some(name), Some(services)) = (service, services) {
        match services.iter().find(|s| s.name == name) {
            None => section.note("service", format!("{name} is no [[service]] here")),
            Some(of) if open_for.is_some_and(|open_for| open_for >= of.max_duration) => {
                let what = format!("must be shorter than max_duration of service {name}");
                section.note("duration", what);
            }
            Some(_) => {}
        }
    }
    Some(Sequence {
        service: service?,
        steps: if rolling? {
            Steps::Rolling
        } else {
            Steps::Fixed(ports?)
        },
        step_time: step_time?,
        open_for: open_for?,
        public: public?,
    })
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
# A key that is to sign its address, or may open for less than `duration`, does not have it.
#[sequence]
#service = \"ssh\"
#ports = []
# Instead of ports: they follow from each key's secret and the minute, so that a recorded
# sequence is worthless two minutes later. Needs the daemon; forward tcp/10000-19999.
#rolling = true
# How long each step may take, and how long it opens.
#step_time = \"10s\"
#duration = \"20s\"
# Ports that anybody may use. A connection attempt to any other port of this machine costs
# its address a while in which no sequence opens.
#ignored_ports = [\"tcp/443\"]
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
            "rolling = true".into(),
        ),
    };
    format!(
        "
{about}
[sequence]
service = \"{}\"
{steps}
step_time = \"{}\"
duration = \"{}\"
ignored_ports = {}
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
            max_duration: Some(time),
            ..policy()
        };
        let is_for = |policy| sequence.is_for(&policy);
        assert!(is_for(policy()) && is_for(most(MIN_STEP)));
        assert!(!is_for(most(Duration::from_secs(4))));
        assert!(!is_for(Policy {
            require_signed_address: true,
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
}
