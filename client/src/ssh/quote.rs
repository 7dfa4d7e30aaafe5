//! Words for a shell, in hints that can be copied and in ssh's `ProxyCommand`.

/// A text as one word of a POSIX shell: as it is where it is plain, else in single
/// quotes.
#[must_use]
pub fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
