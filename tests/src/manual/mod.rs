//! The manual's pages: from the definitions of the command lines, the configuration's own
//! template, and what stands beside each program in `man/PAGE.more`.

mod commands;
mod settings;

use clap::CommandFactory;
use std::fmt::Write;

/// A page: its file's name, such as `oneknock.1`, and its text.
pub type Page = (&'static str, String);

/// All pages.
#[must_use]
pub fn pages() -> Vec<Page> {
    let client = oneknock::cli::Cli::command();
    let (daemon, admin) = (
        oneknockd::daemon::Cli::command(),
        oneknockd::ctl::Cli::command(),
    );
    let more = [
        include_str!("../../../client/man/oneknock.1.more"),
        include_str!("../../../server/man/oneknockd.8.more"),
        include_str!("../../../server/man/oneknockctl.8.more"),
        include_str!("../../../server/man/oneknockd.toml.5.more"),
    ];
    vec![
        ("oneknock.1", commands::page(client, 1) + more[0]),
        ("oneknockd.8", commands::page(daemon, 8) + more[1]),
        ("oneknockctl.8", commands::page(admin, 8) + more[2]),
        ("oneknockd.toml.5", settings::page() + more[3]),
    ]
}

/// The beginning of a page.
fn title(name: &str, section: u8, about: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let about = about.trim_end_matches('.');
    format!(
        ".TH {} {section} \"\" \"oneknock {version}\"\n.SH NAME\n{} \\- {}\n",
        name.to_uppercase(),
        escape(name),
        escape(about)
    )
}

/// A text as troff shows it as it is; what stands in backquotes is bold.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    let mut bold = false;
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\e"),
            '-' => escaped.push_str("\\-"),
            '`' => {
                escaped.push_str(if bold { "\\fR" } else { "\\fB" });
                bold = !bold;
            }
            c => escaped.push(c),
        }
    }
    // At a line's beginning these would be commands.
    if escaped.starts_with(['.', '\'']) {
        escaped.insert_str(0, "\\&");
    }
    escaped
}

/// Paragraphs, each on a line of its own.
fn paragraphs(page: &mut String, text: &str) {
    for paragraph in text.split("\n\n").filter(|p| !p.trim().is_empty()) {
        let words: Vec<&str> = paragraph.split_whitespace().collect();
        // Writing to a String cannot fail.
        let _ = writeln!(page, ".PP\n{}", escape(&words.join(" ")));
    }
}

/// Lines as they stand.
fn as_it_is(page: &mut String, text: &str) {
    page.push_str(".PP\n.nf\n");
    for line in text.lines() {
        let _ = writeln!(page, "{}", escape(line));
    }
    page.push_str(".fi\n");
}
