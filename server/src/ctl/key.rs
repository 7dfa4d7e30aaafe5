//! `oneknockctl key …`.

use super::Failure;
use crate::config::{self, Config, Generation, Key, Policy, ctl_command, key_text};
use crate::files::{self, Existing, KEY_FILE_MODE, Owner};
use clap::Subcommand;
use oneknock_shared::invitation::{AddressRule, Invitation, Service};
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_shared::secret::Secret;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key; print its invitation, one line that holds the secret.
    ///
    /// Bring the line to the client by a way that nobody reads, and give it to
    /// "oneknock import" there. A running daemon takes the key at once, with all else that
    /// has changed in its configuration, as on "oneknockctl reload" or SIGHUP.
    Add {
        /// The key's name, such as laptop.
        name: KeyName,
        /// A service that it may open; several times for several [default: all].
        #[arg(long = "service", value_name = "SERVICE")]
        services: Vec<ServiceName>,
    },
    /// List the keys.
    ///
    /// GENERATIONS are the numbers of the secrets that a key has: 1 is the one that "key
    /// add" made. A key whose secret is being replaced has two for a while, and both open.
    List,
    /// Print a key's invitation again.
    Invite {
        /// The key's name.
        name: KeyName,
    },
    /// Remove a key. A running daemon closes what it opened at once.
    ///
    /// Sessions that are in live on.
    Remove {
        /// The key's name.
        name: KeyName,
    },
}

impl Command {
    pub fn run(&self, dir: &Path) -> Result<(), Failure> {
        let owner = Owner::wanted();
        super::check_readable(dir)?;
        match self {
            Self::Add { name, services } => add(dir, owner, name, services),
            Self::List => list(dir, owner),
            Self::Invite { name } => invite(dir, owner, name),
            Self::Remove { name } => remove(dir, name),
        }
    }
}

fn path_of(dir: &Path, name: &KeyName) -> PathBuf {
    files::key_folder(dir).join(format!("{name}.toml"))
}

fn load_config(dir: &Path, owner: Owner) -> Result<Config, Failure> {
    config::load_config(dir, owner).map_err(Failure::Mistakes)
}

fn add(dir: &Path, owner: Owner, name: &KeyName, asked: &[ServiceName]) -> Result<(), Failure> {
    let config = load_config(dir, owner)?;
    let known: Vec<ServiceName> = config.services.iter().map(|s| s.name).collect();
    if let Some(unknown) = asked.iter().find(|s| !known.contains(s)) {
        let known: Vec<&str> = known.iter().map(ServiceName::as_str).collect();
        return Err(Failure::Usage(
            format!("there is no service {unknown}"),
            Some(format!("there are: {}", known.join(", "))),
        ));
    }
    let mut services = if asked.is_empty() {
        known
    } else {
        asked.to_vec()
    };
    services.sort_unstable();
    services.dedup();
    let secret = Secret::generate().map_err(|e| Failure::new("cannot make a key", e))?;
    let generation = Generation {
        number: 1,
        secret,
        not_before: None,
        not_after: None,
    };
    let key = Key {
        name: name.clone(),
        policy: Policy::new(services),
        generations: vec![generation],
    };
    let path = path_of(dir, name);
    let text = key_text(&key.policy, &key.generations);
    files::write(&path, &text, owner, KEY_FILE_MODE, Existing::Keep).map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            // Where the answer goes to a file, the shell has emptied that one by now.
            let hint = format!(
                "\"{} key invite {name}\" prints its invitation again, also into a file that this call has emptied",
                ctl_command(dir)
            );
            let what = format!("key {name} is there already: it was not changed");
            Failure::Usage(what, Some(hint))
        } else {
            Failure::io(&path, &error)
        }
    })?;
    print_invitation(&config, &key)?;
    eprintln!(
        "hint: the line just printed holds the secret: bring it to the client unseen, into \"oneknock import\""
    );
    super::control::tell(dir, &format!("made key {name}"))
}

/// The newest generation's invitation, on standard output.
fn print_invitation(config: &Config, key: &Key) -> Result<(), Failure> {
    let newest = key.generations.iter().max_by_key(|g| g.number);
    let newest = newest.ok_or_else(|| Failure::new(&key.name, "it has no generation"))?;
    let of_key = config
        .services
        .iter()
        .filter(|s| key.policy.services.contains(&s.name));
    let invitation = Invitation {
        name: config.name.clone(),
        host: config.host.clone(),
        port: config.port,
        server_id: config.server_id,
        key: key.name.clone(),
        generation: newest.number,
        secret: newest.secret.clone(),
        address: if key.policy.signed_address {
            AddressRule::Signed
        } else {
            AddressRule::Any
        },
        services: of_key
            .map(|s| Service {
                name: s.name,
                ports: s.ports.clone(),
            })
            .collect(),
        sequence: None,
    };
    super::print(&invitation.to_line())
}

fn list(dir: &Path, owner: Owner) -> Result<(), Failure> {
    load_config(dir, owner)?;
    let folder = files::key_folder(dir);
    let entries = fs::read_dir(&folder).map_err(|e| Failure::io(&folder, &e))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut mistakes = Vec::new();
    super::print(&format!("{:<24} {:<12} SERVICES", "KEY", "GENERATIONS"))?;
    for path in paths {
        match config::load_key(&path, owner) {
            Err(found) => mistakes.extend(found),
            Ok(key) => {
                let join = |texts: Vec<String>| texts.join(",");
                let numbers = join(
                    key.generations
                        .iter()
                        .map(|g| g.number.to_string())
                        .collect(),
                );
                let services = join(
                    key.policy
                        .services
                        .iter()
                        .map(ToString::to_string)
                        .collect(),
                );
                super::print(&format!("{:<24} {numbers:<12} {services}", key.name))?;
            }
        }
    }
    if mistakes.is_empty() {
        Ok(())
    } else {
        Err(Failure::Mistakes(mistakes))
    }
}

fn invite(dir: &Path, owner: Owner, name: &KeyName) -> Result<(), Failure> {
    let config = load_config(dir, owner)?;
    let path = path_of(dir, name);
    if !path.exists() {
        return Err(no_key(dir, name));
    }
    let key = config::load_key(&path, owner).map_err(Failure::Mistakes)?;
    print_invitation(&config, &key)
}

fn remove(dir: &Path, name: &KeyName) -> Result<(), Failure> {
    let path = path_of(dir, name);
    match fs::remove_file(&path) {
        Ok(()) => super::control::tell(dir, &format!("removed key {name}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(no_key(dir, name)),
        Err(error) => Err(Failure::io(&path, &error)),
    }
}

fn no_key(dir: &Path, name: &KeyName) -> Failure {
    let hint = format!("\"{} key list\" shows those there are", ctl_command(dir));
    Failure::Usage(format!("there is no key {name}"), Some(hint))
}
