//! Whether any key opens.

use super::{Check, Finding, Subject};

/// Of a server without a key that opens.
pub const NO_KEY: &str = "there is no valid key: no one can knock";

/// See the module.
pub struct Keys;

impl Check for Keys {
    fn code(&self) -> &'static str {
        "E-NO-VALID-KEY"
    }

    fn run(&self, subject: &Subject<'_>) -> Vec<Finding> {
        let Some(settings) = subject.settings else {
            return Vec::new();
        };
        if settings.has_key_at(subject.now) {
            return Vec::new();
        }
        let hint = format!("{} key add laptop", subject.paths.ctl());
        vec![Finding::error(NO_KEY).hint(hint)]
    }
}
