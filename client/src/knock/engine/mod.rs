//! What is sent next, and when to stop; pure. Open, proxy, ssh and doctor all read its answers.
//!
//! Time goes in as the time since the start, and what the network answered as an [`Event`];
//! what comes out is a [`Step`]. It opens no socket and reads no clock.
//!
//! - Each *round* knocks at every address. Where this computer's own address may be in the
//!   packet, rounds with it and rounds without it alternate: the first works where nothing
//!   translates addresses, the second where something does. What worked last goes first.
//! - Between rounds the port is tried: soon after the first knock, later ones no closer than
//!   the round trip that is known. A SYN that is lost or dropped is sent again by the system
//!   after a second, so older attempts go on beside newer ones.
//! - A connection that stands puts off what would come next until its service had the time to
//!   show itself. It counts only when it has (see [`super::proof`]).

mod endpoint;
mod outcome;
#[cfg(test)]
mod tests;
mod values;

use super::proof::Proof;
use endpoint::Endpoint;
pub use endpoint::{Binding, Bindings};
pub use outcome::{EndpointOutcome, Outcome, Refusal};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;
pub use values::{Candidate, Event, Goal, Step};

const MS: Duration = Duration::from_millis(1);

/// When the rounds are, in ms; then every [`ROUND_EVERY`].
const ROUNDS: [u32; 5] = [0, 300, 1000, 2500, 5000];
const ROUND_EVERY: u32 = 3000;
/// When the port is tried after a round, in ms; then every [`ATTEMPT_EVERY`]. A server has
/// opened some 2 ms after the knock.
const ATTEMPTS: [u32; 6] = [2, 8, 30, 80, 180, 400];
const ATTEMPT_EVERY: u32 = 600;
/// Between the first attempts at two addresses, so that the second handshake can still be
/// given up when the first has ended.
const STAGGER: Duration = Duration::from_millis(8);
/// Between two attempts at one address, at least.
const SPACING: Duration = Duration::from_millis(4);
/// So early an attempt has to be for the probe's silence to tell something.
const PROBE_WINDOW: Duration = Duration::from_millis(10);
/// How long a service has, besides two round trips, to show itself.
const PATIENCE: Duration = Duration::from_millis(400);
/// Three packets over a second where nothing can answer.
const BLIND_ROUNDS: [u32; 3] = [0, 400, 900];
/// How long an ICMP error has after the last of them.
const BLIND_END: Duration = Duration::from_millis(1200);
/// A port has to refuse in so many rounds before it counts.
const REFUSALS: u32 = 2;

/// A connection under way.
#[derive(Debug)]
struct Connection {
    endpoint: usize,
    begun: Duration,
    stands: Option<Duration>,
    /// It was begun before the first knock.
    is_probe: bool,
    /// Something came back.
    is_answered: bool,
}

/// The time of the entry with this number, and whether it is in the table; after the table's
/// end they follow each other `every` so many ms.
fn at(table: &[u32], number: u32, every: u32) -> (Duration, bool) {
    let number = usize::try_from(number).unwrap_or(usize::MAX);
    if let Some(&at) = table.get(number) {
        return (MS * at, true);
    }
    let more = u32::try_from(number - table.len()).unwrap_or(u32::MAX);
    let last = table.last().copied().unwrap_or_default();
    let ms = u64::from(last) + u64::from(every) * (u64::from(more) + 1);
    (Duration::from_millis(ms), false)
}

/// The engine of one open.
#[derive(Debug)]
pub struct Engine {
    goal: Goal,
    /// Whether a connection that stands puts rounds off too: where its service will show
    /// itself by itself, and a second knock would be for nothing.
    is_patient: bool,
    limit: Duration,
    endpoints: Vec<Endpoint>,
    connections: Vec<Connection>,
    /// Whether a connection is begun before the first knock.
    probes: bool,
    /// How many rounds have begun.
    rounds: u32,
    /// When the last round began.
    round_at: Duration,
    /// The steps of this moment that are still to be given out.
    due: VecDeque<Step>,
    outcome: Option<Outcome>,
}

