//! Lines for a person, on standard error.

/// Says a line to the person, on standard error.
pub fn say(text: &str) {
    eprint_line("oneknock", text);
}

/// Says what the person may do next.
pub fn hint(text: &str) {
    eprint_line("hint", text);
}

fn eprint_line(prefix: &str, text: &str) {
    use std::io::{self, Write};
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "{prefix}: {}", printable(text));
}

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
