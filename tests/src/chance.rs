//! Random choices that a seed repeats.

use crate::figure;
use oneknock_shared::secret::random;

/// The environment's variable that gives a seed, to repeat a run's choices. How far the
/// programs have come at a choice is the machine's affair all the same.
pub const SEED: &str = "LAB_SEED";

/// A source of choices: `SplitMix64`.
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// Seeded anew, or by [`SEED`]; says which seed it is.
    pub fn new(test: &str) -> Self {
        let given = std::env::var(SEED).ok();
        let seed = given.map_or_else(
            || u64::from_be_bytes(random().unwrap()),
            |seed| seed.parse().unwrap(),
        );
        figure(format_args!("{test}: {SEED}={seed}"));
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is more than zero.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
