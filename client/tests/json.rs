//! What programs read: one object, all members always there, errors with codes.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

mod common;

use common::{Done, Home, invitation, row};
use serde_json::Value;
use std::process::Stdio;

fn object(done: &Done) -> Value {
    assert_eq!(done.out.lines().count(), 1, "{done:?}");
    let object: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(object["version"], 1, "{done:?}");
    object
}

const MEMBERS: [&str; 14] = [
    "address",
    "created",
    "expires",
    "file",
    "generation",
    "host",
    "key",
    "name",
    "port",
    "rotation",
    "sequence",
    "server_id",
    "services",
    "warnings",
];

fn has_all_members(profile: &Value) {
    let members: Vec<&String> = profile.as_object().unwrap().keys().collect();
    assert_eq!(members, MEMBERS);
}

#[test]
fn list_and_show_print_one_object_without_a_secret() {
    for name in ["plain", "mosh-range-and-sequence", "ipv6-literal"] {
        let invitation = row(name);
        let home = Home::with(&invitation);
        let list = home.run(&["list", "--json"], "");
        assert_eq!((list.code, &*list.err), (Some(0), ""), "{list:?}");
        let shown = home.run(&["show", "--json", invitation.name.as_str()], "");
        for done in [&list, &shown] {
            let secret = invitation.secret.to_base64();
            assert!(!done.out.contains(secret.as_str()), "{done:?}");
        }
        let (list, shown) = (object(&list), object(&shown));
        assert_eq!(list["profiles"][0], shown["profile"]);
        assert_eq!(list["errors"], Value::Array(Vec::new()));
        has_all_members(&shown["profile"]);
        assert_eq!(shown["profile"]["host"], invitation.host.to_string());
    }
    let none = object(&Home::new().run(&["list", "--json"], ""));
    assert_eq!(none["profiles"], Value::Array(Vec::new()));
}

#[test]
fn what_is_invalid_is_in_the_object_with_its_code() {
    let home = Home::with(&row("plain"));
    std::fs::write(home.profile("home"), "x").unwrap();
    let list = home.run(&["list", "--json"], "");
    assert_eq!(list.code, Some(3), "{list:?}");
    let list = object(&list);
    assert_eq!(list["profiles"], Value::Array(Vec::new()));
    assert_eq!(list["errors"][0]["code"], "E-INVALID-PROFILE");
    let shown = home.run(&["show", "home", "--json"], "");
    assert_eq!(shown.code, Some(3), "{shown:?}");
    assert_eq!(object(&shown)["error"]["code"], "E-INVALID-PROFILE");
    let unknown = home.run(&["show", "other", "--json"], "");
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    assert_eq!(object(&unknown)["error"]["code"], "E-NO-PROFILE");
}

#[test]
fn doctor_prints_one_object_with_the_causes() {
    let home = Home::with(&invitation("127.0.0.1", 9, &["udp/53".into()]));
    let done = home.run(&["doctor", "home", "--json"], "");
    let said = object(&done);
    let members: Vec<&String> = said.as_object().unwrap().keys().collect();
    assert_eq!(
        members,
        [
            "addresses",
            "causes",
            "clock",
            "host",
            "host_error",
            "last_error",
            "online",
            "profile",
            "version"
        ]
    );
    assert_eq!(said["addresses"][0]["address"], "127.0.0.1");
}

#[test]
fn a_closed_pipe_ends_a_command_in_silence() {
    let home = Home::with(&row("plain"));
    for args in [&["list"][..], &["list", "--json"], &["show", "home"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = home.command(args);
        command.stdin(Stdio::null()).stdout(writer);
        let done = Done::from(command.output().unwrap());
        assert_eq!((done.code, &*done.err), (Some(0), ""), "{args:?}");
    }
}
