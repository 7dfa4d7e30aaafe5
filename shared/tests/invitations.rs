//! The published invitations, row by row, and the round trip of our own.

// A test that cannot go on is a failed test.
#![allow(clippy::unwrap_used)]

use oneknock_shared::invitation::{AddressRule, BadInvitation, Invitation, Service};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::secret::{Secret, ServerId};
use serde_json::{Value, json};

fn rows() -> Vec<Value> {
    serde_json::from_str(include_str!("data/invitations.json")).unwrap()
}

/// The members of an invitation as the rows write them.
fn members(i: &Invitation) -> Value {
    let services: Vec<Value> = i
        .services
        .iter()
        .map(|s| {
            let ports: Vec<String> = s.ports.iter().map(ToString::to_string).collect();
            json!({"name": s.name.as_str(), "ports": ports})
        })
        .collect();
    let mut value = json!({
        "v": 1, "name": i.name.as_str(), "host": i.host.as_str(), "port": i.port,
        "server_id": i.server_id.to_string(), "key": i.key.as_str(),
        "generation": i.generation, "secret": *i.secret.to_base64(),
        "address": i.address.as_str(), "services": services,
    });
    if let Some(steps) = &i.sequence {
        value["sequence"] = steps.iter().map(ToString::to_string).collect();
    }
    if i.rolling {
        value["rolling"] = 60.into();
    }
    if let Some(name) = &i.sequence_service {
        value["sequence_service"] = name.to_string().into();
    }
    value
}

#[test]
fn every_published_row_is_judged_as_it_says() {
    let rows = rows();
    assert!(rows.len() > 20);
    for row in rows {
        let read = row["line"].as_str().unwrap().parse::<Invitation>();
        let name = &row["name"];
        if row["valid"] == true {
            let mut want = row["members"].clone();
            want.as_object_mut().unwrap().remove("future");
            assert_eq!(members(&read.unwrap()), want, "{name}");
        } else {
            assert!(read.is_err(), "{name}");
        }
    }
}

#[test]
fn a_row_without_unknown_members_is_written_as_it_was_read() {
    for row in rows() {
        let line = row["line"].as_str().unwrap();
        if row["valid"] == true && row["members"].get("future").is_none() {
            let invitation: Invitation = line.parse().unwrap();
            assert_eq!(*invitation.to_line(), line, "{}", row["name"]);
        }
    }
}

fn sample() -> Invitation {
    Invitation {
        name: "home".parse().unwrap(),
        host: "home.example.org".parse().unwrap(),
        port: 45123,
        server_id: ServerId::generate().unwrap(),
        key: "laptop".parse().unwrap(),
        generation: 3,
        secret: Secret::generate().unwrap(),
        address: AddressRule::Signed,
        services: vec![Service {
            name: "ssh".parse().unwrap(),
            ports: vec!["tcp/22".parse().unwrap()],
        }],
        sequence: None,
        sequence_service: None,
        rolling: false,
        made: Some(Timestamp(1_800_000_000_123)),
        not_after: Some(Timestamp(1_900_000_000_000)),
    }
}

#[test]
fn white_space_around_the_line_is_ignored() {
    let invitation = sample();
    let line = format!("  {}\r\n", *invitation.to_line());
    assert_eq!(line.parse::<Invitation>().unwrap(), invitation);
}

#[test]
fn any_letter_changed_anywhere_is_noticed() {
    let line = sample().to_line().to_string();
    for at in 0..line.len() {
        let other = if &line[at..=at] == "A" { "B" } else { "A" };
        let edited = format!("{}{other}{}", &line[..at], &line[at + 1..]);
        assert!(edited.parse::<Invitation>().is_err(), "at {at}");
    }
}

#[test]
fn cut_anywhere_is_noticed() {
    let line = sample().to_line().to_string();
    for end in 0..line.len() {
        assert!(line[..end].parse::<Invitation>().is_err(), "cut at {end}");
    }
}

#[test]
fn the_message_names_the_member_and_never_the_secret() {
    for (row, member) in [
        ("port-0", "port"),
        ("secret-31-bytes", "secret"),
        ("server-id-17-bytes", "server_id"),
        ("host-with-space", "host"),
        ("name-with-slash", "name"),
        ("version-2", "v"),
        ("address-unknown", "address"),
        ("protocol-sctp", "services"),
        ("secret-missing", "secret"),
    ] {
        let rows = rows();
        let found = rows.iter().find(|r| r["name"] == row).unwrap();
        let error = found["line"]
            .as_str()
            .unwrap()
            .parse::<Invitation>()
            .unwrap_err();
        let message = error.to_string();
        assert!(message.contains(member), "{row}: {message}");
        assert!(
            !message.contains("AAEC") && !message.contains("AAAA"),
            "{row}: {message}"
        );
    }
}

#[test]
fn a_cut_line_says_so() {
    let row = rows()
        .into_iter()
        .find(|r| r["name"] == "cut-by-one")
        .unwrap();
    let read = row["line"].as_str().unwrap().parse::<Invitation>();
    assert_eq!(read, Err(BadInvitation::Check));
}
