//! Lines for a person, on standard error: `error:`, `warning:`, `note:` and `hint:`.
//!
//! One line each, lower case, no full stop. What came from elsewhere cannot bring control
//! characters to the terminal, and a secret is never repeated.

use std::io::{self, Write};

/// Says what failed.
pub fn error(text: &str) {
    eprint_line("error", text);
}

/// Says what a person should look at.
pub fn warning(text: &str) {
    eprint_line("warning", text);
}

/// Says what was done, or is worth knowing.
pub fn note(text: &str) {
    eprint_line("note", text);
}

/// Says what the person may do next.
pub fn hint(text: &str) {
    eprint_line("hint", text);
}

/// Says a warning also to a person whom ssh hides standard error from, as it does with
/// `ControlPersist`: then it goes to the terminal itself.
pub fn announce(text: &str) {
    warning(text);
    to_terminal(&line("warning", text));
}

/// Says an error and its hints in the same way.
pub fn announce_error(text: &str, hints: &[String]) {
    to_terminal(&line("error", text));
    for text in hints {
        to_terminal(&line("hint", text));
    }
}

/// As a line of [`error`] or of the others.
#[must_use]
pub fn line(severity: &str, text: &str) -> String {
    format!("{severity}: {}\n", printable(text))
}

fn eprint_line(severity: &str, text: &str) {
    // Where standard error is closed there is nobody to tell.
    let _ = io::stderr().write_all(line(severity, text).as_bytes());
}

/// Only where standard error leads nowhere, and there is a terminal.
#[cfg(unix)]
fn to_terminal(line: &str) {
    use std::fs::File;
    if !leads_nowhere().unwrap_or(false) {
        return;
    }
    if let Ok(mut terminal) = File::options().write(true).open("/dev/tty") {
        let _ = terminal.write_all(format!("oneknock: {line}").as_bytes());
    }
}

#[cfg(unix)]
fn leads_nowhere() -> io::Result<bool> {
    use std::fs::{File, metadata};
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    let own = File::from(io::stderr().as_fd().try_clone_to_owned()?).metadata()?;
    let null = metadata("/dev/null")?;
    Ok((own.rdev(), own.mode()) == (null.rdev(), null.mode()))
}

/// Elsewhere there is no such device, and ssh hides nothing.
#[cfg(not(unix))]
fn to_terminal(_: &str) {}

fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_without_control_characters() {
        assert_eq!(printable("a\nb\u{1b}[31mä"), "a\\nb\\u{1b}[31mä");
    }
}