impl Engine {
    /// One that gives up after `limit`. The candidates are tried in their order.
    #[must_use]
    pub fn new(goal: Goal, proof: Proof, limit: Duration, candidates: Vec<Candidate>) -> Self {
        let limit = if goal == Goal::Knock {
            BLIND_END
        } else {
            limit
        };
        Self {
            goal,
            is_patient: proof == Proof::Ssh,
            limit,
            endpoints: candidates.into_iter().map(Endpoint::new).collect(),
            connections: Vec::new(),
            probes: false,
            rounds: 0,
            round_at: Duration::ZERO,
            due: VecDeque::new(),
            outcome: None,
        }
    }

    /// Begins a connection just before the first knock. What stands later, while that one has
    /// no answer for much longer, was let in by the knock: something between would have
    /// answered both. So nobody has to wait for the service's words.
    #[must_use]
    pub fn with_probe(mut self) -> Self {
        self.probes = self.goal == Goal::Connection;
        self
    }

    /// What to do at this time after the start. To be called again until it waits or is done.
    pub fn next(&mut self, now: Duration) -> Step {
        // A port that is open already is knocked on all the same: its grant is renewed.
        while let Some(step) = self.due.pop_front() {
            if self.outcome.is_none() || matches!(step, Step::Knock { .. }) {
                return step;
            }
        }
        if let Some(outcome) = &self.outcome {
            return Step::Done(outcome.clone());
        }
        if !self.endpoints.iter().any(Endpoint::is_reachable) {
            return self.end(Outcome::NotSent);
        }
        if now >= self.limit {
            return self.end(match self.goal {
                Goal::Knock if self.endpoints.iter().any(Endpoint::may_have_arrived) => {
                    Outcome::Sent
                }
                _ => Outcome::NoAnswer,
            });
        }
        let round = self.round_due();
        if now >= round {
            if self.all_refuse() {
                return self.end(Outcome::PortRefused);
            }
            self.begin_round(now);
            return self.next(now);
        }
        let mut wake = round.min(self.limit);
        for endpoint in 0..self.endpoints.len() {
            let Some(at) = self.attempt_due(endpoint) else {
                continue;
            };
            if now >= at {
                return self.begin_attempt(endpoint, now);
            }
            wake = wake.min(at);
        }
        Step::Wait(wake)
    }

    /// Takes in what came back at this time.
    pub fn notice(&mut self, now: Duration, event: Event) {
        match event {
            Event::NotSent { endpoint, why } => self.endpoints[endpoint].not_sent(why),
            Event::KnockRefused { endpoint, refusal } => {
                self.endpoints[endpoint].knock_refused(refusal);
            }
            Event::Connected(number) => {
                let connection = &mut self.connections[number];
                connection.stands = Some(now);
                connection.is_answered = true;
                let took = now.saturating_sub(connection.begun);
                self.endpoints[connection.endpoint].connected(took);
                if self.is_let_in(number, now) {
                    self.opened(number);
                }
            }
            Event::Shown(connection) => self.opened(connection),
            Event::PortRefused(connection) => {
                let endpoint = self.ended(connection);
                if !self.connections[connection].is_probe {
                    self.endpoints[endpoint].port_refused(self.rounds);
                }
            }
            Event::Closed(connection) => {
                let endpoint = self.ended(connection);
                self.endpoints[endpoint].closed();
            }
            Event::Failed { connection, why } => {
                let endpoint = self.ended(connection);
                self.endpoints[endpoint].failed(why);
            }
        }
    }

    /// What is known of each address, in the order of the candidates.
    pub fn endpoints(&self) -> impl Iterator<Item = (IpAddr, &EndpointOutcome)> {
        self.endpoints.iter().map(|e| (e.address, &e.outcome))
    }

    fn end(&mut self, outcome: Outcome) -> Step {
        self.outcome = Some(outcome.clone());
        Step::Done(outcome)
    }

    /// The first one is it.
    fn opened(&mut self, connection: usize) {
        if self.outcome.is_some() {
            return;
        }
        let Connection {
            endpoint,
            begun,
            is_probe,
            ..
        } = self.connections[connection];
        self.endpoints[endpoint].shown();
        // What stands without a knock says nothing of packets.
        let by = (!is_probe).then(|| self.endpoints[endpoint].opened_by(begun));
        let by = by.flatten();
        self.outcome = Some(Outcome::Open {
            endpoint,
            connection,
            by,
            round_trip: self.endpoints[endpoint].round_trip,
        });
    }

