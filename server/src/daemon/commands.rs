//! What the daemon does when it is asked over the control socket.

use super::{Cli, Daemon, Stopped};
use crate::config::Mistake;
use crate::control::Request;
use crate::control::answers::{
    Answer, Counted, Cut, Event, Failed, Grant, Grants, Guarded, MOST_LISTED, Reloaded, Revoked,
    Status, TornDown, Watched,
};
use crate::control::protocol::{Command, Who};
use crate::firewall::FirewallError;
use crate::gate::{Now, Place};
use crate::log;
use oneknock_shared::name::{KeyName, ServiceName};
use std::collections::BTreeMap;
use std::io;

/// Whether the daemon goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It does.
    GoOn,
    /// It is to end.
    End,
}

impl Daemon {
    /// Does what was asked, and answers.
    pub fn command(&mut self, cli: &Cli, request: &Request) -> Next {
        let now = self.clock.now();
        let mut next = Next::GoOn;
        let answer = match &request.command {
            Command::Watch => {
                let first = self.open_now(now);
                self.control.socket.watch(request.id, first);
                return next;
            }
            Command::Status => Answer::of(Ok(self.status(now))),
            Command::Grants(after) => {
                let sequence = match after {
                    None => self.walked(),
                    Some(_) => Ok(Vec::new()),
                };
                let after = after.as_ref().map(|after| (after.place, &after.key));
                let mut held = self.gate.held(now, after);
                let grants = held
                    .by_ref()
                    .take(MOST_LISTED)
                    .map(|h| Grant::of(&h))
                    .collect();
                let more = held.next().is_some();
                Answer::of(sequence.map(|sequence| Grants {
                    grants,
                    more,
                    sequence,
                }))
            }
            Command::Why(who) => {
                let waits = self.waiting.is_some();
                Answer::of(Ok(self.control.refusals(who.as_ref(), waits)))
            }
            Command::Reload => {
                log::line(format_args!("asked to reload by uid={}", request.uid));
                Answer::of(self.reload_asked(cli))
            }
            Command::Cut { who, generation } => {
                Answer::of(self.cut_off(who.as_ref(), *generation, request.uid))
            }
            Command::Revoke(who) => Answer::of(self.revoke(now, who.as_ref(), request.uid)),
            Command::TryOut(time) => Answer::of(self.try_out(*time, request.uid)),
            Command::Teardown => {
                let torn_down = self.tear_down(request.uid);
                if torn_down.is_ok() {
                    next = Next::End;
                }
                Answer::of(torn_down)
            }
        };
        self.control.socket.answer(request.id, &answer);
        next
    }

    /// What is open as a watching begins, as far as a list goes.
    fn open_now(&self, now: Now) -> Vec<Watched> {
        let mut held = self.gate.held(now, None);
        let listed = held.by_ref().take(MOST_LISTED);
        let event = |held| Watched::Event(Event::open(now.wall.0, &held));
        let mut first: Vec<Watched> = listed.map(event).collect();
        let rest = held.count() as u64;
        if rest > 0 {
            first.push(Watched::Lost { lost: rest });
        }
        first
    }

