//! What was typed wrongly is said as everything else is: `program: what happened`, and a
//! hint on a line of its own.

use clap::Parser;
use clap::error::{Error, ErrorKind};
use std::process::ExitCode;

/// Reads the command line. Where it asks for help that is printed, and where it is wrong
/// that is said; then this is the exit status: 0 or 2.
pub fn parse<C: Parser>(program: &str) -> Result<C, ExitCode> {
    C::try_parse().map_err(|error| {
        let asks = !error.use_stderr();
        if asks || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            // Where it cannot be printed nobody reads it.
            let _ = error.print();
        } else {
            let (what, tip) = in_words(&error);
            eprintln!("{program}: {what}");
            if let Some(tip) = tip {
                eprintln!("hint: {tip}");
            }
            eprintln!("hint: {program} --help says all of it");
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
    fn a_mistake_is_one_line_and_so_is_the_tip() {
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