    /// Whether the probe at the same address, which was begun before, has no answer for twice
    /// the time that this connection took. That is so on a short way alone, on which nothing
    /// gets lost; on others the service has to show itself.
    fn is_let_in(&self, number: usize, now: Duration) -> bool {
        let connection = &self.connections[number];
        let took = now.saturating_sub(connection.begun);
        let is_silent = |probe: &Connection| {
            probe.is_probe
                && probe.endpoint == connection.endpoint
                && !probe.is_answered
                && now.saturating_sub(probe.begun) >= (2 * took).max(MS)
        };
        !connection.is_probe
            && connection.begun <= PROBE_WINDOW
            && self.connections.iter().any(is_silent)
    }

    fn ended(&mut self, connection: usize) -> usize {
        let connection = &mut self.connections[connection];
        connection.is_answered = true;
        connection.stands = None;
        connection.endpoint
    }

    /// Whether every address that can be reached refuses the port, and none the knock: it may
    /// well have been accepted, and nothing listens.
    fn all_refuse(&self) -> bool {
        let mut reached = self
            .endpoints
            .iter()
            .filter(|e| e.is_reachable())
            .peekable();
        reached.peek().is_some()
            && reached.all(|e| {
                e.refusals >= REFUSALS && matches!(e.outcome, EndpointOutcome::PortRefused)
            })
    }

    /// When the next round is due.
    fn round_due(&self) -> Duration {
        let table: &[u32] = match self.goal {
            Goal::Knock => &BLIND_ROUNDS,
            _ => &ROUNDS,
        };
        let at = match at(table, self.rounds, ROUND_EVERY) {
            (_, false) if self.goal == Goal::Knock => return Duration::MAX,
            (at, _) => at,
        };
        if self.is_patient {
            at.max(self.patience_ends())
        } else {
            at
        }
    }

    /// Until when a connection that stands puts off what would come next.
    fn patience_ends(&self) -> Duration {
        let ends = self.connections.iter().filter_map(|connection| {
            let stands = connection.stands?;
            let round_trip = stands.saturating_sub(connection.begun);
            Some(stands + 2 * round_trip + PATIENCE)
        });
        ends.max().unwrap_or_default()
    }

    fn begin_round(&mut self, now: Duration) {
        self.rounds += 1;
        self.round_at = now;
        if self.probes && self.rounds == 1 {
            for endpoint in 0..self.endpoints.len() {
                if self.endpoints[endpoint].is_reachable() {
                    let probe = self.begin_connection(endpoint, now, true);
                    self.due.push_back(probe);
                }
            }
        }
        for (number, endpoint) in self.endpoints.iter_mut().enumerate() {
            let next = endpoint.begin_round(self.rounds);
            let bindings = match self.goal {
                Goal::Connection => next.into_iter().collect(),
                Goal::ConnectionWithoutKnock => Vec::new(),
                Goal::Knock => endpoint.all_bindings(),
            };
            for binding in bindings {
                endpoint.knocked(binding, now);
                self.due.push_back(Step::Knock {
                    endpoint: number,
                    binding,
                });
            }
        }
    }

    /// When the port of this endpoint is to be tried next; never where it cannot be.
    fn attempt_due(&self, number: usize) -> Option<Duration> {
        let endpoint = &self.endpoints[number];
        if self.goal == Goal::Knock || !endpoint.is_reachable() {
            return None;
        }
        let (after, _) = at(&ATTEMPTS, endpoint.attempts, ATTEMPT_EVERY);
        let stagger = STAGGER * u32::try_from(number).unwrap_or(u32::MAX).min(8);
        let mut at = self.round_at + after + stagger;
        if let (Some(round_trip), Some(last)) = (endpoint.round_trip, endpoint.last_attempt) {
            at = at.max(last + (round_trip + round_trip / 4).max(SPACING));
        }
        Some(at.max(self.patience_ends()))
    }

    fn begin_attempt(&mut self, endpoint: usize, now: Duration) -> Step {
        self.endpoints[endpoint].attempted(now);
        self.begin_connection(endpoint, now, false)
    }

    fn begin_connection(&mut self, endpoint: usize, now: Duration, is_probe: bool) -> Step {
        self.connections.push(Connection {
            endpoint,
            begun: now,
            stands: None,
            is_probe,
            is_answered: false,
        });
        Step::Connect {
            endpoint,
            connection: self.connections.len() - 1,
        }
    }
}
