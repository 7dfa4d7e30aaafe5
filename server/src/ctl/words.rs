//! Sentences that several commands say.

pub use crate::doctor::NO_KEY;
use crate::kernel::STANDALONE_TABLE;
use humantime::format_duration;
use std::time::Duration;

/// A span of time, in words.
pub fn span(seconds: u64) -> String {
    format_duration(Duration::from_secs(seconds)).to_string()
}

/// Of keys whose files are invalid.
pub fn skipped(files: &[String]) -> String {
    format!(
        "error: keys are not loaded, since their files are invalid: {}",
        files.join(", ")
    )
}

/// The rules that need no daemon are loaded; with the command that removes them.
pub fn standalone_sequence() -> String {
    format!(
        "the rules of \"debug rules --sequence-only\" are loaded: their service opens by the port sequence alone (nft delete table inet {STANDALONE_TABLE})"
    )
}
