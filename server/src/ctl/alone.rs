//! What the daemon would do, where none runs: grants and connections are ended in the kernel
//! itself, and noted in the state, so that the next start does not bring them back.
//!
//! Of an address that several keys admit the kernel names one alone, that whose grant lasts
//! longest; the state knows them all. Where it is lost, the address goes with the one.

use super::{Failure, say};
use crate::clock::Clock;
use crate::config::Config;
use crate::control::answers::{Cut, Revoked};
use crate::control::protocol::Who;
use crate::firewall::{Firewall, FirewallError, Surviving};
use crate::gate::{Change, Claim, Lost, Now, Place};
use crate::ledger::{Found, Ledger, Unusable};
use oneknock_shared::name::KeyName;
use oneknock_shared::secret::GenerationId;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Which grants are to end.
#[derive(Debug)]
pub struct Meant<'w> {
    who: Option<&'w Who>,
    generations: Option<BTreeSet<GenerationId>>,
}

impl<'w> Meant<'w> {
    /// Those of a key or to an address, all without; with `generations` those that these
    /// have opened or renewed last.
    #[must_use]
    pub fn these(who: Option<&'w Who>, generations: Option<BTreeSet<GenerationId>>) -> Self {
        Self { who, generations }
    }

    fn is(&self, key: &KeyName, address: IpAddr) -> bool {
        match self.who {
            None => true,
            Some(Who::Key(name)) => name == key,
            Some(Who::Address(of)) => *of == address,
        }
    }

    fn is_claim(&self, claim: &Claim) -> bool {
        let generations = self.generations.as_ref();
        self.is(&claim.key, claim.place.address)
            && generations.is_none_or(|all| all.contains(&claim.generation))
    }
}

/// The kernel and the state, with no daemon in between.
#[derive(Debug)]
pub struct Alone {
    config: Config,
    firewall: Firewall,
    /// Why there is no state, where there is none.
    ledger: Result<Ledger, String>,
    claims: Vec<Claim>,
    standing: Vec<Surviving>,
    /// The guard that is up is another configuration's: nothing of it is touched.
    is_anothers: bool,
    /// Whom the port sequence had admitted when that was ended.
    turned_away: Vec<IpAddr>,
    now: Now,
}

impl Alone {
    /// Reads what the kernel and the state hold. A daemon that starts meanwhile waits for
    /// nobody: it fails.
    pub fn open(config: Config) -> Result<Self, Failure> {
        let failed = |error: FirewallError| {
            let what = "without a daemon root alone can end grants";
            match error {
                FirewallError::Capability => Failure::needs_root(what.into()),
                error => Failure::new("grants stay open", error),
            }
        };
        let mut firewall = Firewall::open().map_err(failed)?;
        let now = Clock::start().now();
        let (ledger, claims) = match Ledger::open(&config.state, now) {
            Ok((ledger, Found::State { memory, .. })) => (Ok(ledger), memory.claims),
            Ok((_, Found::Nothing(why))) => (Err(why), Vec::new()),
            Err(locked @ Unusable::Locked(_)) => {
                let hint = "has it just started? Then again";
                return Err(Failure::Failed(locked.to_string(), Some(hint.into())));
            }
            Err(error) => (Err(error.to_string()), Vec::new()),
        };
        // Nothing of this configuration's is open then.
        let free = firewall.check_free(&config);
        let is_anothers = matches!(free, Err(FirewallError::Anothers));
        let standing = match free {
            _ if is_anothers => Ok(Vec::new()),
            other => other.and_then(|()| firewall.admitted(&config)),
        };
        Ok(Self {
            standing: standing.map_err(failed)?,
            is_anothers,
            turned_away: Vec::new(),
            config,
            firewall,
            ledger,
            claims,
            now,
        })
    }

    /// Ends grants.
    pub fn close(&mut self, meant: &Meant<'_>) -> Result<Revoked, Failure> {
        let lost = lost(&self.claims, &self.standing, meant, self.now.mono);
        let failed = |error: FirewallError| Failure::new("grants stay open", error);
        self.firewall.apply(&lost.changes).map_err(failed)?;
        let walked = self.turn_away(meant).map_err(failed)?;
        let closed = lost.claims.len() + walked;
        match &mut self.ledger {
            Ok(ledger) => ledger.lose(&lost, self.now).map_err(|error| {
                let what = format!(
                    "closed: {closed}, but the state could not note it, and a start may open them again"
                );
                Failure::new(what, error)
            })?,
            Err(why) => say(format_args!(
                "the state cannot be read ({why}): who shared an address with a key that was closed knocks again"
            )),
        }
        Ok(Revoked::of(closed, lost.changes))
    }

    /// Ends what the port sequence has opened; no key has a part in that.
    fn turn_away(&mut self, meant: &Meant<'_>) -> Result<usize, FirewallError> {
        if self.is_anothers {
            return Ok(0);
        }
        let walked = match self.firewall.walked(&self.config) {
            Err(FirewallError::Netlink(error)) if error.kind() == io::ErrorKind::NotFound => {
                Vec::new()
            }
            other => other?,
        };
        let is_meant = |address: &IpAddr| Who::means_walked(meant.who, *address);
        let walked = walked.into_iter().map(|(address, _)| address);
        let walked: Vec<IpAddr> = walked.filter(is_meant).collect();
        self.firewall.turn_away(&self.config, &walked)?;
        let count = walked.len();
        self.turned_away = walked;
        Ok(count)
    }

