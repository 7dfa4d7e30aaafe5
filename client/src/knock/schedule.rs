//! When to knock, when to try the port, when to try the other way; no clock in it.
//!
//! A SYN that meets a closed port is dropped, and TCP itself tries again only after a
//! whole second. So the port is tried with connections made anew, soon after each knock
//! and then at a steady pace.

use std::time::Duration;

/// What is to be done at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Knock on every address, each with a fresh packet.
    Knock,
    /// Sign no address any more, and knock.
    FallBack,
    /// Begin one more connection to every address.
    Attempt,
}

/// How long one connection attempt may hang.
pub const ATTEMPT: Duration = Duration::from_secs(2);

/// After each knock, in milliseconds; then every [`ATTEMPT_EVERY`].
const ATTEMPTS: [u64; 4] = [10, 50, 150, 400];
const ATTEMPT_EVERY: u64 = 500;

/// From the first, in milliseconds; then every [`KNOCK_EVERY`].
const KNOCKS: [u64; 4] = [0, 1000, 2500, 5000];
const KNOCK_EVERY: u64 = 3000;

/// `first`, then steps of `every` from its last, without end.
fn series(first: [u64; 4], every: u64) -> impl Iterator<Item = u64> {
    let last = first[3];
    first
        .into_iter()
        .chain((1..).map(move |n| last + n * every))
}

/// How long the packet has before the sequence is walked, of all the time that there is: two
/// fifths, and no longer than [`BEFORE_WALK`].
#[must_use]
pub fn before_walk(timeout: Duration) -> Duration {
    (timeout * 2 / 5).min(BEFORE_WALK)
}

/// Three knocks and their attempts: where these are in vain, more hardly help.
const BEFORE_WALK: Duration = Duration::from_secs(4);

/// How long after a sequence the port is tried before it is walked again.
pub const AFTER_WALK: Duration = Duration::from_millis(1500);

/// When the port is tried after a sequence, without end.
pub fn attempts() -> impl Iterator<Item = Duration> {
    series(ATTEMPTS, ATTEMPT_EVERY).map(Duration::from_millis)
}

/// Every step before `timeout`, in order of time, counted from the first knock.
///
/// With `may_fall_back`, after two fifths of the time there is a [`Step::FallBack`]:
/// late enough that the signed way has had several knocks, early enough for the other.
#[must_use]
pub fn timeline(timeout: Duration, may_fall_back: bool) -> Vec<(Duration, Step)> {
    let end = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let knocks = series(KNOCKS, KNOCK_EVERY).take_while(|&at| at < end);
    let mut knocks: Vec<(u64, Step)> = knocks.map(|at| (at, Step::Knock)).collect();
    if may_fall_back {
        knocks.push((end.saturating_mul(2) / 5, Step::FallBack));
        knocks.sort_unstable();
    }
    let mut steps = Vec::new();
    for (i, &(knock, step)) in knocks.iter().enumerate() {
        steps.push((knock, step));
        let next = knocks.get(i + 1).map_or(end, |&(at, _)| at);
        let attempts = series(ATTEMPTS, ATTEMPT_EVERY).map(|after| knock + after);
        steps.extend(
            attempts
                .take_while(|&at| at < next)
                .map(|at| (at, Step::Attempt)),
        );
    }
    steps
        .into_iter()
        .map(|(at, step)| (Duration::from_millis(at), step))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(steps: &[(Duration, Step)], wanted: Step) -> Vec<u128> {
        let of = steps.iter().filter(|(_, step)| *step == wanted);
        of.map(|(at, _)| at.as_millis()).collect()
    }

    #[test]
    fn the_first_step_is_a_knock_and_attempts_follow_soon() {
        let steps = timeline(Duration::from_secs(10), false);
        assert_eq!(steps[0], (Duration::ZERO, Step::Knock));
        let attempts = times(&steps, Step::Attempt);
        assert_eq!(&attempts[..5], [10, 50, 150, 400, 900]);
        assert_eq!(&attempts[5..9], [1010, 1050, 1150, 1400]);
    }

    #[test]
    fn it_knocks_again_until_the_end() {
        let steps = timeline(Duration::from_secs(15), false);
        assert_eq!(
            times(&steps, Step::Knock),
            [0, 1000, 2500, 5000, 8000, 11000, 14000]
        );
        assert_eq!(times(&steps, Step::FallBack), []);
    }

    #[test]
    fn it_falls_back_once_at_two_fifths_and_attempts_follow() {
        for seconds in [1, 2, 10, 60] {
            let timeout = Duration::from_secs(seconds);
            let steps = timeline(timeout, true);
            assert_eq!(times(&steps, Step::FallBack), [u128::from(seconds) * 400]);
            let at = steps
                .iter()
                .position(|(_, s)| *s == Step::FallBack)
                .unwrap();
            assert_eq!(steps[at + 1].1, Step::Attempt);
            assert_eq!(steps[at + 1].0, steps[at].0 + Duration::from_millis(10));
        }
    }

    #[test]
    fn the_sequence_comes_after_a_few_seconds_however_long_there_is() {
        for (timeout, ms) in [(100, 40), (1_000, 400), (10_000, 4_000), (3_600_000, 4_000)] {
            let before = before_walk(Duration::from_millis(timeout));
            assert_eq!(before.as_millis(), ms);
        }
    }

    #[test]
    fn steps_are_in_order_and_before_the_end_and_attempts_never_far_apart() {
        for millis in [100, 999, 1000, 4321, 10_000, 3_600_000] {
            let timeout = Duration::from_millis(millis);
            let steps = timeline(timeout, true);
            assert!(steps.is_sorted_by_key(|(at, _)| *at));
            assert!(steps.iter().all(|(at, _)| *at < timeout));
            let attempts = times(&steps, Step::Attempt);
            assert!(
                attempts.windows(2).all(|w| w[1] - w[0] <= 510),
                "{attempts:?}"
            );
            assert!(!attempts.is_empty());
        }
    }
}
