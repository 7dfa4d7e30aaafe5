//! Whether the clock is synchronized.

use super::{Check, Finding, Subject};
use crate::clock;

/// See the module.
pub struct SystemClock;

impl Check for SystemClock {
    fn code(&self) -> &'static str {
        "E-CLOCK"
    }

    fn run(&self, _: &Subject<'_>) -> Vec<Finding> {
        match clock::is_synchronised() {
            Ok(true) => Vec::new(),
            Ok(false) => {
                let what = "the clock is not synchronized: knocks are rejected if it is off by more than skew";
                vec![Finding::error(what).hint("timedatectl set-ntp true")]
            }
            Err(why) => {
                let what =
                    format!("whether the clock is synchronized is not known: timedatectl: {why}");
                vec![Finding::note(what).hint("compare it with another: date --utc")]
            }
        }
    }
}
