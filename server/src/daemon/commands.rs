//! What the daemon does when it is asked over the control socket.

use super::Daemon;
use crate::control::answers::{
    CounterValues, ErrorBody, ErrorCode, GrantList, ListedGrant, LoadedKeys, MOST_LISTED,
    Rejections, Revoked, SequenceGrant, ServiceStatus, Status, TornDown, whole_seconds,
};
use crate::control::protocol::{Command, Cursor, Selection};
use crate::control::watch::{WatchEvent, WatchMessage};
use crate::control::{Reply, Request};
use crate::engine::{Now, ReasonKind, Source, Target};
use crate::observers::{self, Level};
use crate::reasons;
use crate::server::log_revoked;
use oneknock_shared::name::ServiceName;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Whether the daemon goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It does.
    GoOn,
    /// It is to end.
    End,
}

impl Daemon {
    /// Does what was asked, and answers: at once, or when a worker has done it.
    pub(super) fn command(&mut self, request: Request) -> Next {
        let now = self.server.clock.now();
        let Request {
            uid,
            command,
            reply,
        } = request;
        match command {
            Command::Watch => {
                let first = self.open_now(now);
                self.control.watch(reply, first);
            }
            Command::Status => reply.send(Ok(self.status(now))),
            Command::Grants { after } => reply.send(self.list_grants(now, after.as_ref())),
            Command::Rejections { of } => reply.send(Ok(Rejections {
                rejections: self.server.observers.rejections.of(&of, MOST_LISTED),
                unknown: self.server.observers.unknown.of(of.address()),
                waits_for_clock: self.awaiting_clock.is_some(),
            })),
            Command::Keys => {
                let settings = &self.server.settings;
                let keys = settings.keys.iter();
                reply.send(Ok(LoadedKeys {
                    keys: keys
                        .map(|key| (key.name.to_string(), key.fingerprint()))
                        .collect(),
                    skipped: settings.skipped_files(),
                }));
            }
            Command::Reload => {
                observers::write(Level::Info, format_args!("asked-to-reload uid={uid}"));
                self.reload(Some(reply));
            }
            Command::ReloadKey { key } => self.reload_key(key, reply, uid),
            Command::Revoke {
                of,
                generations,
                disconnect,
            } => self.revoke(now, of, &generations, disconnect, reply, uid),
            Command::Enforce => reply.send(self.enforce(uid)),
            Command::StartTrial { seconds } => {
                reply.send(self.start_trial(Duration::from_secs(seconds), uid));
            }
            Command::Teardown => {
                let torn_down = self.tear_down(uid);
                let ends = torn_down.is_ok();
                reply.send(torn_down);
                if ends {
                    return Next::End;
                }
            }
        }
        Next::GoOn
    }

    /// What is open as a watching begins, as far as a list goes.
    fn open_now(&self, now: Now) -> Vec<WatchMessage> {
        let mut grants = self.server.engine.grants(now, None);
        let listed = grants.by_ref().take(MOST_LISTED);
        let listed = listed.map(|grant| WatchMessage::Event(WatchEvent::open(now, grant)));
        let mut first: Vec<WatchMessage> = listed.collect();
        let dropped = grants.count() as u64;
        if dropped > 0 {
            first.push(WatchMessage::Dropped { dropped });
        }
        first
    }

    fn list_grants(&mut self, now: Now, after: Option<&Cursor>) -> Result<GrantList, ErrorBody> {
        let sequence = match after {
            None => self.sequence_grants().map_err(ErrorBody::new)?,
            Some(_) => Vec::new(),
        };
        let mut grants = self.server.engine.grants(now, after.map(Cursor::position));
        let listed = grants.by_ref().take(MOST_LISTED);
        let listed = listed
            .map(|grant| ListedGrant::of(grant, now.mono))
            .collect();
        Ok(GrantList {
            grants: listed,
            more: grants.next().is_some(),
            sequence,
        })
    }

    /// Whom the port sequence has admitted, at most [`MOST_LISTED`]: the kernel alone knows.
    fn sequence_grants(&mut self) -> Result<Vec<SequenceGrant>, crate::kernel::KernelError> {
        let Some(sequence) = &self.server.settings.config.sequence else {
            return Ok(Vec::new());
        };
        let service = sequence.service;
        let listed = self.server.kernel.sequence_grants(service)?;
        let listed = listed.into_iter().take(MOST_LISTED);
        let grant = |(address, remaining)| SequenceGrant {
            address,
            service: service.to_string(),
            seconds: whole_seconds(remaining),
        };
        Ok(listed.map(grant).collect())
    }

