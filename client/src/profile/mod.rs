//! A profile: a server, and this user's key to it.

pub mod expiry;
mod file;
pub mod import;
mod permissions;
pub mod state;
pub mod store;

use crate::error::Error;
use crate::knock::sequence::Steps;
use oneknock_shared::invitation::{Invitation, Service};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_shared::port::{Ports, Transport};
use oneknock_shared::secret::Subkeys;
use std::iter;

/// What an invitation said, under the name that this user gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// All members of the invitation; its name is the profile's.
    pub invitation: Invitation,
    /// While a rotation is under way: the invitation that takes its place, once it was
    /// seen to work. Its name is the profile's too.
    pub next: Option<Invitation>,
    /// While a rotation is under way: since when. The server may have made a new generation
    /// whose invitation got lost, and the old one has an end then.
    pub begun: Option<Timestamp>,
    /// Whether a fixed port sequence may follow a knock that met silence: the file says
    /// `fallback = "sequence"`.
    pub falls_back: bool,
}

impl Profile {
    /// The profile's name.
    #[must_use]
    pub fn name(&self) -> &KeyName {
        &self.invitation.name
    }

    /// The keys of its generations: while a rotation is under way of both, since either
    /// may be the one that the server takes.
    #[must_use]
    pub fn keys(&self) -> Vec<Subkeys> {
        let both = iter::once(&self.invitation).chain(&self.next);
        both.map(|i| Subkeys::derive(&i.secret, &i.server_id))
            .collect()
    }

    /// The wanted service; without a wish the one called `ssh`, else the first with a
    /// TCP port, else the first.
    pub fn service(&self, wanted: Option<&ServiceName>) -> Result<&Service, Error> {
        let services = &self.invitation.services;
        let called = |name: &str| services.iter().find(|s| s.name.as_str() == name);
        let found = match wanted {
            Some(name) => called(name.as_str()),
            None => called("ssh")
                .or_else(|| services.iter().find(|s| first_tcp(s).is_some()))
                .or(services.first()),
        };
        found.ok_or_else(|| Error::NoService {
            profile: self.name().clone(),
            wanted: wanted.copied().unwrap_or_else(|| {
                unreachable!("an invitation without a service is refused when it is read")
            }),
            have: services.iter().map(|s| s.name).collect(),
        })
    }

    /// The steps that open this service, where the server has a sequence for it.
    #[must_use]
    pub fn sequence(&self, service: Option<&ServiceName>) -> Option<Steps> {
        let of = &self.invitation;
        if of.sequence_service.is_some() && of.sequence_service.as_ref() != service {
            return None;
        }
        if of.rolling {
            let keys = Subkeys::derive(&of.secret, &of.server_id);
            return Some(Steps::Rolling(Box::new(keys)));
        }
        let steps = of.sequence.clone().filter(|steps| !steps.is_empty());
        steps.map(Steps::Fixed)
    }

    /// The service that has this TCP port.
    pub fn service_with(&self, port: u16) -> Result<&Service, Error> {
        let services = &self.invitation.services;
        let has = |s: &&Service| s.ports.iter().any(|p| p.contains(Transport::Tcp, port));
        services.iter().find(has).ok_or_else(|| Error::NoPort {
            profile: self.name().clone(),
            port,
            have: services.iter().flat_map(|s| s.ports.clone()).collect(),
        })
    }
}

/// The service's first TCP port, where it has one.
#[must_use]
pub fn first_tcp(service: &Service) -> Option<u16> {
    let tcp = |p: &&Ports| p.transport() == Transport::Tcp;
    service.ports.iter().find(tcp).map(Ports::first)
}
