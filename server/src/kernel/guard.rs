//! What the guard is to be: the room's input, free of the configuration's types.

use oneknock_shared::name::ServiceName;
use oneknock_shared::port::Ports;
use oneknock_shared::secret::ServerId;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long connections that are older than the guard may show themselves. They are TCP's.
pub const GRACE_TIME: Duration = Duration::from_secs(60);

/// A part of the ruleset that the guard can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OptionalPart {
    /// What drops junk before connection tracking.
    Prefilter,
    /// The port sequence.
    Sequence,
}

/// How the table is kept from other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GuardMode {
    /// The kernel (6.9 and later) refuses every other program's change to the table; an older
    /// one is [`GuardMode::Monitored`].
    #[default]
    Exclusive,
    /// Other programs can change the table; [`super::Kernel::check_tampering`] notices it.
    Monitored,
}

/// A service and the ports that lead to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardedService {
    /// The service's name.
    pub name: ServiceName,
    /// Its ports; none of them is another service's.
    pub ports: Vec<Ports>,
}

/// The steps of a port sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SequenceSteps {
    /// Single ports, in order; the kernel alone needs no more.
    Fixed(Vec<Ports>),
    /// They follow from each key's secret and the minute; [`super::Kernel::roll`] sets them.
    Rolling,
}

/// A port sequence that opens a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceGuard {
    /// The service that it opens; one of the guard's.
    pub service: ServiceName,
    /// The steps.
    pub steps: SequenceSteps,
    /// How long each step may take after the one before; whole seconds.
    pub step_time: Duration,
    /// How long the sequence opens the service; whole seconds.
    pub open_for: Duration,
    /// Ports that anybody may use, besides the guarded ones and those of
    /// [`Guard::listen`]: a connection attempt there is no out-of-order probe.
    pub ignored: Vec<Ports>,
}

impl SequenceGuard {
    /// How long an address whose last packet was out of order cannot do anything: longer
    /// than a step and than the grant, so that none of its steps is left when the penalty
    /// ends. A step that was done may come again for as long.
    #[must_use]
    pub fn penalty(&self) -> Duration {
        2 * self.step_time.max(self.open_for)
    }

    /// The steps where they are fixed; else none.
    #[must_use]
    pub fn fixed(&self) -> &[Ports] {
        match &self.steps {
            SequenceSteps::Fixed(steps) => steps,
            SequenceSteps::Rolling => &[],
        }
    }
}

/// The whole guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// Whose guard it is: a machine has one.
    pub server: ServerId,
    /// How the table is kept from other programs.
    pub mode: GuardMode,
    /// Whether service ports are guarded at all times. If not, the guard has the form of a
    /// trial: they are guarded only while a trial lasts, see [`super::Kernel::begin_trial`].
    pub enforcing: bool,
    /// In the form of a trial: what remains of the trial that goes on. It goes on in the same
    /// batch that makes the guard, so that nothing is open in between.
    pub trial: Option<Duration>,
    /// The services.
    pub services: Vec<GuardedService>,
    /// Networks that never need to knock: their first address and the bits of their prefix.
    pub trusted: Vec<(IpAddr, u8)>,
    /// Where knocks arrive.
    pub listen: Vec<SocketAddr>,
    /// Whether everything of a knock's length passes the prefilter: its set cannot be filled,
    /// and the engine does the work.
    pub prefilter_open: bool,
    /// The port sequence, where there is one.
    pub sequence: Option<SequenceGuard>,
    /// Sources that the port sequence admits never: the default gateways, unless the
    /// configuration lets them be admitted. Behind one that rewrites sources is everybody.
    pub blocked_gateways: Vec<IpAddr>,
}
