//! `oneknockctl grants`.

use super::ask::{NoAnswer, ask};
use super::output::{print_json, print_lines, table};
use super::words::span;
use super::{Failure, look};
use crate::config::{self, Paths};
use crate::control::answers::{GrantList, ListedGrant, MOST_LISTED, SequenceGrant, whole_seconds};
use crate::control::protocol::Command;
use crate::kernel::Kernel;
use serde::Serialize;

/// More than any server has.
const MOST_GRANTS: usize = 1_000_000;

/// What is open.
#[derive(Debug, Serialize)]
struct Listed {
    grants: Vec<ListedGrant>,
    sequence: Vec<SequenceGrant>,
    sequence_truncated: bool,
}

pub fn grants(paths: &Paths, as_json: bool) -> Result<(), Failure> {
    match listed_by_daemon(paths) {
        Ok(listed) => show(&listed, as_json),
        Err(no @ NoAnswer::NoDaemon(_)) => {
            // The kernel's allow entries need no daemon.
            let Some(listed) = listed_by_kernel(paths) else {
                return Err(no.into());
            };
            show(&listed, as_json)?;
            let failure = Failure::from(no);
            failure.say();
            Err(Failure::Ended(failure.exit()))
        }
        Err(no) => Err(no.into()),
    }
}

fn listed_by_daemon(paths: &Paths) -> Result<Listed, NoAnswer> {
    let (mut grants, mut sequence) = (Vec::new(), Vec::new());
    let mut after = None;
    loop {
        let command = Command::Grants {
            after: after.clone(),
        };
        let part: GrantList = ask(paths, &command)?;
        sequence.extend(part.sequence);
        let last = part.grants.last().and_then(ListedGrant::cursor);
        grants.extend(part.grants);
        if !part.more || last.is_none() {
            let sequence_truncated = sequence.len() >= MOST_LISTED;
            return Ok(Listed {
                grants,
                sequence,
                sequence_truncated,
            });
        }
        // One that was taken over could go on for ever.
        if last <= after || grants.len() > MOST_GRANTS {
            let count = grants.len();
            let what = format!("the daemon's list of grants does not end: {count} so far");
            let hint = "the kernel's own list: nft list table inet oneknock";
            return Err(NoAnswer::Failed(Failure::Failed(what, Some(hint.into()))));
        }
        after = last;
    }
}

/// As far as this user may see, and anything is open. Of an address that several keys have
/// opened, the kernel names one.
fn listed_by_kernel(paths: &Paths) -> Option<Listed> {
    let config = config::load_main(paths).ok()?.config;
    let look = look::look().ok()?;
    look.check_not_foreign(&config.server_id.to_hex()).ok()?;
    let mut kernel = Kernel::open().ok()?;
    let services: Vec<_> = config.services.iter().map(|service| service.name).collect();
    let entries = kernel.allow_entries(&services).ok()?.into_iter();
    let grants = entries.map(|entry| ListedGrant {
        key: entry.key.to_string(),
        address: entry.target.source.address(),
        service: entry.target.service.to_string(),
        seconds: whole_seconds(entry.remaining),
    });
    let service = config.sequence.as_ref().map(|sequence| sequence.service);
    let by_sequence = service.map(|service| {
        let listed = kernel.sequence_grants(service).unwrap_or_default();
        let grant = |(address, remaining)| SequenceGrant {
            address,
            service: service.to_string(),
            seconds: whole_seconds(remaining),
        };
        listed.into_iter().map(grant).collect()
    });
    let listed = Listed {
        grants: grants.collect(),
        sequence: by_sequence.unwrap_or_default(),
        sequence_truncated: false,
    };
    (!listed.grants.is_empty() || !listed.sequence.is_empty()).then_some(listed)
}

fn show(listed: &Listed, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return print_json(listed);
    }
    let sequence = listed.sequence.iter().map(|grant| ListedGrant {
        // No key has such a name.
        key: "(port sequence)".into(),
        address: grant.address,
        service: grant.service.clone(),
        seconds: grant.seconds,
    });
    let all = listed.grants.iter().cloned().chain(sequence);
    print_lines(&grant_table(all))?;
    if listed.sequence_truncated {
        print_lines(&["(the port sequence may have admitted more)".into()])?;
    }
    Ok(())
}

/// A heading, and a line for each.
pub fn grant_table(grants: impl IntoIterator<Item = ListedGrant>) -> Vec<String> {
    let head = ["KEY", "ADDRESS", "SERVICE", "LEFT"].map(str::to_owned);
    let row = |grant: ListedGrant| {
        let left = span(grant.seconds);
        [grant.key, grant.address.to_string(), grant.service, left]
    };
    let rows: Vec<[String; 4]> = std::iter::once(head)
        .chain(grants.into_iter().map(row))
        .collect();
    table(&rows)
}
