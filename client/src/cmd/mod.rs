//! What each command does and prints. Results go to standard output, all else that is
//! said to standard error.

mod close;
mod doctor;
mod hold;
mod import;
mod list;
mod many;
mod open;
mod proxy;
mod rotate;
mod sequence;
mod show;
mod view;

use crate::cli::Command;
use crate::error::Error;
use crate::knock::address::{self, AddressArg, AddressBinding};
use crate::knock::resolve::Family;
use crate::knock::sequence::Via;
use crate::profile::Profile;
use crate::profile::state::StateDir;
use crate::profile::store::ProfileStore;
use crate::ssh::{self, SshWords};
use crate::ui::message::note;
use oneknock_shared::invitation::AddressRule;
use oneknock_shared::knock::is_admissible;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

/// The version of what `--json` prints; members are added without a new one.
const JSON_VERSION: u32 = 1;

/// How long `close` and `proxy`, which have no option for it, take at most for the name
/// and for the profile, each.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a command; gives the exit status of success.
pub fn run(command: Command) -> Result<ExitCode, Error> {
    let profiles = ProfileStore::of_this_user()?;
    match command {
        Command::Import {
            name,
            replace,
            file,
        } => import::run(&profiles, name, replace, file.as_deref())?,
        Command::List { json } => list::run(&profiles, json)?,
        Command::Show { name, json } => show::run(&profiles, &name, json)?,
        Command::Remove { name } => {
            profiles.remove(&name)?;
            StateDir::of_this_user().remove(&name);
            note(&format!("removed profile {name}"));
        }
        Command::Open(mut wanted) => {
            // Several lines that are written over would be in each other's way.
            wanted.quiet |= wanted.names.len() > 1;
            let names = wanted.names.clone();
            many::run(&profiles, &names, |profile| {
                let wanted = wanted.clone();
                async move { open::run(&profile, &wanted).await }
            })?;
        }
        Command::Hold(wanted) => {
            let (end, ended) = tokio::sync::watch::channel(false);
            let names = wanted.names.clone();
            let mut end = Some(end);
            many::run(&profiles, &names, move |profile| {
                // The first one listens for signals, for all of them.
                if let Some(end) = end.take() {
                    tokio::spawn(hold::until_asked_to_end(end));
                }
                hold::run(profile, wanted.clone(), ended.clone())
            })?;
        }
        Command::Sequence(wanted) => in_runtime(sequence::run(&wanted))?,
        Command::Close(wanted) => {
            let names = wanted.names.clone();
            many::run(&profiles, &names, |profile| {
                let wanted = wanted.clone();
                async move { close::run(&profile, &wanted).await }
            })?;
        }
        Command::Proxy(mut wanted) => {
            let mut profile = profiles.load(&wanted.name)?;
            if wanted.next {
                let none = || Error::NoNext(wanted.name.clone());
                profile.invitation = profile.next.take().ok_or_else(none)?;
                // A sequence says nothing of the new generation.
                wanted.via = Via::Packet;
            }
            proxy::run(&profile, &wanted)?;
        }
        Command::Doctor { name, json } => {
            let profile = profiles.load(&name)?;
            let (said, is_open) = in_runtime(doctor::examine(&profile, json))?;
            print(&said)?;
            return Ok(ExitCode::from(u8::from(!is_open)));
        }
        Command::Rotate(wanted) => rotate::rotate(&profiles, &wanted)?,
        Command::Ssh { via, words } => {
            let words = SshWords::read(&words)?;
            let profile = profiles.for_destination(&words.to.profile)?;
            return ssh::run(&profile, &words, via);
        }
        Command::SshConfig { name } => print(&ssh::configuration(&profiles.load(&name)?)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// One JSON object, on a line of its own.
fn to_json(object: &serde_json::Value) -> String {
    format!("{object}\n")
}

/// What a command prints that was to print JSON, and failed.
#[must_use]
pub fn error_json(error: &Error) -> String {
    to_json(&serde_json::json!({
        "version": JSON_VERSION,
        "error": {
            "code": error.code(),
            "message": error.to_string(),
            "hints": error.hints(),
        },
    }))
}

/// `println!` would panic where nobody reads any more.
fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|why| match why.kind() {
        io::ErrorKind::BrokenPipe => Error::ClosedPipe,
        _ => Error::System {
            what: "cannot write to standard output",
            why,
        },
    })
}

fn in_runtime<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let failed = |why| Error::System {
        what: "cannot wait for the network",
        why,
    };
    let runtime = runtime.map_err(failed)?;
    let result = runtime.block_on(work);
    // A name that is still being looked up must not hold the program up.
    runtime.shutdown_background();
    result
}

fn services(profile: &Profile) -> String {
    let names = profile
        .invitation
        .services
        .iter()
        .map(|s| s.name.to_string());
    names.collect::<Vec<_>>().join(", ")
}

/// What is said about the address, within what can be.
fn signing(
    profile: &Profile,
    choice: AddressArg,
    rule: fn(AddressArg, AddressRule) -> Option<AddressBinding>,
) -> Result<AddressBinding, Error> {
    match choice {
        AddressArg::Given(ip) if !is_admissible(ip) => Err(Error::Inadmissible(ip)),
        _ => rule(choice, profile.invitation.address)
            .ok_or_else(|| Error::SourceRefused(profile.name().clone())),
    }
}

/// The local address to send from where one was given, and the family that it demands.
fn bound(choice: AddressArg, family: Family) -> Result<(Option<IpAddr>, Family), Error> {
    let AddressArg::Given(ip) = choice else {
        return Ok((None, family));
    };
    if !address::is_here(ip) {
        return Ok((None, family));
    }
    match (ip.is_ipv4(), family) {
        (true, Family::V6) => Err(Error::OtherFamily {
            address: ip,
            family: "IPv6",
        }),
        (false, Family::V4) => Err(Error::OtherFamily {
            address: ip,
            family: "IPv4",
        }),
        (true, _) => Ok((Some(ip), Family::V4)),
        (false, _) => Ok((Some(ip), Family::V6)),
    }
}
