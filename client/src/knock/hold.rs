//! When a port that is held open is knocked for again; pure.
//!
//! A grant ends by itself after some time, so it is renewed long before. It is for an address,
//! so after a change of this computer's addresses, and after sleep, it is opened anew.

use crate::knock::plan::Route;
use std::time::Duration;

/// How often the routes are looked at.
pub const LOOK: Duration = Duration::from_secs(2);
/// A wall clock that went on by so much more than the other one: this computer slept.
const SLEPT: Duration = Duration::from_secs(3);
/// After an open that failed; then twice that, up to [`MAX_PAUSE`].
const PAUSE: Duration = Duration::from_secs(2);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldStep {
    /// Open and see that the service shows itself.
    Open(Reason),
    /// Knock once more, so that the grant goes on.
    Renew,
    /// Nothing for this long; then look again.
    Wait(Duration),
}

/// Why it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It begins.
    Start,
    /// This computer's address or route to the server has changed.
    Network,
    /// This computer slept.
    Sleep,
    /// It did not open before.
    Again,
}

/// Two clocks: one that stands still while this computer sleeps, and one that does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// Since some moment, without sleep.
    pub mono: Duration,
    /// Since 1970.
    pub wall: Duration,
}

/// One port that is held open.
#[derive(Debug)]
pub struct Hold {
    every: Duration,
    looked: Option<(Clocks, Vec<Route>)>,
    knocked: Option<Duration>,
    /// When to try again after a failure, and how long the pause was.
    failed: Option<(Duration, Duration)>,
}

impl Hold {
    /// One that is renewed so often.
    #[must_use]
    pub fn new(every: Duration) -> Self {
        Self {
            every,
            looked: None,
            knocked: None,
            failed: None,
        }
    }

    /// What to do at this time, with these ways to the server.
    pub fn next(&mut self, now: Clocks, routes: &[Route]) -> HoldStep {
        let before = self.looked.replace((now, routes.to_vec()));
        let Some((then, old_routes)) = before else {
            return HoldStep::Open(Reason::Start);
        };
        let went = |to: Duration, from: Duration| to.saturating_sub(from);
        let slept = went(now.wall, then.wall).saturating_sub(went(now.mono, then.mono));
        if slept >= SLEPT {
            return HoldStep::Open(Reason::Sleep);
        }
        if own_addresses(&old_routes) != own_addresses(routes) {
            return HoldStep::Open(Reason::Network);
        }
        if let Some((at, _)) = self.failed {
            if now.mono >= at {
                return HoldStep::Open(Reason::Again);
            }
            return HoldStep::Wait(LOOK.min(at.saturating_sub(now.mono)));
        }
        let due = self.knocked.unwrap_or_default() + self.every;
        if now.mono >= due {
            return HoldStep::Renew;
        }
        HoldStep::Wait(LOOK.min(due.saturating_sub(now.mono)))
    }

    /// It opened, or a packet was sent for it.
    pub fn knocked(&mut self, mono: Duration) {
        self.knocked = Some(mono);
        self.failed = None;
    }

    /// It did not open.
    pub fn failed(&mut self, mono: Duration) {
        let pause = self.failed.map_or(PAUSE, |(_, last)| 2 * last);
        let pause = pause.min(MAX_PAUSE);
        self.failed = Some((mono + pause, pause));
    }
}

/// This computer's addresses on the ways there, whatever the order.
fn own_addresses(routes: &[Route]) -> Vec<String> {
    let own = |route: &Route| match &route.from {
        Ok(from) => format!("{} {from}", route.to),
        Err(_) => format!("{} -", route.to),
    };
    let mut all: Vec<String> = routes.iter().map(own).collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Clocks {
        let mono = Duration::from_secs(seconds);
        Clocks {
            mono,
            wall: Duration::from_secs(1_800_000_000) + mono,
        }
    }

    fn from(own: &str) -> Vec<Route> {
        vec![Route {
            to: [192, 0, 2, 10].into(),
            from: own.parse().map_err(|_| own.to_string()),
        }]
    }

    const HOME: &str = "198.51.100.7";

    fn held() -> Hold {
        let mut hold = Hold::new(Duration::from_secs(10));
        let step = hold.next(at(0), &from(HOME));
        assert_eq!(step, HoldStep::Open(Reason::Start));
        hold.knocked(at(0).mono);
        hold
    }

    #[test]
    fn it_is_renewed_before_its_end_and_waits_meanwhile() {
        let mut hold = held();
        assert_eq!(hold.next(at(1), &from(HOME)), HoldStep::Wait(LOOK));
        let second = Duration::from_secs(1);
        assert_eq!(hold.next(at(9), &from(HOME)), HoldStep::Wait(second));
        assert_eq!(hold.next(at(10), &from(HOME)), HoldStep::Renew);
        hold.knocked(at(10).mono);
        assert_eq!(hold.next(at(19), &from(HOME)), HoldStep::Wait(second));
    }

    #[test]
    fn another_address_or_a_way_that_comes_back_opens_anew() {
        let mut hold = held();
        let step = hold.next(at(1), &from("203.0.113.9"));
        assert_eq!(step, HoldStep::Open(Reason::Network));
        let step = hold.next(at(2), &from("no route"));
        assert_eq!(step, HoldStep::Open(Reason::Network));
        hold.failed(at(2).mono);
        let step = hold.next(at(3), &from("no route: other words"));
        assert_eq!(step, HoldStep::Wait(Duration::from_secs(1)));
        let step = hold.next(at(3), &from(HOME));
        assert_eq!(step, HoldStep::Open(Reason::Network));
    }

    #[test]
    fn after_sleep_it_opens_anew() {
        let mut hold = held();
        let mut woken = at(1);
        woken.wall += Duration::from_secs(3600);
        let step = hold.next(woken, &from(HOME));
        assert_eq!(step, HoldStep::Open(Reason::Sleep));
    }

    #[test]
    fn what_failed_is_tried_again_after_longer_and_longer_pauses() {
        let mut hold = held();
        let (mut now, mut pauses) = (0, Vec::new());
        for _ in 0..8 {
            hold.failed(at(now).mono);
            let begun = now;
            while hold.next(at(now), &from(HOME)) != HoldStep::Open(Reason::Again) {
                now += 1;
            }
            pauses.push(now - begun);
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
