//! `oneknockctl key list` and `key show`.

use super::folder::Folder;
use super::life::{Life, State};
use crate::clock::date;
use crate::config::{Key, ctl_command};
use crate::control::answers::Status;
use crate::control::protocol::Command;
use crate::ctl::ask::{NoAnswer, ask, guard};
use crate::ctl::history::{print_lines, table};
use crate::ctl::{Failure, print, say, words};
use crate::files;
use crate::ledger::Use;
use humantime::format_duration;
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::KeyName;
use oneknock_shared::secret::GenerationId;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

type Uses = BTreeMap<GenerationId, Use>;

/// Without a state nothing is known of the use; that is said, and the keys are shown.
fn uses(folder: &Folder<'_>) -> Uses {
    folder.uses().unwrap_or_else(|failure| {
        if let Failure::Failed(what, _) = failure {
            say(format_args!("oneknockctl: {what}"));
        }
        Uses::new()
    })
}

/// Whether the daemon has a key's file as it is now; unknown where none answers.
struct InForce {
    read_ms: Option<u64>,
    /// Files that it has left out from its start on.
    left_out: Vec<String>,
}

impl InForce {
    fn ask(dir: &Path) -> Self {
        match ask::<Status>(dir, &Command::Status) {
            Ok(status) => Self {
                read_ms: Some(status.read_ms),
                left_out: status.left_out,
            },
            Err(NoAnswer::NoDaemon(_)) => {
                say(format_args!("no daemon runs{}", guard()));
                Self::unknown()
            }
            // Who may read the keys need not be one who may ask the daemon.
            Err(_) => Self::unknown(),
        }
    }

    fn unknown() -> Self {
        Self {
            read_ms: None,
            left_out: Vec::new(),
        }
    }

    fn is_left_out(&self, key: &Key) -> bool {
        self.left_out.contains(&format!("{}.toml", key.name))
    }

    fn of(&self, folder: &Folder<'_>, key: &Key) -> Option<bool> {
        let changed = files::changed_ms(&folder.path(&key.name))?;
        let is_read = |read| changed <= read && !self.is_left_out(key);
        self.read_ms.map(is_read)
    }

    /// Whether a file came to the keys, or went, since the daemon has read them.
    fn lacks_a_change(&self, folder: &Folder<'_>) -> bool {
        let changed = files::changed_ms(&files::key_folder(folder.dir));
        self.read_ms
            .zip(changed)
            .is_some_and(|(read, changed)| changed > read)
    }
}

pub fn list(dir: &Path, as_json: bool) -> Result<(), Failure> {
    let folder = Folder::open(dir)?;
    let (keys, mistakes) = folder.load_all()?;
    let (uses, now) = (uses(&folder), Folder::now());
    let in_force = InForce::ask(dir);
    if !in_force.left_out.is_empty() {
        say(format_args!("{}", words::left_out(&in_force.left_out)));
    }
    let is_unread = |key: &Key| in_force.of(&folder, key) == Some(false);
    let unread = |key: &&Key| is_unread(key) && !in_force.is_left_out(key);
    let unread: Vec<&str> = keys
        .iter()
        .filter(unread)
        .map(|k| k.name.as_str())
        .collect();
    if !unread.is_empty() {
        say(format_args!(
            "not in force as it stands here, since its file is newer than what the daemon has read: {}",
            unread.join(", ")
        ));
        say(format_args!("hint: {} reload", ctl_command(dir)));
    } else if in_force.left_out.is_empty() && in_force.lacks_a_change(&folder) {
        say(
            "a key may have been removed and be in force still: the folder of keys is newer than what the daemon has read",
        );
        say(format_args!("hint: {} reload", ctl_command(dir)));
    }
    if as_json {
        let describe = |key| {
            let mut value = describe(&folder, key, &uses, now);
            value["in_force"] = json!(in_force.of(&folder, key));
            value
        };
        let keys: Vec<Value> = keys.iter().map(describe).collect();
        print(&json!({ "keys": keys }).to_string())?;
    } else {
        let head = [
            "KEY",
            "GENERATION",
            "STATE",
            "MADE",
            "LAST USED",
            "FROM",
            "SERVICES",
        ];
        let mut rows = vec![head.map(str::to_owned)];
        for key in &keys {
            rows.extend(rows_of(&folder, key, &uses, now));
        }
        print_lines(&table(&rows))?;
    }
    if mistakes.is_empty() {
        Ok(())
    } else {
        Err(Failure::Mistakes(mistakes))
    }
}

