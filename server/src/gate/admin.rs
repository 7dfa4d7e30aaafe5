//! What the administrator asks of the gate: who holds what, and to end it.

use super::{Gate, Lost, Now, Place};
use oneknock_shared::name::KeyName;
use std::sync::Arc;
use std::time::Duration;

/// A live claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Whose.
    pub key: Arc<KeyName>,
    /// Who to where.
    pub place: Place,
    /// The time that it has left; more than zero.
    pub left: Duration,
}

/// Claims that were ended before their time.
#[derive(Debug, Default)]
pub struct Ended {
    /// What to change in the firewall and to note in the ledger.
    pub lost: Lost,
    /// The claims as they were.
    pub claims: Vec<Held>,
}

impl Gate {
    /// Live claims in the order of service, address and key, from the first on that
    /// comes after this one.
    pub fn held<'g>(
        &'g self,
        now: Now,
        after: Option<(Place, &'g KeyName)>,
    ) -> impl Iterator<Item = Held> + 'g {
        let claims = self.claims.after(now.mono, after);
        claims.map(|(key, place, left)| Held {
            key: Arc::clone(key),
            place,
            left,
        })
    }

    /// Ends the live claims that are `meant`. [`Gate::keep`] takes that back where the
    /// firewall cannot be changed.
    pub fn end(&mut self, now: Now, meant: impl Fn(&KeyName, &Place) -> bool) -> Ended {
        let claims = self.held(now, None);
        let claims = claims.filter(|h| meant(&h.key, &h.place)).collect();
        let lost = self
            .claims
            .retain(now.mono, |key, place| !meant(key, place));
        Ended { lost, claims }
    }

    /// Takes back what [`Gate::end`] did.
    pub fn keep(&mut self, now: Now, ended: &Ended) {
        for Held { key, place, left } in &ended.claims {
            self.claims.adopt(key, *place, now.mono + *left);
        }
    }
}
