//! An invitation becomes a profile, or nothing.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

mod common;

use common::{Home, row, rows};
use std::fs;

#[test]
fn every_valid_invitation_makes_a_door_and_no_other_leaves_a_trace() {
    for row in rows() {
        let line = row["line"].as_str().unwrap();
        let home = Home::new();
        let done = home.run(&["import", "--name", "x"], line);
        if row["valid"] == true {
            assert_eq!((done.code, &*done.out), (Some(0), ""), "{row}: {done:?}");
            // What was written is read as the same profile.
            let again = home.run(&["import", "--name", "x"], line);
            assert_eq!(
                again.err, "note: profile x already has this invitation\n",
                "{row}"
            );
        } else {
            done.is_refusal();
            assert!(home.files().is_empty(), "{row}: {:?}", home.files());
        }
    }
}

#[test]
fn an_invitation_with_the_doors_own_secret_brings_what_is_new_and_another_changes_nothing() {
    let first = row("plain");
    let home = Home::with(&first);
    let mut changed = first.clone();
    changed
        .services
        .push(row("mosh-range-and-sequence").services[1].clone());
    let done = home.run(&["import"], &changed.to_line());
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(
        done.err
            .contains("updated profile home (same key; changed: services)"),
        "{done:?}"
    );
    let show = home.run(&["show", "home"], "");
    assert!(show.out.contains("web"), "{show:?}");
    // A sequence that rolls from now on, and one that opens something else.
    let of_web = Some(changed.services[1].name);
    for (rolling, service) in [(true, None), (true, of_web), (false, None)] {
        (changed.rolling, changed.sequence_service) = (rolling, service);
        let done = home.run(&["import"], &changed.to_line());
        assert!(
            done.err.ends_with("(same key; changed: sequence)\n"),
            "{done:?}"
        );
    }
    let again = home.run(&["import"], &changed.to_line());
    assert!(
        again.err.contains("already has this invitation"),
        "{again:?}"
    );
    let before = fs::read(home.profile("home")).unwrap();
    let mut other = changed.clone();
    other.secret = oneknock_shared::secret::Secret::generate().unwrap();
    let refused = home.run(&["import"], &other.to_line());
    assert!(refused.is_refusal().contains("holds another key"));
    other.generation += 1;
    let refused = home.run(&["import"], &other.to_line());
    let want = "profile home has generation 1 of this key; this invitation is generation 2";
    assert!(refused.is_refusal().contains(want), "{refused:?}");
    assert!(refused.err.contains("hint: use --replace"), "{refused:?}");
    assert_eq!(fs::read(home.profile("home")).unwrap(), before);
}

#[test]
fn an_invitation_takes_another_secrets_place_only_where_that_is_asked_for_and_says_which() {
    let first = row("plain");
    let home = Home::with(&first);
    let mut newer = first.clone();
    newer.secret = oneknock_shared::secret::Secret::generate().unwrap();
    newer.generation += 1;
    let done = home.run(&["import", "--replace"], &newer.to_line());
    assert_eq!(done.code, Some(0), "{done:?}");
    let (host, key) = (&first.host, &first.key);
    let want = format!(
        "replaced profile home: now {host}, key {key} generation 2 (before: {host}, key {key} generation 1)\n"
    );
    assert!(done.err.contains(&want), "{done:?}");
    let text = fs::read_to_string(home.profile("home")).unwrap();
    assert!(text.contains(newer.secret.to_base64().as_str()));
    assert!(!text.contains(first.secret.to_base64().as_str()));
    // Where there is nothing in the way it is an import like any other.
    let again = home.run(&["import", "--replace"], &newer.to_line());
    assert!(
        again.err.contains("already has this invitation"),
        "{again:?}"
    );
    let other = home.run(&["import", "--replace", "--name", "b"], &newer.to_line());
    assert!(other.err.contains("added profile b ("), "{other:?}");
}

