//! A program's page, from the definition of its command line.

use super::{as_it_is, escape, paragraphs, title};
use clap::builder::StyledStr;
use clap::{Arg, Command};
use std::fmt::Write;

/// The page, without its examples.
pub fn page(mut program: Command, section: u8) -> String {
    program.build();
    let about = text(program.get_about());
    let name = program.get_name().to_owned();
    let mut page = title(&name, section, &about);
    page.push_str(".SH SYNOPSIS\n");
    for command in leaves(&program) {
        let _ = writeln!(page, ".PP\n{}", usage(&command));
    }
    let long = text(program.get_long_about().or(program.get_about()));
    let is_status = |p: &&str| p.starts_with("Exit status");
    let all = long.split("\n\n");
    let (status, rest): (Vec<&str>, Vec<&str>) = all.partition(is_status);
    page.push_str(".SH DESCRIPTION\n");
    paragraphs(&mut page, &rest.join("\n\n"));
    page.push_str(".SH OPTIONS\n");
    page.push_str(
        ".TP\n\\fB\\-h\\fR, \\fB\\-\\-help\\fR\nSays what there is, in short and in full.\n\
         .TP\n\\fB\\-V\\fR, \\fB\\-\\-version\\fR\nSays which version it is.\n",
    );
    // What every command takes is said once.
    arguments(&mut page, &program, |arg| !is_asking(arg));
    if program.has_subcommands() {
        page.push_str(".SH COMMANDS\n");
        for command in leaves(&program) {
            let _ = writeln!(page, ".SS \"{}\"", usage(&command).replace('"', "\\(dq"));
            let about = command.get_long_about().or(command.get_about());
            paragraphs(&mut page, &text(about));
            arguments(&mut page, &command, |arg| {
                !arg.is_global_set() && !is_asking(arg)
            });
        }
    }
    page.push_str(".SH EXIT STATUS\n");
    let status = status.join("\n\n");
    paragraphs(&mut page, status.trim_start_matches("Exit status: "));
    let after = text(program.get_after_long_help());
    if let Some((heading, rest)) = after.split_once("\n\n") {
        let _ = writeln!(
            page,
            ".SH {}",
            escape(&heading.trim_end_matches(':').to_uppercase())
        );
        as_it_is(&mut page, rest);
    }
    page
}

/// The commands that do something, in their order; the program itself where it has none.
fn leaves(command: &Command) -> Vec<Command> {
    let is_for_people = |sub: &&Command| !sub.is_hide_set() && sub.get_name() != "help";
    let subs: Vec<Command> = command
        .get_subcommands()
        .filter(is_for_people)
        .flat_map(leaves)
        .collect();
    if subs.is_empty() {
        vec![command.clone()]
    } else {
        subs
    }
}

fn usage(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let words: Vec<&str> = usage.split_whitespace().collect();
    escape(&words.join(" "))
}

fn text(styled: Option<&StyledStr>) -> String {
    styled.map(ToString::to_string).unwrap_or_default()
}

/// `--help` and `--version`: whoever reads the manual knows of them.
fn is_asking(arg: &Arg) -> bool {
    ["help", "version"].contains(&arg.get_id().as_str())
}

fn arguments(page: &mut String, command: &Command, wanted: impl Fn(&Arg) -> bool) {
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        if !wanted(arg) {
            continue;
        }
        let _ = writeln!(page, ".TP\n{}", call(arg));
        let help = text(arg.get_long_help().or(arg.get_help()));
        let words: Vec<&str> = help.split_whitespace().collect();
        let mut said = escape(&words.join(" "));
        let defaults = arg.get_default_values().iter().map(|v| v.to_string_lossy());
        let defaults: Vec<_> = defaults.collect();
        if !defaults.is_empty() && arg.get_action().takes_values() {
            let _ = write!(said, " [default: {}]", escape(&defaults.join(" ")));
        }
        let _ = writeln!(page, "{said}");
    }
}

fn call(arg: &Arg) -> String {
    let values = arg.get_value_names().unwrap_or_default().iter();
    let values: Vec<String> = values.map(|v| format!("\\fI{}\\fR", escape(v))).collect();
    let values = values.join(" ");
    let short = arg.get_short().map(|c| format!("\\fB\\-{c}\\fR"));
    let long = arg
        .get_long()
        .map(|l| format!("\\fB\\-\\-{}\\fR", escape(l)));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    match (names.is_empty(), arg.get_action().takes_values()) {
        (true, _) => values,
        (false, true) => format!("{} {values}", names.join(", ")),
        (false, false) => names.join(", "),
    }
}
