//! Any text is a configuration, or a list of mistakes of one line each; what is read,
//! written and read again is the same, and every one of it has a ruleset.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oneknockd::config::{main_text, parse_config};
use oneknockd::kernel::ruleset_text;
use std::path::Path;

fuzz_target!(|text: &str| {
    let file = Path::new("/etc/oneknock/oneknockd.toml");
    match parse_config(file, text) {
        Ok(config) => {
            let written = main_text(&config);
            let again = parse_config(file, &written);
            assert_eq!(again.as_ref(), Ok(&config), "{written}");
            let _ = ruleset_text(&config.guard(true, &[]));
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            for mistake in mistakes {
                let line = mistake.to_string();
                assert!(!line.contains(char::is_control), "{line:?}");
            }
        }
    }
});
