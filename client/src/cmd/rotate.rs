//! A profile's new secret, over the ssh that the profile already gives.
//!
//! | step | what the profile's file holds | what the server takes |
//! | --- | --- | --- |
//! | before | old | old |
//! | it is noted that one is begun | old | old |
//! | the server made a new one | old | old, new |
//! | it is stored | old, new | old, new |
//! | ssh went in with the new one alone, and ended the old one | old, new | new |
//! | the old one is forgotten | new | new |
//!
//! Whoever knocks while the file holds both knocks with both, so that the port opens
//! wherever a run breaks off; the next run begins where that one ended. What is stored is
//! given up for another only when the server itself has said that it takes it no more.

use crate::cli::Rotate;
use crate::error::Error;
use crate::knock::packet;
use crate::knock::sequence::Via;
use crate::profile::Profile;
use crate::profile::import;
use crate::profile::store::ProfileStore;
use crate::ssh::{self, Destination, Knocks, SshWords};
use crate::ui::message::{hint, note, warning};
use oneknock_shared::invitation::Invitation;
use serde::Deserialize;
use std::ffi::OsString;
use std::process::{Command, ExitStatus, Stdio};

/// How often the old generation's end is asked for: where an earlier knock has left the
/// profile open, a knock with the new one that was lost is noticed only by the server.
const TRIES: usize = 3;
/// The status with which oneknockctl refuses.
const REFUSED: i32 = 2;

/// Rotates the key of a profile.
pub fn rotate(profiles: &ProfileStore, wanted: &Rotate) -> Result<(), Error> {
    // Without the profile there is nothing to lock.
    profiles.load(&wanted.name)?;
    let _lock = profiles.lock(&wanted.name)?;
    let mut profile = profiles.load(&wanted.name)?;
    if let Some(next) = &profile.next {
        let number = next.generation;
        note(&format!(
            "a rotation to generation {number} is under way: completing it"
        ));
        match finish(profiles, &profile, wanted) {
            Err(error @ Error::Unfinished { .. }) if has_ended(&profile, next, wanted)? => {
                warning(&error.to_string());
                note("asking for another one");
            }
            other => return other,
        }
    }
    // The old one has an end from when the server is asked, and the answer may get lost.
    profile.begun = profile.begun.or(packet::now().ok());
    profiles.replace(&profile)?;
    profile.next = Some(ask(&profile, wanted)?);
    profiles.replace(&profile)?;
    finish(profiles, &profile, wanted)
}

/// Has the server make a new generation.
fn ask(profile: &Profile, wanted: &Rotate) -> Result<Invitation, Error> {
    let key = &profile.invitation.key;
    let order = format!("{} key rotate {key}", wanted.command);
    let mut ssh = command(profile, wanted, Knocks::WithAll(Via::Auto), &order)?;
    let mut child = ssh.stdout(Stdio::piped()).spawn().map_err(Error::Ssh)?;
    let answer = child
        .stdout
        .take()
        .map(|out| import::read(out, "the server's answer"));
    let status = child.wait().map_err(Error::Ssh)?;
    let failed = |why: String| Error::NotRotated {
        profile: profile.name().clone(),
        why,
    };
    if !status.success() {
        return Err(failed(ended(status)));
    }
    let next = answer.unwrap_or_else(|| Err(failed("it said nothing".into())))?;
    let of = &profile.invitation;
    if next.server_id != of.server_id || next.key != of.key {
        return Err(failed("its answer is for another profile".into()));
    }
    if next.generation <= of.generation {
        return Err(failed("its answer is no newer secret".into()));
    }
    // Where it is found from here this profile knows best: it has just led there.
    Ok(Invitation {
        name: of.name.clone(),
        host: of.host.clone(),
        port: of.port,
        ..next
    })
}

/// Whether the server says that it takes this generation no more, since it was dropped by
/// another rotation or ended there. That ssh does not get in by it says nothing: the line may
/// be down, and it may be the only one that still opens.
fn has_ended(profile: &Profile, next: &Invitation, wanted: &Rotate) -> Result<bool, Error> {
    let order = format!("{} key show {} --json", wanted.command, next.key);
    let mut ssh = command(profile, wanted, Knocks::WithAll(Via::Auto), &order)?;
    let done = ssh.stderr(Stdio::inherit()).output().map_err(Error::Ssh)?;
    Ok(done.status.success() && is_ended(&done.stdout, next.generation))
}