    fn status(&mut self, now: Now) -> Status {
        let counters = self.counted();
        let config = &self.settings.config;
        let mut live: BTreeMap<ServiceName, usize> = BTreeMap::new();
        for held in self.gate.held(now, None) {
            *live.entry(held.place.service).or_default() += 1;
        }
        let services = config.services.iter().map(|service| Guarded {
            name: service.name.to_string(),
            ports: service.ports.iter().map(ToString::to_string).collect(),
            grants: live.get(&service.name).copied().unwrap_or(0),
        });
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            up_seconds: self.control.up(now).as_secs(),
            clock_ms: now.wall.0,
            skew_seconds: config.skew.as_secs(),
            port: config.port,
            listen: config.listen.iter().map(ToString::to_string).collect(),
            guard: self.guard_is().to_string(),
            stays_watched: self.stays_watched(),
            on_trial: self.on_trial(now),
            services: services.collect(),
            keys: self.settings.keys.len(),
            grants: live.values().sum(),
            waits_for_clock: self.waiting.is_some(),
            as_before: self.as_before,
            left_out: self.left_out.iter().take(MOST_LISTED).cloned().collect(),
            read_ms: self.read_ms,
            counters,
        }
    }

    fn counted(&mut self) -> Counted {
        // Where the kernel does not say, it has refused nothing that is known of.
        let sifted_out = self.firewall.sifted_out().unwrap_or(0);
        let counters = self.gate.counters();
        let junk = [
            ("kernel", sifted_out),
            ("length", counters.length),
            ("no-key", counters.selector),
            ("forged", counters.mac),
        ];
        let mut counted = Counted {
            accepted: counters.accepted,
            waiting: self.control.waiting(),
            junk: junk.map(|(word, count)| (word.to_owned(), count)).into(),
            ..Counted::default()
        };
        let failed = self.control.failed();
        // Every reason is there from the start, so that what reads this sees it rise.
        for reason in crate::reasons::ALL {
            let (word, of) = (reason.word, |counts: &BTreeMap<&str, u64>| {
                counts.get(reason.word).copied().unwrap_or(0)
            });
            let (into, count) = match reason.of {
                crate::reasons::Of::Ignored => (&mut counted.ignored, of(&counters.reasons)),
                crate::reasons::Of::Refused => (&mut counted.refused, of(&counters.reasons)),
                crate::reasons::Of::Failed => (&mut counted.failed, of(failed)),
            };
            into.insert(word.into(), count);
        }
        counted
    }

    fn reload_asked(&mut self, cli: &Cli) -> Result<Reloaded, Failed> {
        match self.reload(cli) {
            Ok(()) => Ok(Reloaded {
                services: self.settings.config.services.len(),
                keys: self.settings.keys.len(),
            }),
            Err(Stopped::Mistakes(mistakes)) => Err(Failed {
                error: "not reloaded: what was in force stays in force".into(),
                mistakes: listed(&mistakes),
                keys_taken: false,
            }),
            Err(Stopped::MainFile(mistakes)) => Err(Failed {
                error: "oneknockd.toml is not reloaded: what was in force of it stays in force; the keys are reloaded".into(),
                mistakes: listed(&mistakes),
                keys_taken: true,
            }),
            Err(why) => Err(Failed::new(why)),
        }
    }

    fn revoke(&mut self, now: Now, who: Option<&Who>, uid: u32) -> Result<Revoked, Failed> {
        let ended = self.gate.end(now, |key, place| match who {
            None => true,
            Some(Who::Key(name)) => key == name,
            Some(Who::Address(address)) => place.address == *address,
        });
        if let Some(Who::Key(name)) = who
            && ended.claims.is_empty()
            && !self.settings.keys.iter().any(|key| key.name == *name)
            && !self.knows(name)
        {
            return Err(Failed::new(format_args!("there is no key {name}")));
        }
        if let Err(error) = self.change(&ended.lost.changes) {
            self.gate.keep(now, &ended);
            return Err(Failed::new(format_args!("nothing was closed: {error}")));
        }
        let walked = self.turn_away(who);
        self.remember(false);
        let noted = self.ledger.lose(&ended.lost, now);
        let whose = who.map_or("all".into(), ToString::to_string);
        let closed = ended.claims.len() + walked.as_ref().map_or(0, |count| *count);
        log::line(format_args!("revoked {whose}: grants={closed} uid={uid}"));
        self.control.note_revoked(now, &ended.claims);
        if let Err(error) = noted {
            let what = format!(
                "closed: {closed}, but the state could not note it, and a restart may open them again: {error}"
            );
            log::line(&what);
            return Err(Failed::new(what));
        }
        walked?;
        Ok(Revoked::of(closed, ended.lost.changes))
    }

    /// Whether there was such a key: its sessions may live on.
    fn knows(&self, name: &KeyName) -> bool {
        let places = self.ledger.places(Some(name), None, None);
        places.is_ok_and(|places| !places.is_empty())
    }

    /// Ends the connections that grants, or walks of the port sequence, have let in. A grant
    /// ends long before a session does, so the history tells which.
    fn cut_off(
        &mut self,
        who: Option<&Who>,
        generation: Option<u32>,
        uid: u32,
    ) -> Result<Cut, Failed> {
        let (key, address) = match who {
            None => (None, None),
            Some(Who::Key(key)) => (Some(key), None),
            Some(&Who::Address(address)) => (None, Some(address)),
        };
        let failed =
            |why: &dyn std::fmt::Display| Failed::new(format_args!("connections live on: {why}"));
        let places = self.ledger.places(key, generation, address);
        let mut places = places.map_err(|error| failed(&error))?;
        places.extend(Who::walked_places(
            who,
            &self.settings.config,
            &self.turned_away,
        ));
        let meant = |service, address| places.contains(&Place { service, address });
        let ended = self.firewall.end(&self.settings.config, meant);
        let ended = ended.map_err(|error| failed(&error))?;
        let whose = who.map_or("all".into(), ToString::to_string);
        log::line(format_args!("cut {whose}: connections={ended} uid={uid}"));
        Ok(Cut { ended })
    }

    fn tear_down(&mut self, uid: u32) -> Result<TornDown, Failed> {
        let was_up = match self.firewall.teardown() {
            Ok(()) => true,
            Err(FirewallError::Netlink(error)) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => {
                let what = format!("the guard may still be up: {error}");
                return Err(Failed::new(what));
            }
        };
        log::line(format_args!("the guard is down: asked for by uid={uid}"));
        Ok(TornDown { was_up })
    }
}

/// As many as an answer takes.
fn listed(mistakes: &[Mistake]) -> Vec<String> {
    let texts = mistakes.iter().take(MOST_LISTED).map(ToString::to_string);
    let mut texts: Vec<String> = texts.collect();
    if mistakes.len() > texts.len() {
        texts.push(format!("and {} more", mistakes.len() - texts.len()));
    }
    texts
}
