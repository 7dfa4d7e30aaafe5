//! Each promise of the threat model has its test.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Names in backticks that look like a test's.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split('`').skip(1).step_by(2);
    words
        .filter(|word| word.matches('_').count() >= 1)
        .filter(|word| {
            word.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        })
        .collect()
}

fn tests_below(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            // The name stands on the line after the attribute.
            let lines = text.lines().map(str::trim_start);
            let after = lines.clone().skip(1).zip(lines);
            let tests =
                after.filter(|(_, line)| *line == "#[test]" || line.starts_with("#[tokio::test"));
            let names = tests.filter_map(|(next, _)| {
                next.strip_prefix("async ")
                    .unwrap_or(next)
                    .strip_prefix("fn ")
            });
            found.extend(names.filter_map(|rest| Some(rest.split_once('(')?.0.to_owned())));
        }
    }
}

#[test]
fn every_promise_of_the_threat_model_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("server/THREAT-MODEL.md")).unwrap();
    let mut tests = BTreeSet::new();
    for part in ["client", "server", "shared", "tests"] {
        tests_below(&root.join(part), &mut tests);
    }
    let named: Vec<&str> = named(&text)
        .into_iter()
        .filter(|n| *n != "require_signed_address")
        .collect();
    assert!(named.len() > 50, "{}", named.len());
    let missing: Vec<_> = named.into_iter().filter(|n| !tests.contains(*n)).collect();
    assert_eq!(missing, Vec::<&str>::new());
    let rows = text
        .lines()
        .filter(|line| line.starts_with("| ") && !line.contains("---"));
    let promises = rows.skip_while(|row| !row.contains("kept by"));
    let bare: Vec<_> = promises
        .filter(|row| !row.contains("kept by") && !row.contains("| where |"))
        .filter(|row| !row.contains('`'))
        .collect();
    assert_eq!(bare, Vec::<&str>::new());
}
