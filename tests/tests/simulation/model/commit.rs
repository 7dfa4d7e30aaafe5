//! What a recorded packet does: the rest of step 8, and its grants.

use super::{Model, known, ms};
use oneknock_shared::knock::{Action, Timestamp};
use oneknockd::engine::{
    Event, Grant, KeyRules, Now, Reason, Rejection, ServiceRules, Spend, Target,
};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

impl Model {
    /// What comes of these packets, in their order.
    pub fn commit(&mut self, now: Now, spends: &[Spend]) -> Vec<Event> {
        let mut events = self.expire(now);
        for spend in spends {
            let done = self.commit_one(now, spend);
            if spend.action == Action::Close {
                self.run.close(spend);
            }
            match done {
                Ok(done) => {
                    events.push(Event::Accepted {
                        key: Arc::clone(&spend.key),
                        generation: spend.generation,
                        number: spend.number,
                        from: spend.from,
                    });
                    events.extend(done);
                }
                Err(reason) => {
                    let authenticated = spend.is_signed && spend.source.address() == spend.from;
                    events.push(rejection(spend, spend.from, authenticated, reason));
                }
            }
        }
        events
    }

    fn commit_one(&mut self, now: Now, spend: &Spend) -> Result<Vec<Event>, Reason> {
        let generation = self.generation(spend.generation);
        let generation = generation.filter(|(key, generation)| {
            let end = self.end_of(generation);
            key.name == spend.key && end.is_none_or(|end| now.wall <= end)
        });
        let key = generation.ok_or(Reason::Expired)?.0.clone();
        let services = self.asked(&key, spend)?;
        let mut events = match spend.action {
            Action::Close => self.close(&services, spend),
            Action::Open { seconds } => {
                self.check_open(&key, &services, spend)?;
                let open = |service| self.open(now, &key, service, seconds, spend);
                services.iter().map(open).collect()
            }
        };
        events.extend(self.retire(now, &key, spend.number));
        Ok(events)
    }

    fn asked(&self, key: &KeyRules, spend: &Spend) -> Result<Vec<ServiceRules>, Reason> {
        let services = &self.rules.services;
        let is_there = |name| services.iter().any(|s| s.name == name);
        if spend.service.is_some_and(|name| !is_there(name)) {
            return Err(Reason::NoSuchService);
        }
        let asked = services.iter().filter(|service| {
            let is_named = spend.service.is_none_or(|name| name == service.name);
            is_named && key.services.contains(&service.name)
        });
        let asked: Vec<ServiceRules> = asked.cloned().collect();
        if asked.is_empty() {
            return Err(Reason::ServiceNotAllowed);
        }
        Ok(asked)
    }

    /// What only an open has to pass.
    fn check_open(
        &self,
        key: &KeyRules,
        services: &[ServiceRules],
        spend: &Spend,
    ) -> Result<(), Reason> {
        let is_gateway = self.gateways.contains(&spend.source.address());
        if is_gateway && !self.rules.allow_gateway {
            return Err(Reason::SourceIsGateway);
        }
        for service in services {
            if Some(spend.at) <= self.run.closed(spend, service.name) {
                return Err(Reason::SupersededByClose);
            }
        }
        let own = self.run.grants.values().filter(|g| g.key == key.name);
        let own: Vec<Target> = own.map(|grant| grant.target).collect();
        let new = services.iter().filter(|s| !own.contains(&target(s, spend)));
        let new = new.count();
        if new > 0 && own.len() + new > key.max_grants as usize {
            return Err(Reason::GrantLimit);
        }
        Ok(())
    }

    fn open(
        &mut self,
        now: Now,
        key: &KeyRules,
        service: &ServiceRules,
        seconds: u16,
        spend: &Spend,
    ) -> Event {
        let mut time = Duration::from_secs(seconds.into());
        if seconds == 0 {
            time = service.default_time;
        }
        for limit in [Some(service.max_time), key.max_time] {
            time = time.min(limit.unwrap_or(time));
        }
        let mut grant = Grant {
            key: Arc::clone(&key.name),
            generation: spend.generation,
            number: spend.number,
            target: target(service, spend),
            opened: now.wall,
            until: now.mono + time,
        };
        let had = self.run.grants.get(&known::of(&grant));
        let renewed = had.is_some();
        if let Some(had) = had {
            grant.opened = had.opened;
            grant.until = grant.until.max(had.until);
        }
        self.run.grants.insert(known::of(&grant), grant.clone());
        Event::Granted {
            grant,
            time,
            renewed,
            from: spend.from,
        }
    }

    fn close(&mut self, services: &[ServiceRules], spend: &Spend) -> Vec<Event> {
        let close = |service: &ServiceRules| {
            let was_closed = self.run.closed(spend, service.name).is_some();
            let target = target(service, spend);
            let grant = self.run.grants.remove(&(target, (*spend.key).clone()));
            Event::Closed {
                key: Arc::clone(&spend.key),
                target,
                redundant: was_closed && grant.is_none(),
                grant,
            }
        };
        services.iter().map(close).collect()
    }

    /// A newer generation is used: older ones of the key that have an end retire, once, and
    /// to no later end than they have.
    fn retire(&mut self, now: Now, key: &KeyRules, newer: u32) -> Vec<Event> {
        let ends = Timestamp(now.wall.0 + ms(self.rules.rotation_grace));
        let mut events = Vec::new();
        for older in key.generations.iter().filter(|g| g.number < newer) {
            let generation = older.subkeys.id();
            let is_later = self.end_of(older).is_some_and(|end| ends < end);
            if is_later && !self.run.retirements.contains_key(&generation) {
                self.run.retirements.insert(generation, ends);
                events.push(Event::Retiring {
                    key: Arc::clone(&key.name),
                    generation,
                    number: older.number,
                    ends,
                    newer,
                });
            }
        }
        events
    }
}

/// What comes of packets that could not be recorded.
pub fn rejected(spends: &[Spend]) -> Vec<Event> {
    let reject = |spend: &Spend| {
        let source = spend.source.address();
        rejection(spend, source, false, Reason::StoreError)
    };
    spends.iter().map(reject).collect()
}

fn target(service: &ServiceRules, spend: &Spend) -> Target {
    Target {
        service: service.name,
        source: spend.source,
    }
}

fn rejection(spend: &Spend, source: IpAddr, authenticated: bool, reason: Reason) -> Event {
    Event::Rejected(Rejection {
        key: Arc::clone(&spend.key),
        source,
        service: spend.service,
        authenticated,
        reason,
    })
}
