//! `oneknockctl status`, `grants`, `reload`, `why`, `metrics` and
//! `teardown`: what a running daemon is asked.

use super::ask::{NoAnswer, ask, stands_alone};
use super::{Failure, check, clocks, print, say, words};
use crate::config::{self, Usable};
use crate::control::answers::{Grant, Grants, Refusals, Reloaded, Status, TornDown, Walked};
use crate::control::protocol::{Command, Who};
use crate::files::Owner;
use crate::firewall::{self, Firewall};
use crate::gate::Held;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|e| Failure::new("answer", e))?;
    print(&text)
}

pub fn status(dir: &Path, as_json: bool) -> Result<(), Failure> {
    let answer = ask(dir, &Command::Status);
    if matches!(answer, Err(NoAnswer::NoDaemon(_))) {
        say_of_sequence_alone();
    }
    let status: Status = answer?;
    if as_json {
        return json(&status);
    }
    print(&words::status(&status))?;
    say_of_sequence_alone();
    Ok(())
}

/// Of other rules of this program's that no daemon keeps: root can see them.
fn say_of_sequence_alone() {
    if stands_alone() {
        say(words::sequence_alone());
    }
}

/// Who is admitted.
struct Listed {
    grants: Vec<Grant>,
    sequence: Vec<Walked>,
}

pub fn grants(dir: &Path, as_json: bool) -> Result<(), Failure> {
    match listed_by_daemon(dir) {
        Ok(listed) => show(&listed, as_json),
        Err(error @ NoAnswer::NoDaemon(_)) => {
            // What stands in the kernel needs no daemon.
            if let Some(listed) = listed_by_kernel(dir) {
                show(&listed, as_json)?;
            }
            Err(error.into())
        }
        Err(no) => Err(no.into()),
    }
}

/// More than any server has.
const MOST_GRANTS: usize = 1_000_000;

fn listed_by_daemon(dir: &Path) -> Result<Listed, NoAnswer> {
    let (mut grants, mut sequence) = (Vec::new(), Vec::new());
    let mut after = None;
    loop {
        let part: Grants = ask(dir, &Command::Grants(after.clone()))?;
        sequence.extend(part.sequence);
        let last = part.grants.last().and_then(Grant::place);
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
fn listed_by_kernel(dir: &Path) -> Option<Listed> {
    let config = config::load_config(dir, Owner::wanted()).ok()?;
    let mut firewall = Firewall::open().ok()?;
    firewall.check_free(&config).ok()?;
    let grants = firewall.admitted(&config).ok()?.into_iter().map(|one| {
        let (key, place, left) = (Arc::new(one.key), one.place, one.left);
        Grant::of(&Held { key, place, left })
    });
    let service = config.sequence.as_ref().map(|sequence| sequence.service);
    let walked = firewall.walked(&config).unwrap_or_default();
    let walked = walked.into_iter().zip(service.iter().cycle());
    let listed = Listed {
        grants: grants.collect(),
        sequence: walked.map(|(who, of)| Walked::new(*of, who)).collect(),
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
    let mut lines = lines.chain(sequence.iter().map(words::walked));
    lines.try_for_each(|line| print(&line))
}

pub fn reload(dir: &Path) -> Result<(), Failure> {
    // Root can see what was in force till now.
    let before = config::kept_config(dir);
    let answer = ask(dir, &Command::Reload);
    if matches!(answer, Err(NoAnswer::Refused { .. })) {
        check::warn_of_next_start(dir);
    }
    let Reloaded { services, keys } = answer?;
    say(format_args!(
        "the daemon has taken it: services {services}, keys {keys}"
    ));
    check::warn_of_what_is_in_force(dir);
    check::warn_of_next_start(dir);
    let after = config::load_config(dir, Owner::wanted()).ok();
    let changed = before.zip(after);
    let changed = changed.map(|(before, after)| after.changed_for_clients(&before));
    if let Some(changed) = changed.filter(|changed| !changed.is_empty()) {
        say(format_args!(
            "warning: invitations that were given out before say otherwise now: {}",
            changed.join(", ")
        ));
        say(format_args!(
            "hint: every client needs a new one: {} key invite NAME",
            config::ctl_command(dir)
        ));
    }
    Ok(())
}

pub fn why(dir: &Path, who: Option<&Who>, as_json: bool) -> Result<(), Failure> {
    let refusals: Refusals = ask(dir, &Command::Why(who.cloned()))?;
    if as_json {
        return json(&refusals);
    }
    if refusals.waits_for_clock {
        say(format_args!("{}", words::WAITS));
    }
    let mut known = refusals.refusals;
    let mut strangers = refusals.unknown.len();
    let mut hint = None;
    let left_out = ask::<Status>(dir, &Command::Status).map_or(Vec::new(), |s| s.left_out);
    if !left_out.is_empty() {
        say(format_args!("{}", words::left_out(&left_out)));
    }
    if let Ok(Usable { settings, .. }) = Usable::load(dir) {
        let (found, left) = clocks::find(&settings, &refusals.unknown);
        let found = found.into_iter().filter(|refused| match who {
            Some(Who::Key(key)) => refused.last.key == key.as_str(),
            _ => true,
        });
        known.extend(found);
        strangers = left;
        if let Some(Who::Key(name)) = who
            && known.is_empty()
            && !settings.keys.iter().any(|key| key.name == *name)
            && !left_out.contains(&format!("{name}.toml"))
        {
            return Err(super::no_key(dir, name));
        }
    } else if strangers > 0 {
        hint = Some("who can read the keys is told which of these have a wrong clock");
    }
    known.sort_by_key(|refused| std::cmp::Reverse(refused.last.at_ms));
    known
        .iter()
        .try_for_each(|refused| print(&words::refused(refused)))?;
    if strangers > 0 && !matches!(who, Some(Who::Key(_))) {
        say(format_args!(
            "lately also packets of no key of this server: {strangers}"
        ));
    }
    if strangers > 0 {
        hint = hint.or(Some(
            "a client looks like a stranger whose key was removed, or whose secret was rotated away with --now: bring a fresh invitation (key invite) there, and: oneknock import --replace",
        ));
    }
    if known.is_empty() && !refusals.waits_for_clock {
        let whose = who.map_or(String::new(), |who| format!(" of {who}"));
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

pub fn metrics(dir: &Path) -> Result<(), Failure> {
    let status: Option<Status> = match ask(dir, &Command::Status) {
        Ok(status) => Some(status),
        Err(NoAnswer::NoDaemon(_)) => None,
        Err(no) => return Err(no.into()),
    };
    print(&words::metrics(status.as_ref()))
}

pub fn teardown(dir: &Path) -> Result<(), Failure> {
    let (was_up, who) = match ask(dir, &Command::Teardown) {
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
    if !firewall::has_net_admin() {
        let what = "the guard can be taken down by root alone";
        return Err(Failure::needs_root(what.into()));
    }
    let failed = |error| Failure::new("the guard is still up", error);
    let was_up = firewall::teardown().map_err(failed)?;
    let start = Instant::now();
    while was_up && start.elapsed() < BACK_WITHIN {
        let mut firewall = Firewall::open().map_err(failed)?;
        if firewall.is_up().map_err(failed)? {
            let what = "the guard is up again: a daemon runs that was not found, and puts it back";
            let hint = "end that oneknockd, then again; \"pidof oneknockd\" finds it";
            return Err(Failure::Failed(what.into(), Some(hint.into())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(was_up)
}
