//! The steps of "What a server does with a datagram", for one that a holder of a key made.

use super::{Judged, Made, Model, Wish};
use oneknock_shared::knock::{Action, Knock};
use oneknockd::config::Key;
use oneknockd::gate::{Now, Place};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const MINUTE: u64 = 60_000;
const LOOKED_UP: u64 = 30 * 24 * 3600 * 1000;

/// Whether an address is that of one host that is not the server itself.
fn is_usable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            let odd = a.is_loopback() || a.is_link_local() || a.is_multicast();
            !odd && a != Ipv4Addr::UNSPECIFIED && a != Ipv4Addr::BROADCAST
        }
        IpAddr::V6(a) => {
            let link_local = a.segments()[0] & 0xffc0 == 0xfe80;
            !(link_local || a.is_loopback() || a.is_multicast() || a.is_unspecified())
        }
    }
}

impl Model {
    /// What may come of a packet.
    pub fn judge(&mut self, now: Now, source: IpAddr, made: &Made) -> Judged {
        let mut allowed = Vec::new();
        let (last, wishes) = match self.steps(now, source, made, &mut allowed) {
            Ok(wishes) => ("accepted", wishes),
            Err(word) => (word, Vec::new()),
        };
        allowed.push(last);
        Judged { allowed, wishes }
    }

    /// Where it ends, or what it does where it is accepted. Adds the steps where it may end
    /// before.
    fn steps(
        &mut self,
        now: Now,
        source: IpAddr,
        made: &Made,
        perhaps: &mut Vec<&'static str>,
    ) -> Result<Vec<Wish>, &'static str> {
        let (wall, skew, at) = (now.wall.0, self.skew(), made.knock.timestamp.0);
        // Step 2.
        let minutes = wall.saturating_sub(skew) / MINUTE..=(wall + skew) / MINUTE;
        let owner = self.ids.iter().enumerate().find_map(|(k, ids)| {
            let g = ids.iter().position(|id| *id == made.generation)?;
            Some((k, g))
        });
        let Some((k, g)) = owner.filter(|_| minutes.contains(&(at / MINUTE))) else {
            return Err("selector");
        };
        let key = &self.settings.keys[k];
        let generation = &key.generations[g];
        let end = self.end_of(made.generation, generation);
        let is_over = |by: u64| end.is_some_and(|last| wall > last + by);
        if is_over(LOOKED_UP) {
            perhaps.push("selector");
        }
        // Step 4.
        if made.knock.address.is_some_and(|a| !is_usable(a)) {
            return Err("malformed");
        }
        // Step 6.
        if at.abs_diff(wall) > skew {
            return Err("stale");
        }
        let past = self.past.entry(made.generation).or_default();
        if Some(at) <= past.floor {
            return Err("below-floor");
        }
        if Some(at) <= past.greatest_floor {
            perhaps.push("below-floor");
        }
        // Step 7.
        if self.accepted.contains_key(&made.id()) || self.refused.contains(&made.id()) {
            return Err("replayed");
        }
        // Step 8.
        if generation.not_before.is_some_and(|first| wall < first.0) {
            return Err("not-yet-valid");
        }
        if is_over(0) {
            return Err("expired");
        }
        let address = match made.knock.address {
            None if key.policy.signed_address => return Err("address-not-signed"),
            None if !is_usable(source) => return Err("address-unusable"),
            None => source,
            Some(signed) if signed != source && !key.policy.admit_others => {
                return Err("address-not-source");
            }
            Some(signed) => signed,
        };
        let rate = self.rates.get_mut(&made.generation).ok_or("no rate")?;
        rate.fill(now.mono);
        match rate.has_one() {
            Some(true) => {}
            Some(false) => return Err("too-many-knocks"),
            None => perhaps.push("too-many-knocks"),
        }
        let key = &self.settings.keys[k];
        let wishes = self.wishes(key, address, &made.knock)?;
        if made.knock.action != Action::Close {
            self.check_open(now, key, &wishes, &made.knock, perhaps)?;
        }
        Ok(wishes)
    }

    fn wishes(&self, key: &Key, address: IpAddr, knock: &Knock) -> Result<Vec<Wish>, &'static str> {
        let config = &self.settings.config;
        if let Some(name) = knock.service {
            if config.service(name).is_none() {
                return Err("no-such-service");
            }
            if !key.policy.services.contains(&name) {
                return Err("service-not-allowed");
            }
        }
        let services = config.services.iter().filter(|service| {
            key.policy.services.contains(&service.name)
                && knock.service.is_none_or(|name| name == service.name)
        });
        let wishes = services.map(|service| {
            let place = Place {
                service: service.name,
                address,
            };
            let Action::Open { seconds } = knock.action else {
                return (place, None);
            };
            let mut time = Duration::from_secs(seconds.into());
            if seconds == 0 {
                time = service.open_for;
            }
            for limit in [Some(service.max_open_for), key.policy.max_open_for] {
                time = time.min(limit.unwrap_or(time));
            }
            (place, Some(time))
        });
        Ok(wishes.collect())
    }

    /// What only an open has to pass.
    fn check_open(
        &self,
        now: Now,
        key: &Key,
        wishes: &[Wish],
        knock: &Knock,
        perhaps: &mut Vec<&'static str>,
    ) -> Result<(), &'static str> {
        let is_gateway = |(place, _): &Wish| self.gateways.contains(&place.address);
        if !self.settings.config.admit_gateway && wishes.iter().any(is_gateway) {
            return Err("gateway");
        }
        let closes = wishes.iter().filter_map(|(place, _)| {
            let of = (key.name.clone(), *place);
            self.closes.get(&of)
        });
        let at = Some(knock.timestamp.0);
        if closes.clone().any(|close| at <= close.sure) {
            return Err("closed-since");
        }
        if closes.clone().any(|close| at <= close.perhaps) {
            perhaps.push("closed-since");
        }
        let own = self.live(now).filter(|(_, name, _)| **name == key.name);
        let own: Vec<Place> = own.map(|(place, _, _)| place).collect();
        let new = wishes.iter().filter(|(place, _)| !own.contains(place));
        let new = new.count();
        if new > 0 && own.len() + new > key.policy.grants as usize {
            return Err("too-many-grants");
        }
        Ok(())
    }
}
