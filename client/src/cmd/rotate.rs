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
use crate::profile::state::StateDir;
use crate::profile::store::{MAX_LEN, ProfileStore};
use crate::ssh::{self, Destination, Knocks, SshWords};
use crate::ui::message::{hint, note, warning};
use oneknock_shared::invitation::Invitation;
use serde::Deserialize;
use std::ffi::OsString;
use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use zeroize::Zeroizing;

/// How often the old generation's end is asked for: where an earlier knock has left the
/// profile open, a knock with the new one that was lost is noticed only by the server.
const TRIES: usize = 3;
/// The statuses with which oneknockctl refuses: wrong usage, and what needs --force.
const REFUSED: [i32; 2] = [2, 5];

/// Rotates the key of a profile.
pub fn rotate(profiles: &ProfileStore, wanted: &Rotate) -> Result<(), Error> {
    // Without the profile there is nothing to lock.
    profiles.load(&wanted.name)?;
    let _lock = profiles.lock(&wanted.name)?;
    let mut profile = profiles.load(&wanted.name)?;
    if let Some(next) = &profile.next {
        let number = next.generation;
        note(&format!("completing the rotation to generation {number}"));
        match finish(profiles, &profile, wanted) {
            Err(error @ Error::Unfinished { .. }) if has_ended(&profile, next, wanted)? => {
                warning(&error.to_string());
                note("asking for another generation");
            }
            other => return other,
        }
    }
    // The old one has an end from when the server is asked, and the answer may get lost.
    let before = profile.begun;
    profile.begun = before.or(packet::now().ok());
    profiles.replace(&profile)?;
    let state = StateDir::of_this_user();
    state.keep_error(profile.name(), "");
    match ask(&profile, wanted) {
        Ok(next) => profile.next = Some(next),
        Err(error) => {
            // Without ssh, or where the port did not open, the server was asked for nothing.
            let is_unasked =
                matches!(error, Error::Ssh(_)) || state.last_error(profile.name()).is_some();
            if is_unasked {
                profile.begun = before;
                profiles.replace(&profile)?;
            }
            return Err(error);
        }
    }
    profiles.replace(&profile)?;
    finish(profiles, &profile, wanted)
}

/// The invitation in what the server printed, whatever a login prints before it.
fn find_invitation(answer: impl Read) -> Result<Invitation, String> {
    let failed = |why: std::io::Error| format!("cannot read the server's answer: {why}");
    // At its final size from the start: bytes that grow leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_LEN + 1));
    let limit = MAX_LEN as u64;
    answer.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    let mut lines = bytes.split(|&b| b == b'\n').map(<[u8]>::trim_ascii);
    let line = lines.find(|line| line.starts_with(b"oneknock1:"));
    let line = line.ok_or("the server's answer holds no invitation")?;
    import::read(line, "the server's answer").map_err(|why| why.to_string())
}

/// Has the server make a new generation.
fn ask(profile: &Profile, wanted: &Rotate) -> Result<Invitation, Error> {
    let key = &profile.invitation.key;
    let order = format!("{} key rotate {key}", wanted.command);
    let mut ssh = command(profile, wanted, Knocks::WithAll(Via::Auto), &order)?;
    let mut child = ssh.stdout(Stdio::piped()).spawn().map_err(Error::Ssh)?;
    let answer = child.stdout.take().map(find_invitation);
    let status = child.wait().map_err(Error::Ssh)?;
    let failed = |why: String| Error::NotRotated {
        profile: profile.name().clone(),
        why,
    };
    if !status.success() {
        return Err(failed(ended(status)));
    }
    let next = answer.unwrap_or_else(|| Err("the server said nothing".into()));
    let next = next.map_err(failed)?;
    let of = &profile.invitation;
    if next.server_id != of.server_id || next.key != of.key {
        return Err(failed("the server's answer is for another key".into()));
    }
    if next.generation <= of.generation {
        return Err(failed("the server's answer is no newer generation".into()));
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
        if status.code().is_some_and(|code| REFUSED.contains(&code)) {
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
        "rotated the key of profile {} to generation {}; the old one has ended",
        profile.name(),
        next.generation
    ));
    if profile.invitation.services != next.services {
        hint(&format!(
            "its services have changed: oneknock show {}",
            profile.name()
        ));
    }
    Ok(())
}

fn ended(status: ExitStatus) -> String {
    match status.code() {
        Some(255) => "ssh could not connect or log in (exit status 255)".into(),
        Some(code) => format!("the command on the server ended with exit status {code}"),
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
    fn a_greeting_does_not_hide_the_answer() {
        let rows = include_str!("../../../shared/tests/data/invitations.json");
        let mut texts = rows.split('"');
        let line = texts.find(|text| text.starts_with("oneknock1:")).unwrap();
        for answer in [line.to_string(), format!("welcome\r\n\r\n{line}\r\n")] {
            assert!(find_invitation(answer.as_bytes()).is_ok(), "{answer}");
        }
        assert!(find_invitation(&b"welcome\n"[..]).is_err());
        assert!(find_invitation(&line.as_bytes()[..40]).is_err());
    }

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