#[test]
fn what_is_not_one_invitation_is_refused_and_nothing_is_written() {
    let line = row("plain").to_line().to_string();
    let home = Home::new();
    for bad in [
        String::new(),
        "\n\n".into(),
        format!("{line}\n{line}\n"),
        format!("here it is:\n{line}"),
        format!("{line} and"),
        format!("> {line}"),
        line.replace('.', ".\n"),
        format!("{line}{}", " ".repeat(70_000)),
        "x".repeat(70_000),
        format!("\"{line}\""),
    ] {
        let done = home.run(&["import"], &bad);
        assert!(done.is_refusal().contains("standard input"), "{done:?}");
    }
    let done = home.run(&["import", "/nowhere/at-all"], "");
    assert!(done.is_refusal().contains("/nowhere/at-all"));
    assert!(home.files().is_empty());
}

#[test]
fn an_invitation_is_read_from_a_file_too() {
    let home = Home::new();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, format!("\n  {}\r\n", *row("plain").to_line())).unwrap();
    let path = file.path().to_str().unwrap();
    assert_eq!(
        home.run(&["import", "--name", "a.b-c", path], "").code,
        Some(0)
    );
    assert!(home.profile("a.b-c").exists());
}

#[test]
fn a_door_is_never_overwritten_unasked() {
    let first = row("plain");
    let home = Home::with(&first);
    let before = fs::read(home.profile("home")).unwrap();
    let again = home.run(&["import"], &first.to_line());
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.err.contains("already"), "{again:?}");
    let mut second = first.clone();
    second.generation += 1;
    let other = home.run(&["import"], &second.to_line());
    other.is_refusal();
    assert!(
        other
            .err
            .contains("hint: --name NAME imports it under another name"),
        "{other:?}"
    );
    assert_eq!(fs::read(home.profile("home")).unwrap(), before);
    // Nor is a broken one.
    fs::write(home.profile("home"), "x").unwrap();
    home.run(&["import"], &first.to_line()).is_invalid();
    assert_eq!(fs::read(home.profile("home")).unwrap(), b"x");
    assert_eq!(names_beside(&home.profile("home")), [".lock", "home.toml"]);
}

/// What there is in a profile's folder.
fn names_beside(profile: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(profile.parent().unwrap()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn what_a_killed_call_has_left_goes_with_the_next() {
    let first = row("plain");
    let home = Home::with(&first);
    let left = home.profile("home").with_file_name(".new-a1B2c3");
    let calls: [&[&str]; 3] = [
        &["import", "--name", "other"],
        &["remove", "home"],
        &["remove", "home"],
    ];
    for call in calls {
        // As an import writes it before it has its name: with the secret.
        fs::copy(home.profile("other"), &left)
            .or_else(|_| fs::copy(home.profile("home"), &left))
            .unwrap();
        home.run(call, &first.to_line());
        assert!(!left.exists(), "{call:?}");
    }
    assert_eq!(names_beside(&home.profile("home")), [".lock", "other.toml"]);
}

#[test]
fn an_invitation_alone_makes_no_door_that_is_like_another_host() {
    let mut invitation = row("plain");
    invitation.name = "www.example.net".parse().unwrap();
    let home = Home::new();
    let refused = home.run(&["import"], &invitation.to_line());
    assert!(
        refused.is_refusal().contains("www.example.net"),
        "{refused:?}"
    );
    assert!(
        refused.err.contains("\nhint: ") && refused.err.contains("--name"),
        "{refused:?}"
    );
    assert!(home.files().is_empty());
    let given = home.run(
        &["import", "--name", "www.example.net"],
        &invitation.to_line(),
    );
    assert_eq!(given.code, Some(0), "{given:?}");
    invitation.host = "www.example.net".parse().unwrap();
    let own = Home::new().run(&["import"], &invitation.to_line());
    assert_eq!(own.code, Some(0), "{own:?}");
}

#[test]
fn an_invitation_given_as_an_argument_is_not_said_again() {
    let line = row("plain").to_line();
    let home = Home::new();
    let done = home.run(&["import", &line], "");
    assert!(
        done.is_refusal()
            .contains("refusing to take the invitation"),
        "{done:?}"
    );
    assert!(!done.err.contains(&line[20..60]), "{done:?}");
    assert!(home.files().is_empty());
}
