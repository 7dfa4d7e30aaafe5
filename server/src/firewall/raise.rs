//! The guard is put up: in place of whatever stands, in one transaction, keeping the grants
//! that stand in it.

use super::names::{KNOCK, SIEVE};
use super::netlink::Netlink;
use super::shape::Shape;
use super::{Before, Firewall, FirewallError, How, NftFailed, Standing, TableIs};
use super::{nft, owned_by_another, ruleset, sequence, sieve, surviving};
use crate::config::{Config, Guard};
use std::collections::BTreeMap;
use std::io;

/// How often the guard is put up when something takes it down at the same moment.
const TRIES: usize = 3;

impl Firewall {
    /// Puts the guard up as this configuration wants it, and says what was there before:
    /// grants in sets that stay are kept. Where there was no table and `grace` is given,
    /// connections that are older than the guard live on.
    ///
    /// The rules change in one transaction. A table that this process owns is let go for
    /// it, and taken again; what another program does to it in that moment is seen.
    pub fn put_up(&mut self, config: &Config, grace: bool) -> Result<Before, FirewallError> {
        let mut first_was_up = None;
        for _ in 0..TRIES {
            let (Before { was_up, grants }, is_whole) = self.try_put_up(config, grace)?;
            let was_up = *first_was_up.get_or_insert(was_up);
            if is_whole {
                return Ok(Before { was_up, grants });
            }
        }
        Err(FirewallError::Contested)
    }

    fn try_put_up(
        &mut self,
        config: &Config,
        grace: bool,
    ) -> Result<(Before, bool), FirewallError> {
        // With its socket goes the ownership: nft could change nothing else.
        if self.owned {
            self.netlink = Netlink::open()?;
            self.owned = false;
        }
        let found = Standing::read(&mut self.netlink)?;
        let existed = found.is_some();
        let standing = found.unwrap_or_default();
        // A daemon that was killed at the wrong moment leaves a table with nothing in it.
        let was_up = standing.is_guard();
        let persistent = match (config.guard, existed) {
            (Guard::Watched, false) => false,
            (Guard::Owned, false) => make_persistent()?,
            (_, true) => standing.persistent,
        };
        if existed && persistent {
            // Whatever another program made of its flags meanwhile, such as dormant. With
            // this socket the ownership goes again.
            Netlink::open()?.adopt_table().map_err(owned_by_another)?;
        }
        self.wants_to_own = persistent && config.guard == Guard::Owned;
        let how = |table| How {
            table,
            grace: grace && !was_up,
        };
        let table = if persistent {
            TableIs::There
        } else {
            TableIs::Made
        };
        let mut rules = ruleset(config, &standing, how(table));
        let parts = sequence::parts(config);
        let barred = super::barred(config, &crate::gateways::read());
        let load = |rules: &_| nft::apply(rules).and_then(|()| parts.load(&barred));
        match load(&rules) {
            // Something stands in the way, such as a set of another kind under our name.
            Err(NftFailed::Failed(why)) if existed => {
                rules = ruleset(config, &Standing::default(), how(TableIs::Replaced));
                if load(&rules).is_err() {
                    self.own()?;
                    return Err(NftFailed::Failed(why).into());
                }
                // Made by a script it cannot be owned.
                self.wants_to_own = false;
            }
            Err(error) => {
                // Where the guard stands, and its sequence does not, it is left standing.
                let stands = Standing::read(&mut self.netlink)?.is_some_and(|s| s.is_guard());
                if persistent && !existed && !stands {
                    self.netlink.delete_table()?;
                } else {
                    self.own()?;
                }
                return Err(error.into());
            }
            Ok(()) => {}
        }
        self.barred = barred;
        self.no_sieve = nft::apply_text(&sieve::script(&config.listen)).err();
        self.own()?;
        let mut counts = ruleset::counts(&rules);
        counts.extend(parts.counts());
        counts.extend(sieve::counts(&config.listen));
        let whole = Shape::read(&mut self.netlink)?
            .filter(|(shape, _)| shape.is_sound() && self.has_rules(&shape.rules(), &counts));
        let is_whole = whole.is_some();
        // One that is not whole must not be taken for what it should be.
        (self.shape, self.generation) = whole.unwrap_or_default();
        self.connections.take_up(&mut self.netlink)?;
        // As they are now: what another program did meanwhile is in it.
        let standing = Standing::read(&mut self.netlink)?.unwrap_or_default();
        let (services, kept) = (&config.services, standing.elements.iter());
        let grants = kept.filter_map(|element| surviving(services, element));
        let before = Before {
            was_up,
            grants: grants.collect(),
        };
        Ok((before, is_whole))
    }

    fn has_rules(&self, is: &BTreeMap<String, usize>, wanted: &BTreeMap<String, usize>) -> bool {
        let matters = |chain: &str| self.no_sieve.is_none() || ![SIEVE, KNOCK].contains(&chain);
        let only = |of: &BTreeMap<String, usize>| -> Vec<(String, usize)> {
            let of = of.iter().filter(|(chain, _)| matters(chain));
            of.map(|(chain, rules)| (chain.clone(), *rules)).collect()
        };
        only(is) == only(wanted)
    }

    /// Takes the table, where that is wanted and it is there.
    pub(super) fn own(&mut self) -> Result<(), FirewallError> {
        if self.wants_to_own && !self.owned {
            match self.netlink.adopt_table() {
                Ok(()) => self.owned = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Makes the table so that it can be owned; it is let go again at once, for nft to fill.
/// Returns whether the kernel can.
fn make_persistent() -> io::Result<bool> {
    match Netlink::open()?.create_table() {
        Ok(()) => Ok(true),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
