//! The steps of "What a server does with a datagram", up to the rate, for one that a holder of
//! a key made.

use super::{Made, Model};
use oneknock_shared::knock::Timestamp;
use oneknockd::engine::{Now, Source, Spend};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

const MINUTE: u64 = 60_000;
const LOOKED_UP: u64 = 30 * 24 * 3600 * 1000;

/// What may come of a packet.
pub struct Judged {
    /// The reasons for which it may be rejected; `selector` is one.
    pub allowed: Vec<&'static str>,
    /// The spend where it may pass.
    pub spend: Option<Spend>,
}

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
    pub fn judge(&mut self, now: Now, from: IpAddr, made: &Made) -> Judged {
        let mut allowed = Vec::new();
        let spend = match self.steps(now, from, made, &mut allowed) {
            Ok(spend) => Some(spend),
            Err(reason) => {
                allowed.push(reason);
                None
            }
        };
        Judged { allowed, spend }
    }

    /// Where it ends, or the spend. Adds the reasons for which it may end before.
    fn steps(
        &mut self,
        now: Now,
        from: IpAddr,
        made: &Made,
        perhaps: &mut Vec<&'static str>,
    ) -> Result<Spend, &'static str> {
        let (wall, skew, at) = (now.wall.0, self.skew(), made.knock.timestamp.0);
        // Step 2.
        let minutes = wall.saturating_sub(skew) / MINUTE..=(wall + skew) / MINUTE;
        let generation = self.generation(made.generation);
        let is_current = minutes.contains(&(at / MINUTE));
        let (key, generation) = generation.filter(|_| is_current).ok_or("selector")?;
        let end = self.end_of(generation);
        let is_over = |by: u64| end.is_some_and(|last| wall > last.0 + by);
        if is_over(LOOKED_UP) {
            perhaps.push("selector");
        }
        // Step 4.
        if made.knock.address.is_some_and(|a| !is_usable(a)) {
            return Err("malformed");
        }
        // Step 6.
        if at.abs_diff(wall) > skew {
            return Err("clock-skew");
        }
        let floor = self.run.floors.get(&made.generation);
        if floor.is_some_and(|floor| Timestamp(at) <= *floor) {
            return Err("replay-floor");
        }
        // Step 7.
        let seen = (Timestamp(at), made.id(), made.generation);
        if self.run.seen.contains(&seen) {
            return Err("replayed");
        }
        // Step 8, as far as it does not spend the packet.
        if generation.not_before.is_some_and(|first| wall < first.0) {
            return Err("not-yet-valid");
        }
        if is_over(0) {
            return Err("expired");
        }
        let source = match made.knock.address {
            None if key.require_signed_address => return Err("address-not-signed"),
            None if !is_usable(from) => return Err("address-unusable"),
            None => from,
            Some(signed) if signed != from && !key.allow_other_address => {
                return Err("address-not-source");
            }
            Some(signed) => signed,
        };
        let spend = Spend {
            key: Arc::clone(&key.name),
            generation: made.generation,
            number: generation.number,
            at: Timestamp(at),
            id: made.id(),
            from,
            source: Source::of(source),
            is_signed: made.knock.address.is_some(),
            action: made.knock.action,
            service: made.knock.service,
        };
        let rate = self.rates.get_mut(&made.generation).ok_or("no rate")?;
        rate.fill(now.mono);
        match rate.has_one() {
            Some(true) => {}
            Some(false) => return Err("rate-limited"),
            None => perhaps.push("rate-limited"),
        }
        Ok(spend)
    }
}
