//! Errors of the command line, said as all others are: `error: …`, and a line `hint: …`.

use clap::Parser;
use clap::error::{Error, ErrorKind};
use std::io::{self, Write};
use std::process::ExitCode;

/// Reads the command line. If it asks for help, that is printed, and if it is wrong, the error is;
/// then this is the exit status: 0 or 2.
pub fn parse<C: Parser>(program: &str) -> Result<C, ExitCode> {
    C::try_parse().map_err(|error| {
        let asks = !error.use_stderr();
        if asks || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            // Where it cannot be printed nothing reads it.
            let _ = error.print();
        } else {
            let (what, tip) = in_words(&error);
            let tip = tip.map_or(String::new(), |tip| format!("hint: {tip}\n"));
            let text = format!("error: {what}\n{tip}hint: {program} --help\n");
            let _ = io::stderr().write_all(text.as_bytes());
        }
        ExitCode::from(if asks { 0 } else { 2 })
    })
}

/// What is wrong, in one line, and what may have been meant.
fn in_words(error: &Error) -> (String, Option<String>) {
    let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = error.to_string();
    let (what, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
    let what = what.strip_prefix("error: ").unwrap_or(what);
    let mut parts = rest.split("\n\n").map(str::trim_start);
    (
        line(what),
        parts.find_map(|part| Some(line(part.strip_prefix("tip: ")?))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Command;

    #[test]
    fn error_is_one_line_and_so_is_the_tip() {
        let program = || {
            Command::new("p")
                .subcommand_required(true)
                .subcommands([Command::new("rotate"), Command::new("list")])
        };
        let said = |word: &str| {
            let tried = program().try_get_matches_from(["p", word]);
            in_words(&tried.unwrap_err())
        };
        let (what, tip) = said("rotte");
        assert_eq!(what, "unrecognized subcommand 'rotte'");
        assert_eq!(
            tip.as_deref(),
            Some("a similar subcommand exists: 'rotate'")
        );
        assert_eq!(said("--x").1, None);
    }
}
