//! `oneknockctl status`, `grants`, `reload`, `why`, `metrics` and
//! `teardown`: what a running daemon is asked.

use super::ask::{NoAnswer, ask, stands_alone};
use super::offline::kernel_failure;
use super::words::{self, State};
use super::{Failure, check, clocks, look, print, say};
use crate::config::{self, Loaded, Paths, enabled, last_good};
use crate::control::answers::{
    GrantList, ListedGrant, Rejections, Reloaded, SequenceGrant, Status, TornDown, whole_seconds,
};
use crate::control::protocol::{Command, Selection};
use crate::kernel::{Kernel, KernelError};
use serde::Serialize;
use std::time::{Duration, Instant};

fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|e| Failure::new("answer", e))?;
    print(&text)
}

pub fn status(paths: &Paths, as_json: bool) -> Result<(), Failure> {
    let answer = ask(paths, &Command::Status);
    if matches!(answer, Err(NoAnswer::NoDaemon(_))) {
        say_of_sequence_alone();
    }
    let status: Status = answer?;
    if as_json {
        json(&status)?;
        return enforces(&status);
    }
    print(&words::status(&status, paths))?;
    warn_of_marker(paths, status.enforcing);
    say_of_sequence_alone();
    enforces(&status)
}

/// Whether the guard enforces, as an exit status.
fn enforces(status: &Status) -> Result<(), Failure> {
    match State::of(status.enforcing, status.trial.as_ref()) {
        State::Enforcing => Ok(()),
        other => Err(Failure::Answered(other.code())),
    }
}

/// The next start of the daemon goes by the marker, whatever this run does.
fn warn_of_marker(paths: &Paths, enforcing: bool) {
    let (marker, ctl) = (paths.enabled(), paths.ctl());
    let marker = marker.display();
    if enforcing && !enabled::is_set(paths) {
        say(format_args!(
            "warning: {marker} is missing: after its next start the daemon does not enforce"
        ));
        say(format_args!("hint: {ctl} enable"));
    } else if !enforcing && enabled::is_set(paths) {
        say(format_args!(
            "warning: {marker} is there: after its next start the daemon enforces"
        ));
        say(format_args!("hint: {ctl} enable, or: {ctl} disable"));
    }
}

/// Of other rules of this program's that no daemon keeps: root can see them.
fn say_of_sequence_alone() {
    if stands_alone() {
        say(words::sequence_alone());
    }
}

/// Who is admitted.
struct Listed {
    grants: Vec<ListedGrant>,
    sequence: Vec<SequenceGrant>,
}

pub fn grants(paths: &Paths, as_json: bool) -> Result<(), Failure> {
    match listed_by_daemon(paths) {
        Ok(listed) => show(&listed, as_json),
        Err(error @ NoAnswer::NoDaemon(_)) => {
            // What stands in the kernel needs no daemon.
            if let Some(listed) = listed_by_kernel(paths) {
                show(&listed, as_json)?;
            }
            Err(error.into())
        }
        Err(no) => Err(no.into()),
    }
}

/// More than any server has.
const MOST_GRANTS: usize = 1_000_000;

fn listed_by_daemon(paths: &Paths) -> Result<Listed, NoAnswer> {
    let (mut grants, mut sequence) = (Vec::new(), Vec::new());
    let mut after = None;
    loop {
        let part: GrantList = ask(
            paths,
            &Command::Grants {
                after: after.clone(),
            },
        )?;
        sequence.extend(part.sequence);
        let last = part.grants.last().and_then(ListedGrant::cursor);
        grants.extend(part.grants);
        if !part.more || last.is_none() {
            return Ok(Listed { grants, sequence });
        }
        // One that was taken over could go on for ever.
        if last <= after || grants.len() > MOST_GRANTS {
            let what = format!(
                "the daemon lists its grants without an end: {} so far",
                grants.len()
            );
            let hint =
                "\"nft list table inet oneknock\" says who is admitted, as the kernel has it";
            return Err(NoAnswer::Failed(Failure::Failed(what, Some(hint.into()))));
        }
        after = last;
    }
}

/// As far as this user may see, and there is anybody. Of an address that several keys admit
/// the kernel names one.
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
    };
    (!listed.grants.is_empty() || !listed.sequence.is_empty()).then_some(listed)
}

fn show(listed: &Listed, as_json: bool) -> Result<(), Failure> {
    let Listed { grants, sequence } = listed;
    if as_json {
        let mut object = serde_json::json!({ "grants": grants });
        if !sequence.is_empty() {
            object["sequence"] = serde_json::json!(sequence);
        }
        return json(&object);
    }
    print(words::GRANTS_HEAD)?;
    let lines = grants.iter().map(words::grant);
    let mut lines = lines.chain(sequence.iter().map(words::sequence_grant));
    lines.try_for_each(|line| print(&line))
}