    /// The same as targets.
    pub(super) fn sequence_targets(&mut self) -> BTreeSet<Target> {
        let Some(sequence) = &self.server.settings.config.sequence else {
            return BTreeSet::new();
        };
        let service = sequence.service;
        let listed = self.server.kernel.sequence_grants(service);
        let target = |(address, _)| Target {
            service,
            source: Source::of(address),
        };
        listed.unwrap_or_default().into_iter().map(target).collect()
    }

    fn status(&mut self, now: Now) -> Status {
        let counters = self.counter_values();
        let settings = &self.server.settings;
        let config = &settings.config;
        let mut live: BTreeMap<ServiceName, usize> = BTreeMap::new();
        for grant in self.server.engine.grants(now, None) {
            *live.entry(grant.target.service).or_default() += 1;
        }
        let services = config.services.iter().map(|service| ServiceStatus {
            name: service.name.to_string(),
            ports: service.ports.iter().map(ToString::to_string).collect(),
            grants: live.get(&service.name).copied().unwrap_or(0),
        });
        let trial = self.trial_status(now);
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            up_seconds: now.mono.saturating_sub(self.started).as_secs(),
            clock_ms: now.wall.0,
            skew_seconds: config.skew.as_secs(),
            port: config.port,
            listen: config.listen.iter().map(ToString::to_string).collect(),
            enforcing: settings.enforcing,
            trial,
            guard: self.guard_mode().into(),
            exclusive_pending: self.exclusive_pending(),
            sync_error: self.server.sync_error().map(Into::into),
            services: services.collect(),
            keys: settings.keys.len(),
            grants: live.values().sum(),
            waits_for_clock: self.awaiting_clock.is_some(),
            using_last_good_config: settings.main_text.is_none(),
            skipped_keys: settings
                .skipped_files()
                .into_iter()
                .take(MOST_LISTED)
                .collect(),
            counters,
        }
    }

    fn counter_values(&mut self) -> CounterValues {
        // Where the kernel does not say, it has dropped nothing that is known of.
        let dropped = self.server.kernel.prefilter_dropped().unwrap_or(0);
        let counters = &self.server.observers.counters;
        let junk = [
            ("kernel", dropped),
            ("length", counters.length),
            ("no-key", counters.selector),
            ("forged", counters.mac),
        ];
        let mut values = CounterValues {
            accepted: counters.accepted,
            waiting: counters.waiting,
            junk: junk.map(|(name, count)| (name.to_owned(), count)).into(),
            ..CounterValues::default()
        };
        // Every reason is there from the start, so that what reads this sees it rise.
        for reason in reasons::all() {
            let into = match reason.kind {
                ReasonKind::Ignored => &mut values.ignored,
                ReasonKind::Refused => &mut values.refused,
                ReasonKind::Failed => &mut values.failed,
            };
            let count = counters.rejected.get(reason.name).copied().unwrap_or(0);
            into.insert(reason.name.into(), count);
        }
        values
    }

    fn revoke(
        &mut self,
        now: Now,
        of: Selection,
        generations: &[u32],
        disconnect: bool,
        reply: Reply,
        uid: u32,
    ) {
        let (revoked, targets) = match self.server.revoke(now, &of, generations) {
            Ok(done) => done,
            Err(error) => {
                let what = format_args!("grants may stay open; it is tried again: {error}");
                return reply.send::<Revoked>(Err(ErrorBody::new(what)));
            }
        };
        if disconnect {
            let disconnection = self.server.disconnection(&of, generations, targets);
            return self.disconnect(disconnection, of, revoked, reply, uid);
        }
        log_revoked(&of, &revoked, uid);
        if let Selection::Key(key) = &of
            && revoked.revoked == 0
            && !self.server.settings.keys.iter().any(|one| one.name == *key)
        {
            let what = format_args!("there is no key {key}");
            return reply.send::<Revoked>(Err(ErrorBody::with(ErrorCode::NoKey, what)));
        }
        let answer = match self.server.store_error() {
            None => Ok(revoked),
            Some(error) => Err(ErrorBody::new(format_args!(
                "revoked, but not recorded; a restart of oneknockd may bring grants back: {error}"
            ))),
        };
        reply.send(answer);
    }

    fn tear_down(&mut self, uid: u32) -> Result<TornDown, ErrorBody> {
        let was_up =
            self.server.kernel.teardown().map_err(|error| {
                ErrorBody::new(format_args!("the guard may still be up: {error}"))
            })?;
        observers::write(Level::Info, format_args!("guard-removed uid={uid}"));
        Ok(TornDown { was_up })
    }
}
