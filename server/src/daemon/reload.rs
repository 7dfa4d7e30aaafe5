//! Other settings, or another key, while the daemon runs. Files are read by the worker; what
//! was read is applied on the loop.

use super::Daemon;
use super::start::say_not_saved;
use crate::config::{self, ConfigError, Key, last_good};
use crate::control::Reply;
use crate::control::answers::{ErrorBody, ErrorCode, KeyReloaded, MOST_LISTED, Reloaded};
use crate::listener::Listener;
use crate::observers::{self, Level};
use crate::server::ServerSettings;
use oneknock_shared::name::KeyName;
use std::io;

impl Daemon {
    /// Applies what is on disk; where the main file is invalid, nothing of it.
    pub(super) fn reload(&mut self, reply: Option<Reply>) {
        let paths = self.server.paths.clone();
        self.work(move || {
            let loaded = ServerSettings::load_for_reload(&paths);
            move |daemon: &mut Daemon| {
                let result = match loaded {
                    Ok(settings) => daemon.apply(settings),
                    Err(errors) => Err(invalid(
                        "the configuration is invalid; the daemon runs on the last good one",
                        &errors,
                    )),
                };
                if let Err(error) = &result {
                    observers::say(Level::Error, "not-reloaded", &error.message);
                    for error in &error.errors {
                        observers::say(Level::Error, "config-error", error);
                    }
                }
                match result {
                    Ok(reloaded) => daemon.finish_reload(reloaded, reply),
                    Err(error) => answer(reply, Err(error)),
                }
            }
        });
    }

    /// The copy first: whoever is told of a reload may spoil the main file.
    fn finish_reload(&self, reloaded: Reloaded, reply: Option<Reply>) {
        let (paths, text) = (&self.server.paths, &self.server.settings.main_text);
        let (paths, text) = (paths.clone(), text.clone());
        self.work(move || {
            let saved = text.map_or(Ok(()), |text| last_good::save(&paths, &text));
            move |daemon: &mut Daemon| {
                say_not_saved(saved);
                daemon.announce("reloaded");
                answer(reply, Ok(reloaded));
            }
        });
    }

    fn apply(&mut self, mut settings: ServerSettings) -> Result<Reloaded, ErrorBody> {
        // No file that comes or goes changes that: a start, "enforce" and a teardown do.
        settings.enforcing = self.server.settings.enforcing;
        let (old, new) = (&self.server.settings.config, &settings.config);
        if old.control_group != new.control_group {
            let what = "control_group cannot change while the daemon runs; restart oneknockd";
            return Err(ErrorBody::with(ErrorCode::Config, what));
        }
        let listener = if old.listen == new.listen {
            None
        } else {
            let bound = Listener::rebind(&self.listener, &old.listen, &new.listen);
            Some(bound.map_err(ErrorBody::new)?)
        };
        // What others did is repaired first, by the rules as they were.
        self.check_guard();
        let before = std::mem::replace(&mut self.server.settings, settings);
        // The guard first: where it cannot be changed, all stays as it was.
        if let Err(error) = self.install() {
            self.server.settings = before;
            return Err(ErrorBody::new(error));
        }
        if let Some(listener) = listener {
            self.listener = listener;
        }
        for error in self.server.settings.all_errors() {
            observers::say(Level::Error, "config-error", error);
        }
        let now = self.server.clock.now();
        self.server.reconfigure(now);
        self.refill_prefilter();
        self.roll_again();
        // Connections to a port that is guarded from now on are older than its guard.
        self.snapshot_connections();
        Ok(Reloaded {
            skipped_keys: self.server.settings.skipped_files(),
            services: self.server.settings.config.services.len(),
            keys: self.server.settings.keys.len(),
        })
    }

    /// Loads one key's file, and no other file; without a file the key is dropped. So is one
    /// whose file is invalid.
    pub(super) fn reload_key(&mut self, key: KeyName, reply: Reply, uid: u32) {
        let paths = self.server.paths.clone();
        self.work(move || {
            let file = paths.key_file(key.as_str());
            let loaded = match file.symlink_metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                _ => config::load_one(&paths, &key).map(Some),
            };
            move |daemon: &mut Daemon| reply.send(daemon.apply_key(&key, loaded, uid))
        });
    }

    fn apply_key(
        &mut self,
        name: &KeyName,
        loaded: Result<Option<Key>, Vec<ConfigError>>,
        uid: u32,
    ) -> Result<KeyReloaded, ErrorBody> {
        let file = self.server.paths.key_file(name.as_str());
        let settings = &mut self.server.settings;
        let loaded = loaded.and_then(|key| {
            let (config, keys) = (&settings.config, &settings.keys);
            let checked = key.map(|key| {
                config::check_beside(&file, &key, config, keys)?;
                Ok(key)
            });
            checked.transpose()
        });
        let (loaded, errors) = match loaded {
            Ok(Some(key)) => {
                settings.put_key(key);
                (true, None)
            }
            Ok(None) => {
                settings.remove_key(name);
                (false, None)
            }
            Err(errors) => {
                let why = invalid("its file is invalid; it opens nothing", &errors);
                settings.skip_key(name, &file, errors);
                (false, Some(why))
            }
        };
        let now = self.server.clock.now();
        self.server.reconfigure(now);
        self.fill_prefilter();
        self.roll();
        observers::write(
            Level::Info,
            format_args!("key-reloaded key={name} loaded={loaded} uid={uid}"),
        );
        if let Some(error) = errors {
            return Err(error);
        }
        match self.server.sync_error() {
            None => Ok(KeyReloaded { loaded }),
            Some(error) => Err(ErrorBody::new(format_args!(
                "grants may stay open; it is tried again: {error}"
            ))),
        }
    }
}

fn answer(reply: Option<Reply>, result: Result<Reloaded, ErrorBody>) {
    if let Some(reply) = reply {
        reply.send(result);
    }
}

/// What is wrong with the files, as an answer.
fn invalid(consequence: &str, errors: &[ConfigError]) -> ErrorBody {
    let texts = errors.iter().take(MOST_LISTED).map(ToString::to_string);
    let mut texts: Vec<String> = texts.collect();
    if errors.len() > texts.len() {
        texts.push(format!("and {} more", errors.len() - texts.len()));
    }
    ErrorBody {
        errors: texts,
        ..ErrorBody::with(ErrorCode::Config, consequence)
    }
}