    /// Ends the connections that grants, or walks of the port sequence, have let in, live or
    /// past ones.
    pub fn cut(&mut self, who: Option<&Who>, generation: Option<u32>) -> Result<Cut, Failure> {
        let (key, address) = match who {
            None => (None, None),
            Some(Who::Key(key)) => (Some(key), None),
            Some(&Who::Address(address)) => (None, Some(address)),
        };
        if self.is_anothers {
            return Ok(Cut { ended: 0 });
        }
        let live_on = "connections live on";
        let ledger = self.ledger.as_ref();
        let ledger = ledger.map_err(|why| Failure::new(live_on, why))?;
        let places = ledger.places(key, generation, address);
        let mut places = places.map_err(|error| Failure::new(live_on, error))?;
        places.extend(Who::walked_places(who, &self.config, &self.turned_away));
        let meant = |service, address| places.contains(&Place { service, address });
        let ended = self.firewall.end(&self.config, meant);
        let ended = ended.map_err(|error| Failure::new(live_on, error))?;
        Ok(Cut { ended })
    }

    /// Whether there was such a key: its sessions may live on.
    #[must_use]
    pub fn knows(&self, name: &KeyName) -> bool {
        let places = |ledger: &Ledger| ledger.places(Some(name), None, None);
        let places = self.ledger.as_ref().ok().map(places);
        places.is_some_and(|places| places.is_ok_and(|places| !places.is_empty()))
    }

    /// Puts on disk what was noted. The state is not marked as left by a daemon that ended.
    pub fn finish(self) -> Result<(), Failure> {
        let Ok(ledger) = self.ledger else {
            return Ok(());
        };
        let closed = ledger.close();
        closed.map_err(|error| Failure::new("the state may lack what was closed", error))
    }
}

/// What ends, and what becomes of the addresses: those that another claim admits stay, for
/// that one's time. The kernel's own word counts for what the state does not know.
fn lost(claims: &[Claim], standing: &[Surviving], meant: &Meant<'_>, now: Duration) -> Lost {
    let live = || claims.iter().filter(|claim| claim.until > now);
    let of_claims = live().filter(|claim| meant.is_claim(claim));
    let mut ended: Vec<(Arc<KeyName>, Place)> = of_claims
        .map(|claim| (Arc::new(claim.key.clone()), claim.place))
        .collect();
    for one in standing {
        let is_known = live().any(|claim| claim.place == one.place && claim.key == one.key);
        if !is_known && meant.is(&one.key, one.place.address) {
            ended.push((Arc::new(one.key.clone()), one.place));
        }
    }
    let gone: BTreeSet<Place> = ended.iter().map(|(_, place)| *place).collect();
    let there = standing.iter().filter(|one| gone.contains(&one.place));
    let changes = there.map(|one| {
        let place = one.place;
        let others = live().filter(|claim| claim.place == place && !meant.is_claim(claim));
        match others.max_by_key(|claim| claim.until) {
            Some(claim) => Change::Admit {
                place,
                key: Arc::new(claim.key.clone()),
                time: claim.until.saturating_sub(now),
            },
            None => Change::Shut { place },
        }
    });
    Lost {
        changes: changes.collect(),
        claims: ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn place(last: u8) -> Place {
        Place {
            service: "ssh".parse().unwrap(),
            address: [192, 0, 2, last].into(),
        }
    }

    fn claim(key: &str, generation: u8, last: u8, left: u64) -> Claim {
        Claim {
            generation: GenerationId([generation; 16]),
            key: key.parse().unwrap(),
            place: place(last),
            until: NOW + Duration::from_secs(left),
        }
    }

    fn stands(key: &str, last: u8) -> Surviving {
        Surviving {
            key: key.parse().unwrap(),
            place: place(last),
            left: Duration::from_secs(60),
        }
    }

    fn key(name: &str) -> Who {
        Who::Key(name.parse().unwrap())
    }

    #[test]
    fn an_address_that_another_key_admits_too_stays_for_that_ones_time() {
        let claims = [claim("gone", 1, 7, 60), claim("stays", 2, 7, 20)];
        let who = key("gone");
        let meant = Meant::these(Some(&who), None);
        let lost = lost(&claims, &[stands("gone", 7)], &meant, NOW);
        let stays = Change::Admit {
            place: place(7),
            key: Arc::new("stays".parse().unwrap()),
            time: Duration::from_secs(20),
        };
        assert_eq!(lost.changes, [stays]);
        assert_eq!(lost.claims.len(), 1);
    }

    #[test]
    fn what_the_kernel_alone_knows_of_is_shut_by_the_name_beside_it() {
        let who = key("gone");
        let meant = Meant::these(Some(&who), Some(BTreeSet::new()));
        let standing = [stands("gone", 7), stands("stays", 8)];
        let lost = lost(&[], &standing, &meant, NOW);
        assert_eq!(lost.changes, [Change::Shut { place: place(7) }]);
    }

    #[test]
    fn what_another_generation_of_the_key_has_opened_stays() {
        let claims = [claim("laptop", 1, 7, 60), claim("laptop", 2, 8, 60)];
        let standing = [stands("laptop", 7), stands("laptop", 8)];
        let who = key("laptop");
        let first = BTreeSet::from([GenerationId([1; 16])]);
        let lost = lost(
            &claims,
            &standing,
            &Meant::these(Some(&who), Some(first)),
            NOW,
        );
        assert_eq!(lost.changes, [Change::Shut { place: place(7) }]);
    }

    #[test]
    fn what_the_kernel_has_ended_is_not_touched_there() {
        let claims = [claim("laptop", 1, 7, 60)];
        let lost = lost(&claims, &[], &Meant::these(None, None), NOW);
        assert_eq!((lost.changes.len(), lost.claims.len()), (0, 1));
    }
}
