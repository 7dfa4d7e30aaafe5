//! Samples, and what is said of them.

use std::time::Duration;

/// Times in one place, in order.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    sorted: Vec<Duration>,
    /// Trials that did not end in time.
    pub failed: usize,
}

impl FromIterator<Option<Duration>> for Samples {
    fn from_iter<I: IntoIterator<Item = Option<Duration>>>(all: I) -> Self {
        let mut samples = Self::default();
        samples.extend(all);
        samples
    }
}

impl Extend<Option<Duration>> for Samples {
    fn extend<I: IntoIterator<Item = Option<Duration>>>(&mut self, all: I) {
        for one in all {
            match one {
                Some(time) => self.sorted.push(time),
                None => self.failed += 1,
            }
        }
        self.sorted.sort_unstable();
    }
}

impl Samples {
    /// The time that this share of them, in percent, does not exceed.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let all = self.sorted.len() + self.failed;
        let at = (all * percent).div_ceil(100).saturating_sub(1);
        self.sorted.get(at).copied()
    }

    pub fn median(&self) -> Option<Duration> {
        self.percentile(50)
    }

    pub fn sorted(&self) -> &[Duration] {
        &self.sorted
    }

    /// Every trial, as it can be put together with others.
    pub fn all(&self) -> impl Iterator<Item = Option<Duration>> + '_ {
        let ended = self.sorted.iter().copied().map(Some);
        ended.chain(std::iter::repeat_n(None, self.failed))
    }

    pub fn len(&self) -> usize {
        self.sorted.len() + self.failed
    }
}

/// A time as people read it.
pub fn time(time: Option<Duration>) -> String {
    let Some(time) = time else {
        return "not in time".into();
    };
    let micros = time.as_secs_f64() * 1e6;
    if micros < 1_000.0 {
        format!("{micros:.0} µs")
    } else if micros < 100_000.0 {
        format!("{:.2} ms", micros / 1e3)
    } else {
        format!("{:.2} s", micros / 1e6)
    }
}

/// How many times longer the second is.
pub fn ratio(ours: Option<Duration>, theirs: Option<Duration>) -> String {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => {
            format!("{:.1}", theirs.as_secs_f64() / ours.as_secs_f64())
        }
        _ => "-".into(),
    }
}
