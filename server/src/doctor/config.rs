//! Errors in the configuration and the keys, and what they mean for the next daemon start.

use super::{Check, Finding, Subject};
use crate::config::Loaded;

/// See the module.
pub struct Configuration;

impl Check for Configuration {
    fn code(&self) -> &'static str {
        "E-CONFIG"
    }

    fn run(&self, subject: &Subject<'_>) -> Vec<Finding> {
        let mut found: Vec<Finding> = subject.errors.iter().map(Finding::error).collect();
        if let Some(settings) = subject.settings {
            let file = subject.paths.main_file();
            let warnings = settings.config.warnings().into_iter();
            let warning = |text| Finding::warning(format!("{}: {text}", file.display()));
            found.extend(warnings.map(warning));
        }
        if !subject.errors.is_empty() {
            found.extend(of_next_start(subject));
        }
        found
    }
}

fn of_next_start(subject: &Subject<'_>) -> Vec<Finding> {
    let Ok(loaded) = Loaded::at_start(subject.paths) else {
        return vec![Finding::warning(
            "oneknockd does not start until that is fixed",
        )];
    };
    let mut found = Vec::new();
    if loaded.main_text.is_none() {
        found.push(Finding::warning(
            "until oneknockd.toml is fixed, oneknockd starts with the last good configuration",
        ));
    }
    let skipped = loaded.skipped.iter().map(|key| key.file.as_str());
    let skipped: Vec<&str> = skipped.collect();
    if !skipped.is_empty() {
        found.push(Finding::warning(format!(
            "keys do not work after a reload or a restart until their files are fixed: {}",
            skipped.join(", ")
        )));
    }
    if loaded.settings.keys.is_empty() {
        found.push(Finding::warning(
            "oneknockd starts without any key until that is fixed: no one can knock",
        ));
    }
    found
}
