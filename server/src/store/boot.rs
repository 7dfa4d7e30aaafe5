//! Which boot of the machine this is.

use std::fs;

const PATH: &str = "/proc/sys/kernel/random/boot_id";

/// The id of a boot of the machine; zero where it is not known.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct BootId(pub [u8; 16]);

impl BootId {
    /// The id of this boot. Where it cannot be read, the last run is taken for one that a power
    /// cut has ended.
    pub fn current() -> Self {
        let text = fs::read_to_string(PATH).unwrap_or_default();
        let id = u128::from_str_radix(&text.trim().replace('-', ""), 16);
        Self(id.unwrap_or(0).to_be_bytes())
    }

    /// Whether the machine has run on since a boot of this id.
    pub fn is_current(self) -> bool {
        self != Self::default() && self == Self::current()
    }
}
