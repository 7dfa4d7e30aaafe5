//! Any line is a command or is refused in one line; a command that is written and read
//! again is the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oneknockd::control::protocol::parse;

fuzz_target!(|line: &[u8]| {
    match parse(line) {
        Ok(command) => {
            let written = command.to_line();
            let text = written.strip_suffix('\n').unwrap_or(&written);
            assert!(!text.contains('\n'));
            assert_eq!(parse(text.as_bytes()), Ok(command));
        }
        Err(why) => assert!(!why.to_string().contains(char::is_control)),
    }
});
