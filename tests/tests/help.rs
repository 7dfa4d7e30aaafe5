//! What `--help` says: each page by itself, and all that a program needs to know.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use clap::{Command, CommandFactory};
use oneknock_tests::wire;
use oneknock_tests::{Running, Site, binaries};
use serde_json::Value;
use std::collections::BTreeSet;

/// A text in one line, as it is where it is not broken.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Every command that a person may call, with the words that call it.
fn pages(command: &Command, called: &str, all: &mut Vec<(String, Command)>) {
    all.push((called.into(), command.clone()));
    let subs = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    for sub in subs.filter(|sub| sub.get_name() != "help") {
        pages(sub, &format!("{called} {}", sub.get_name()), all);
    }
}

#[test]
fn every_page_says_what_the_command_does_and_what_each_word_means() {
    let mut all = Vec::new();
    for mut program in [
        oneknock::cli::Cli::command(),
        oneknockd::daemon::Cli::command(),
        oneknockd::ctl::Cli::command(),
    ] {
        program.build();
        let name = program.get_name().to_owned();
        pages(&program, &name, &mut all);
    }
    assert!(all.len() > 30, "{}", all.len());
    for (called, mut command) in all {
        let about = command.get_about().map(ToString::to_string);
        // In a list of commands it is one line of a terminal.
        let about = about.unwrap_or_default();
        assert!((15..=100).contains(&about.len()), "{called}: {about}");
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.len() > 5, "{called}: {}: {help}", arg.get_id());
        }
        let page = command.render_long_help().to_string();
        assert!(page.contains("Usage: "), "{called}");
        let longest = page.lines().map(|line| line.chars().count()).max();
        // The table of reasons alone is wider.
        let most = if called == "oneknockd" { 200 } else { 100 };
        assert!(longest <= Some(most), "{called}: {longest:?}\n{page}");
    }
}

/// The names of all members; those of a count by reason are reasons.
fn members(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(all) => all.iter().for_each(|one| members(one, found)),
        Value::Object(all) => {
            for (name, value) in all {
                found.insert(name.clone());
                if !["junk", "ignored", "refused", "failed"].contains(&name.as_str()) {
                    members(value, found);
                }
            }
        }
        _ => {}
    }
}

#[test]
fn a_page_with_json_names_every_member() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let watch = [
        "oneknockctl",
        "--config",
        site.dir.to_str().unwrap(),
        "log",
        "--follow",
        "--json",
    ];
    let mut watch = Running::start("watch", site.lab.server.command(&watch));
    let server = site.lab.server.v4.into();
    let knock = |key: &wire::Key| {
        let packet = key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 600));
        wire::send(
            &site.lab.stranger,
            (server, key.invitation.port).into(),
            &packet,
        );
    };
    knock(&key);
    daemon.expect("granted address=198.51.100.7");
    let line = site.ctl(&["key", "rotate", "laptop"]).ok();
    let invitation = line.parse().unwrap();
    knock(&wire::Key { line, invitation });
    watch.expect("\"retiring\"");
    site.ctl(&["revoke", "laptop"]).ok();
    watch.expect("\"revoked\"");
    knock(&key);
    watch.expect("\"granted\"");
    let calls: [&[&str]; 5] = [
        &["status"],
        &["grants"],
        &["log"],
        &["key", "list"],
        &["key", "show", "laptop"],
    ];
    let mut said: Vec<(Vec<&str>, String)> = Vec::new();
    for call in calls {
        let out = site.ctl(&[call, &["--json"]].concat()).ok();
        let page = call.iter().take_while(|word| **word != "laptop");
        said.push((page.copied().collect(), out));
    }
    let events = watch
        .lines()
        .into_iter()
        .filter(|line| line.starts_with('{'));
    said.push((vec!["log"], events.collect::<Vec<_>>().join("\n")));
    for (call, out) in said {
        let mut found = BTreeSet::new();
        for line in out.lines() {
            members(&serde_json::from_str(line).unwrap(), &mut found);
        }
        assert!(found.len() > 1, "{call:?}: {out}");
        let help = |call: &[&str]| site.ctl(&[call, &["--help"]].concat()).ok();
        let mut page = help(&call);
        // That page says that the other has them.
        if call == ["key", "list"] {
            page += &help(&["key", "show"]);
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let named: BTreeSet<&str> = page.split(|c| !is_word(c)).collect();
        let missing: Vec<_> = found
            .iter()
            .filter(|m| !named.contains(m.as_str()))
            .collect();
        assert!(missing.is_empty(), "{call:?}: {missing:?}");
    }
}

#[test]
fn help_answers_what_a_stranger_asks() {
    let site = Site::new(binaries!());
    let help = |call: &[&str]| site.lab.server.run(&[call, &["--help"]].concat()).ok();
    let asked: [(&[&str], &[&str]); 13] = [
        (&["oneknockctl", "key", "add"], &["SIGHUP"]),
        (
            &["oneknockctl", "key", "list"],
            &["generation is one secret"],
        ),
        (
            &["oneknockctl", "key", "rotate"],
            &["--overlap", "--now", "oneknock rotate PROFILE"],
        ),
        (
            &["oneknockctl", "key", "retire"],
            &["--generation", "--force"],
        ),
        (&["oneknockctl", "key", "remove"], &["Refused", "--force"]),
        (
            &["oneknockctl", "init"],
            &["oneknockd.toml", "firewall", "\"server\""],
        ),
        (&["oneknockctl", "status"], &["enforces"]),
        (&["oneknockctl", "grants"], &["time left", "port sequence"]),
        (
            &["oneknockctl", "revoke"],
            &["--disconnect", "knock again", "no daemon runs"],
        ),
        (
            &["oneknockctl", "log"],
            &[
                "oneknockd --help",
                "what to do",
                "Ctrl-C",
                "granted, closed",
            ],
        ),
        (&["oneknockctl", "metrics"], &["Prometheus", "textfile"]),
        (&["oneknock", "list"], &["age of each key", "Warns"]),
        (
            &["oneknockd"],
            &["replay-floor", "clock-skew", "grant-limit"],
        ),
    ];
    for (call, parts) in asked {
        let said = words(&help(call));
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    }
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/demo");
    let run = concat!(env!("CARGO_MANIFEST_DIR"), "/run");
    for script in [demo, run] {
        assert!(help(&[script]).starts_with("Usage: "));
        let done = site.lab.server.run(&[script, "nonsense"]);
        assert_eq!(done.code, Some(2), "{done}");
    }
}