fn services(key: &Key) -> Vec<String> {
    key.policy
        .services
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn date_or(at: Option<Timestamp>, without: &str) -> String {
    at.map_or(without.into(), date)
}

fn rows_of(folder: &Folder<'_>, key: &Key, uses: &Uses, now: Timestamp) -> Vec<[String; 7]> {
    let life = Life::of(key, &folder.config.server_id, uses);
    let row = |at: usize| {
        let known = &life.0[at];
        [
            key.name.to_string(),
            known.generation.number.to_string(),
            life.state(at, now).to_string(),
            date_or(known.generation.made, "-"),
            date_or(known.used.last, "never"),
            known.used.from.map_or("-".into(), |from| from.to_string()),
            services(key).join(","),
        ]
    };
    (0..life.0.len()).map(row).collect()
}

/// All but the secrets. Times are dates in UTC.
fn describe(folder: &Folder<'_>, key: &Key, uses: &Uses, now: Timestamp) -> Value {
    let life = Life::of(key, &folder.config.server_id, uses);
    let generations = (0..life.0.len()).map(|at| {
        let (known, state) = (&life.0[at], life.state(at, now));
        let until = match state {
            State::Active(end) => end,
            State::Retiring(end) | State::Expired(end) => Some(end),
            State::NotYet(_) => known.generation.end(),
        };
        json!({
            "number": known.generation.number,
            "state": state.word(),
            "made": known.generation.made.map(date),
            "not_before": known.generation.not_before.map(date),
            "until": until.map(date),
            "used": known.used.last.map(date),
            "used_from": known.used.from,
        })
    });
    let policy = &key.policy;
    json!({
        "key": key.name.as_str(),
        "services": services(key),
        "max_open_for": policy.max_open_for.map(|max| max.as_secs()),
        "signed_address": policy.signed_address,
        "admit_others": policy.admit_others,
        "grants": policy.grants,
        "knocks_per_minute": policy.knocks_per_minute,
        "generations": generations.collect::<Vec<_>>(),
    })
}

pub fn show(dir: &Path, name: &KeyName, as_json: bool) -> Result<(), Failure> {
    let folder = Folder::open(dir)?;
    let key = folder.load(name)?;
    let (uses, now) = (uses(&folder), Folder::now());
    if as_json {
        return print(&describe(&folder, &key, &uses, now).to_string());
    }
    let policy = &key.policy;
    let word = |is: bool| if is { "yes" } else { "no" };
    let longest = match policy.max_open_for {
        Some(max) => format_duration(max).to_string(),
        None => "as long as the service allows".into(),
    };
    print(&format!(
        "key {name}: services {}\n\
         opens for at most: {longest}\n\
         address must be signed: {}; may admit others: {}\n\
         live grants at most {}, knocks a minute at most {}",
        services(&key).join(", "),
        word(policy.signed_address),
        word(policy.admit_others),
        policy.grants,
        policy.knocks_per_minute,
    ))?;
    let life = Life::of(&key, &folder.config.server_id, &uses);
    for (at, known) in life.0.iter().enumerate() {
        let made = known
            .generation
            .made
            .map(|at| format!(", made {}", date(at)));
        let last_use = match (known.used.last, known.used.from) {
            (Some(last), Some(from)) => format!("last used {} from {from}", date(last)),
            (Some(last), None) => format!("last used {}", date(last)),
            (None, _) => "never used".into(),
        };
        print(&format!(
            "generation {}: {}{}, {last_use}",
            known.generation.number,
            life.state(at, now),
            made.unwrap_or_default(),
        ))?;
    }
    Ok(())
}
