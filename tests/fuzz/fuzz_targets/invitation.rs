//! Any text is an invitation or is refused in one line; an invitation that is written and
//! read again is the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oneknock_shared::invitation::Invitation;

fuzz_target!(|text: &str| {
    match text.parse::<Invitation>() {
        Ok(invitation) => {
            let line = invitation.to_line();
            let again: Invitation = line.parse().expect("its own line");
            assert_eq!(again, invitation);
            assert_eq!(*again.to_line(), *line);
            assert!(!line.contains(char::is_whitespace));
            let shown = format!("{invitation:?}");
            assert!(!shown.contains(invitation.secret.to_base64().as_str()));
        }
        Err(why) => {
            let why = why.to_string();
            assert!(
                !why.is_empty() && !why.contains(char::is_control),
                "{why:?}"
            );
        }
    }
});