pub fn reload(paths: &Paths) -> Result<(), Failure> {
    // Root can see what was in force till now.
    let before = last_good::load(paths).map(|main| main.config);
    let mut answer = ask(paths, &Command::Reload);
    if let Err(NoAnswer::Refused(error)) = &mut answer {
        error.message.insert_str(0, "not reloaded: ");
        check::warn_of_next_start(paths);
    }
    let Reloaded {
        skipped_keys,
        services,
        keys,
    } = answer?;
    say(format_args!(
        "the daemon has reloaded: services {services}, keys {keys}"
    ));
    if !skipped_keys.is_empty() {
        say(words::skipped(&skipped_keys));
        return Err(Failure::Answered(1));
    }
    check::warn_of_what_is_in_force(paths);
    check::warn_of_next_start(paths);
    let after = config::load_main(paths).ok().map(|main| main.config);
    let changed = before.zip(after);
    let changed = changed.map(|(before, after)| after.changed_for_clients(&before));
    if let Some(changed) = changed.filter(|changed| !changed.is_empty()) {
        say(format_args!(
            "warning: invitations that were given out before say otherwise now: {}",
            changed.join(", ")
        ));
        say(format_args!(
            "hint: every client needs a new one: {} key invite NAME",
            paths.ctl()
        ));
    }
    Ok(())
}

pub fn why(paths: &Paths, of: &Selection, as_json: bool) -> Result<(), Failure> {
    let rejections: Rejections = ask(paths, &Command::Rejections { of: of.clone() })?;
    if as_json {
        return json(&rejections);
    }
    if rejections.waits_for_clock {
        say(format_args!("{}", words::WAITS));
    }
    let mut known = rejections.rejections;
    let mut strangers = rejections.unknown.len();
    let mut hint = None;
    let skipped = ask::<Status>(paths, &Command::Status).map_or(Vec::new(), |s| s.skipped_keys);
    if !skipped.is_empty() {
        say(words::skipped(&skipped));
    }
    if let Ok(Loaded { settings, .. }) = Loaded::at_start(paths) {
        let (found, left) = clocks::find(&settings, &rejections.unknown);
        let is_asked = |key: &str| of.key().is_none_or(|of| of.as_str() == key);
        let found = found.into_iter().filter(|one| is_asked(&one.last.key));
        known.extend(found);
        strangers = left;
        if let Some(name) = of.key()
            && known.is_empty()
            && !settings.keys.iter().any(|key| key.name == *name)
            && !skipped.contains(&format!("{name}.toml"))
        {
            return Err(super::no_key(paths, name));
        }
    } else if strangers > 0 {
        hint = Some("who can read the keys is told which of these have a wrong clock");
    }
    known.sort_by_key(|rejected| std::cmp::Reverse(rejected.last.at_ms));
    known
        .iter()
        .try_for_each(|rejected| print(&words::rejected(rejected)))?;
    if strangers > 0 && of.key().is_none() {
        say(format_args!(
            "lately also packets of no key of this server: {strangers}"
        ));
    }
    if strangers > 0 {
        hint = hint.or(Some(
            "a client looks like a stranger whose key was removed, or whose secret was rotated away with --now: bring a fresh invitation (key invite) there, and: oneknock import --replace",
        ));
    }
    if known.is_empty() && !rejections.waits_for_clock {
        let whose = match of {
            Selection::All => String::new(),
            of => format!(" of {of}"),
        };
        say(format_args!(
            "no packet{whose} was refused since the daemon started"
        ));
        hint = hint.or(Some(
            "a knock that neither opens nor is refused did not arrive, or its key is not this server's",
        ));
    }
    if let Some(hint) = hint {
        say(format_args!("hint: {hint}"));
    }
    Ok(())
}

pub fn metrics(paths: &Paths) -> Result<(), Failure> {
    let status: Option<Status> = match ask(paths, &Command::Status) {
        Ok(status) => Some(status),
        Err(NoAnswer::NoDaemon(_)) => None,
        Err(no) => return Err(no.into()),
    };
    print(&words::metrics(status.as_ref()))
}

pub fn teardown(paths: &Paths) -> Result<(), Failure> {
    let (was_up, who) = match ask(paths, &Command::Teardown) {
        Ok(TornDown { was_up }) => (was_up, "; the daemon has ended"),
        // Nobody is there who would put it up again.
        Err(NoAnswer::NoDaemon(_)) => (by_ourselves()?, ""),
        Err(no) => return Err(no.into()),
    };
    if was_up {
        say(format_args!(
            "the guard is down: guarded ports are open to whoever the machine's own rules let in{who}"
        ));
    } else {
        say(format_args!("there was no guard{who}"));
    }
    say_of_sequence_alone();
    Ok(())
}

/// A daemon that watches the guard has put it back by then.
const BACK_WITHIN: Duration = Duration::from_millis(1500);

fn by_ourselves() -> Result<bool, Failure> {
    let failed = |error: KernelError| match error {
        KernelError::Capability => {
            Failure::needs_root("the guard can be taken down by root alone".into())
        }
        error => kernel_failure("the guard is still up", error),
    };
    let was_up = Kernel::open().map_err(failed)?.teardown().map_err(failed)?;
    let start = Instant::now();
    while was_up && start.elapsed() < BACK_WITHIN {
        if look::look().map_err(failed)?.is_installed() {
            let what = "the guard is up again: a daemon runs that was not found, and puts it back";
            let hint = "end that oneknockd, then again; \"pidof oneknockd\" finds it";
            return Err(Failure::Failed(what.into(), Some(hint.into())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(was_up)
}
