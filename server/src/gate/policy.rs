//! Step 8: what a key may do, here and now. Nothing is changed here.

use super::claims::{Claims, Place};
use super::verdict::Refusal;
use super::{GateKey, Now};
use crate::config::{Policy, Service};
use oneknock_shared::knock::{Action, Timestamp, is_admissible};
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_shared::packet::Request;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The address to admit: the signed one, or the source. `signed_address` demands one;
/// without `admit_others` it must be the source.
pub fn address_to_admit(
    policy: &Policy,
    source: IpAddr,
    request: &Request,
) -> Result<IpAddr, Refusal> {
    match request.knock().address {
        None if policy.signed_address => Err(Refusal::AddressNotSigned),
        Some(signed) if signed != source && !policy.admit_others => Err(Refusal::AddressNotSource),
        // A link-local source is another host on every link; a signed one is malformed.
        None if !is_admissible(source) => Err(Refusal::AddressUnusable),
        signed => Ok(signed.unwrap_or(source)),
    }
}

/// What the rest of step 8 looks at.
pub struct View<'g> {
    pub key: &'g GateKey,
    pub services: &'g [Service],
    pub gateways: &'g [IpAddr],
    pub closes: &'g BTreeMap<(Arc<KeyName>, Place), Timestamp>,
    pub claims: &'g Claims,
}

impl View<'_> {
    /// The places to open, each with its time, or to close (`None`).
    pub fn judge(
        &self,
        now: Now,
        address: IpAddr,
        request: &Request,
    ) -> Result<Vec<(Place, Option<Duration>)>, Refusal> {
        let (knock, policy) = (request.knock(), &self.key.policy);
        let services = self.services_asked(knock.service)?;
        let places = services.iter().map(|s| {
            (
                Place {
                    service: s.name,
                    address,
                },
                s,
            )
        });
        let Action::Open { seconds } = knock.action else {
            return Ok(places.map(|(place, _)| (place, None)).collect());
        };
        if self.gateways.contains(&address) {
            return Err(Refusal::Gateway);
        }
        let mut wanted = Vec::new();
        let mut added = 0;
        for (place, service) in places {
            let closed = self.closes.get(&(Arc::clone(&self.key.name), place));
            if closed.is_some_and(|&closed| request.timestamp() <= closed) {
                return Err(Refusal::ClosedSince);
            }
            added += usize::from(!self.claims.has(now.mono, &self.key.name, place));
            let asked = match seconds {
                0 => service.open_for,
                seconds => Duration::from_secs(seconds.into()),
            };
            let most = policy
                .max_open_for
                .unwrap_or(Duration::MAX)
                .min(service.max_open_for);
            wanted.push((place, Some(asked.min(most))));
        }
        let live = self.claims.count_of(&self.key.name);
        if added > 0 && live + added > policy.grants as usize {
            return Err(Refusal::TooManyGrants);
        }
        Ok(wanted)
    }

    fn services_asked(&self, name: Option<ServiceName>) -> Result<Vec<&Service>, Refusal> {
        let allowed = |s: &&Service| self.key.policy.services.contains(&s.name);
        let Some(name) = name else {
            return Ok(self.services.iter().filter(allowed).collect());
        };
        let service = self.services.iter().find(|s| s.name == name);
        let service = service.ok_or(Refusal::NoSuchService)?;
        Some(service)
            .filter(allowed)
            .map(|s| vec![s])
            .ok_or(Refusal::ServiceNotAllowed)
    }
}
