//! `oneknockctl key list` and `key show`.

use super::directory::KeyDirectory;
use super::generations::{Generations, State, UsedGeneration};
use crate::clock::date;
use crate::config::{Key, Paths};
use crate::control::answers::LoadedKeys;
use crate::control::protocol::Command;
use crate::ctl::ask::{NoAnswer, ask, guard};
use crate::ctl::output::print_json;
use crate::ctl::output::{print_lines, table};
use crate::ctl::{Failure, print, say, words};
use crate::store::GenerationUse;
use humantime::format_duration;
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::KeyName;
use oneknock_shared::secret::GenerationId;
use serde_json::{Value, json};
use std::collections::BTreeMap;

type Uses = BTreeMap<GenerationId, GenerationUse>;

/// Without a state nothing is known of the use; that is said, and the keys are shown.
fn uses(directory: &KeyDirectory<'_>) -> Uses {
    directory.uses().unwrap_or_else(|failure| {
        if let Failure::Failed(what, _) = failure {
            say(format_args!("oneknockctl: {what}"));
        }
        Uses::new()
    })
}

/// Whether the daemon has a key's file as it is now; unknown where none answers.
struct InForce {
    /// The fingerprint of each key that it has loaded, by the key's name.
    loaded: Option<BTreeMap<String, String>>,
    /// Files that it has skipped.
    skipped: Vec<String>,
}

impl InForce {
    fn ask(paths: &Paths) -> Self {
        match ask::<LoadedKeys>(paths, &Command::Keys) {
            Ok(LoadedKeys { keys, skipped }) => Self {
                loaded: Some(keys),
                skipped,
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
            loaded: None,
            skipped: Vec::new(),
        }
    }

    fn is_skipped(&self, key: &Key) -> bool {
        self.skipped.contains(&format!("{}.toml", key.name))
    }

    fn of(&self, key: &Key) -> Option<bool> {
        let loaded = self.loaded.as_ref()?;
        Some(loaded.get(key.name.as_str()) == Some(&key.fingerprint()))
    }

    /// The keys that the daemon has loaded, and that have no file any more.
    fn without_file(&self, keys: &[Key]) -> Vec<&str> {
        let names = self.loaded.iter().flatten().map(|(name, _)| name.as_str());
        let is_gone = |name: &&str| !keys.iter().any(|key| key.name.as_str() == *name);
        names.filter(is_gone).collect()
    }
}

pub fn list(paths: &Paths, as_json: bool) -> Result<(), Failure> {
    let directory = KeyDirectory::open(paths)?;
    let (keys, errors) = directory.load_all()?;
    let (uses, now) = (uses(&directory), KeyDirectory::now());
    let in_force = InForce::ask(paths);
    if !in_force.skipped.is_empty() {
        say(words::skipped(&in_force.skipped));
    }
    let is_unread = |key: &Key| in_force.of(key) == Some(false);
    let unread = |key: &&Key| is_unread(key) && !in_force.is_skipped(key);
    let unread: Vec<&str> = keys
        .iter()
        .filter(unread)
        .map(|k| k.name.as_str())
        .collect();
    if !unread.is_empty() {
        say(format_args!(
            "warning: the daemon has not loaded these keys as their files are now: {}",
            unread.join(", ")
        ));
        say(format_args!("hint: {} reload", paths.ctl()));
    }
    let gone = in_force.without_file(&keys);
    if !gone.is_empty() && errors.is_empty() {
        say(format_args!(
            "warning: the daemon has loaded keys that have no file any more: {}",
            gone.join(", ")
        ));
        say(format_args!("hint: {} reload", paths.ctl()));
    }
    if as_json {
        let describe = |key| {
            let mut value = describe(&directory, key, &uses, now);
            value["in_force"] = json!(in_force.of(key));
            value
        };
        let keys: Vec<Value> = keys.iter().map(describe).collect();
        print_json(&json!({ "keys": keys }))?;
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
            rows.extend(rows_of(&directory, key, &uses, now));
        }
        print_lines(&table(&rows))?;
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Failure::Config(errors))
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

fn rows_of(
    directory: &KeyDirectory<'_>,
    key: &Key,
    uses: &Uses,
    now: Timestamp,
) -> Vec<[String; 7]> {
    let generations = Generations::of(key, &directory.config.server_id, uses);
    let row = |(one, state): (&UsedGeneration, State)| {
        [
            key.name.to_string(),
            one.generation.number.to_string(),
            state.to_string(),
            date_or(one.generation.made, "-"),
            date_or(one.used.last, "never"),
            one.used.from.map_or("-".into(), |from| from.to_string()),
            services(key).join(","),
        ]
    };
    generations.states(now).map(row).collect()
}

/// All but the secrets. Times are dates in UTC.
fn describe(directory: &KeyDirectory<'_>, key: &Key, uses: &Uses, now: Timestamp) -> Value {
    let generations = Generations::of(key, &directory.config.server_id, uses);
    let generations = generations.states(now).map(|(known, state)| {
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
        "max_duration": policy.max_duration.map(|max| max.as_secs()),
        "require_signed_address": policy.require_signed_address,
        "allow_other_addresses": policy.allow_other_addresses,
        "max_grants": policy.max_grants,
        "knocks_per_minute": policy.knocks_per_minute,
        "generations": generations.collect::<Vec<_>>(),
    })
}

pub fn show(paths: &Paths, name: &KeyName, as_json: bool) -> Result<(), Failure> {
    let directory = KeyDirectory::open(paths)?;
    let key = directory.load(name)?;
    let (uses, now) = (uses(&directory), KeyDirectory::now());
    if as_json {
        return print_json(&describe(&directory, &key, &uses, now));
    }
    let policy = &key.policy;
    let word = |is: bool| if is { "yes" } else { "no" };
    let longest = match policy.max_duration {
        Some(max) => format_duration(max).to_string(),
        None => "as long as the service allows".into(),
    };
    print(&format!(
        "key {name}: services {}\n\
         opens for at most: {longest}\n\
         address must be signed: {}; other addresses allowed: {}\n\
         live grants at most {}, knocks a minute at most {}",
        services(&key).join(", "),
        word(policy.require_signed_address),
        word(policy.allow_other_addresses),
        policy.max_grants,
        policy.knocks_per_minute,
    ))?;
    let generations = Generations::of(&key, &directory.config.server_id, &uses);
    for (known, state) in generations.states(now) {
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
            state,
            made.unwrap_or_default(),
        ))?;
    }
    Ok(())
}
