//! Any text is a key, or a list of mistakes of one line each that never repeats a secret.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oneknockd::config::{key_text, parse_key};
use std::path::Path;

fuzz_target!(|text: &str| {
    let file = Path::new("/etc/oneknock/keys/laptop.toml");
    let name: oneknock_shared::name::KeyName = "laptop".parse().expect("a name");
    match parse_key(file, name.clone(), text) {
        Ok(key) => {
            assert!(!key.generations.is_empty());
            let written = key_text(&key.policy, &key.generations);
            assert_eq!(parse_key(file, name, &written), Ok(key), "{}", *written);
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