/// A generation that `oneknockctl key show --json` lists as ended, or lists no more.
fn is_ended(answer: &[u8], number: u32) -> bool {
    let Ok(shown) = serde_json::from_slice::<Shown>(answer) else {
        return false;
    };
    let mut all = shown.generations.iter();
    all.find(|one| one.number == number)
        .is_none_or(|one| one.state == "expired")
}

/// What matters here of what the server shows of a key.
#[derive(Deserialize)]
struct Shown {
    generations: Vec<ShownGeneration>,
}

#[derive(Deserialize)]
struct ShownGeneration {
    number: u32,
    state: String,
}

/// Goes in with the new generation alone, and has the server end the old one. The server
/// refuses that where it has not seen the new one work.
fn finish(profiles: &ProfileStore, profile: &Profile, wanted: &Rotate) -> Result<(), Error> {
    let Some(next) = &profile.next else {
        return Ok(());
    };
    let (old, key) = (profile.invitation.generation, &profile.invitation.key);
    let order = format!("{} key retire {key} --generation {old}", wanted.command);
    let try_once = || {
        let mut ssh = command(profile, wanted, Knocks::WithNext, &order)?;
        ssh.stdout(Stdio::null()).status().map_err(Error::Ssh)
    };
    let mut status = try_once()?;
    for _ in 1..TRIES {
        if status.code() == Some(REFUSED) {
            status = try_once()?;
        }
    }
    if !status.success() {
        return Err(Error::Unfinished {
            profile: profile.name().clone(),
            generation: next.generation,
            why: ended(status),
        });
    }
    let done = Profile {
        invitation: next.clone(),
        next: None,
        begun: None,
        falls_back: profile.falls_back,
    };
    profiles.replace(&done)?;
    note(&format!(
        "profile {} has a new secret, generation {}; the old one has ended",
        profile.name(),
        next.generation
    ));
    if profile.invitation.services != next.services {
        hint("what it may open has changed: oneknock show tells");
    }
    Ok(())
}

fn ended(status: ExitStatus) -> String {
    match status.code() {
        Some(255) => "ssh did not get in, or the connection broke".into(),
        Some(code) => format!("the server's command ended with status {code}"),
        None => "ssh was killed".into(),
    }
}

fn command(
    profile: &Profile,
    wanted: &Rotate,
    knocks: Knocks,
    order: &str,
) -> Result<Command, Error> {
    let to = Destination {
        user: wanted.user.clone(),
        profile: profile.name().clone(),
    };
    let own = [
        // A connection that stands already would prove nothing.
        "ControlMaster=no",
        "ControlPath=none",
        // What the person has for sessions of his own stands in the way of a command.
        "RemoteCommand=none",
        "RequestTTY=no",
    ];
    let own = own.iter().flat_map(|option| ["-o", option]);
    let mut options: Vec<OsString> = own.map(OsString::from).collect();
    options.extend(wanted.more.iter().cloned());
    let words = SshWords {
        options,
        to,
        rest: vec![order.into()],
        family: None,
    };
    let mut ssh = ssh::command(profile, &words, knocks)?;
    ssh.stdin(Stdio::null());
    Ok(ssh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_has_ended_only_where_the_server_says_so() {
        let shown = |state: &str| {
            format!(
                r#"{{"key":"laptop","generations":[{{"number":2,"state":"{state}","made":null}}]}}"#
            )
        };
        for (answer, want) in [
            (shown("expired"), true),
            (shown("active"), false),
            (shown("retiring"), false),
            (shown("not-yet-valid"), false),
            (r#"{"generations":[]}"#.into(), true),
            (
                r#"{"generations":[{"number":3,"state":"active"}]}"#.into(),
                true,
            ),
            (String::new(), false),
            ("{}".into(), false),
            ("sudo: a password is required".into(), false),
        ] {
            assert_eq!(is_ended(answer.as_bytes(), 2), want, "{answer}");
        }
    }
}
