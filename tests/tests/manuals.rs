//! The manual's pages are complete, and troff takes them without a word.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use clap::{Command, CommandFactory};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::secret::ServerId;
use oneknock_tests::manual::pages;
use oneknockd::config::{Generation, Policy, key_text, parse_config, parse_key};
use std::path::Path;
use std::process;

/// Every command and long option that `--help` shows, as troff has them.
fn said(command: &Command, found: &mut Vec<String>) {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    for long in shown.filter_map(clap::Arg::get_long) {
        // Of the program itself: its page says it once.
        if long != "version" || command.get_version().is_some() {
            found.push(format!("\\fB\\-\\-{}\\fR", long.replace('-', "\\-")));
        }
    }
    let subs = command.get_subcommands();
    for sub in subs.filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        found.push(sub.get_name().replace('-', "\\-"));
        said(sub, found);
    }
}

#[test]
fn every_command_and_option_is_in_its_page() {
    let pages = pages();
    for (name, command) in [
        ("oneknock.1", oneknock::cli::Cli::command()),
        ("oneknockd.8", oneknockd::daemon::Cli::command()),
        ("oneknockctl.8", oneknockd::ctl::Cli::command()),
    ] {
        let (_, text) = pages.iter().find(|page| page.0 == name).unwrap();
        let mut wanted = Vec::new();
        said(&command, &mut wanted);
        assert!(!wanted.is_empty());
        for word in wanted {
            assert!(text.contains(&word), "{name}: {word}");
        }
        for section in ["EXIT STATUS", "EXAMPLES", "FILES", "SEE ALSO"] {
            let heading = format!(".SH {section}\n");
            let (_, rest) = text.split_once(&heading).unwrap();
            assert!(!rest.starts_with(".SH"), "{name}: {section} is empty");
        }
    }
}

/// The files of a page's examples, as a reader types them off.
fn examples(text: &str) -> Vec<String> {
    let (_, text) = text.split_once(".SH EXAMPLES\n").unwrap();
    let (text, _) = text.split_once("\n.SH").unwrap();
    let blocks = text.split(".nf\n").skip(1);
    let typed = |block: &str| {
        let (block, _) = block.split_once(".fi").unwrap();
        block.replace(".sp\n", "\n").replace("\\-", "-")
    };
    blocks.map(typed).collect()
}

#[test]
fn the_examples_of_the_configuration_are_complete_and_have_no_mistake() {
    let pages = pages();
    let page = pages.iter().find(|page| page.0 == "oneknockd.toml.5");
    let [config, key] = &examples(&page.unwrap().1)[..] else {
        panic!("{page:?}")
    };
    let id = format!("\"{}\"", ServerId::generate().unwrap());
    let secret = Generation::generate(1, Timestamp(0)).unwrap();
    let policy = Policy::new(vec!["web".parse().unwrap()]);
    let made = key_text(&policy, &[secret]);
    let secret = made.lines().find_map(|line| line.strip_prefix("secret = "));
    let config = config.replace("\"...\"", &id);
    let key = key.replace("\"...\"", secret.unwrap());
    let config = parse_config(Path::new("oneknockd.toml"), &config).unwrap();
    assert_eq!((config.services.len(), config.trusted.len()), (2, 2));
    let key = parse_key(Path::new("tablet.toml"), "tablet".parse().unwrap(), &key).unwrap();
    assert!(config.service(key.policy.services[0]).is_some());
}

#[test]
fn troff_warns_of_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in pages() {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        let mut man = process::Command::new("man");
        man.args(["--warnings", "-E", "UTF-8", "-Tutf8", "-Z", "-l"]);
        let done = man.env("LC_ALL", "C.UTF-8").arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && said.is_empty(), "{name}: {said}");
        assert!(!done.stdout.is_empty(), "{name}");
    }
}
