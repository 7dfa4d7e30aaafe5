//! Each key's last closes: an open that is not later is refused, however late it comes.

use super::grant::Source;
use super::spend::Spend;
use super::state::Close;
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::{KeyName, ServiceName};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The key's close of a service, or of every service, for a source.
type CloseKey = (Arc<KeyName>, Option<ServiceName>, Source);

/// The last closes of all keys, as far as an open that precedes one can still come.
#[derive(Debug, Default)]
pub(super) struct Closes(BTreeMap<CloseKey, Timestamp>);

impl Closes {
    /// Takes note of a close. One that comes late does not let in what a later one holds
    /// back.
    pub(super) fn insert(
        &mut self,
        key: &Arc<KeyName>,
        service: Option<ServiceName>,
        source: Source,
        at: Timestamp,
    ) {
        let last = self.0.entry((Arc::clone(key), service, source));
        let last = last.or_insert(at);
        *last = at.max(*last);
    }

    /// When the key has closed the service for the spend's source last, by itself or with
    /// every other.
    pub(super) fn last(&self, spend: &Spend, service: ServiceName) -> Option<Timestamp> {
        if self.0.is_empty() {
            return None;
        }
        let of = |service| {
            let closed = (Arc::clone(&spend.key), service, spend.source);
            self.0.get(&closed).copied()
        };
        of(Some(service)).max(of(None))
    }

    /// Forgets those that are older than `oldest`, and tells of each.
    pub(super) fn prune(
        &mut self,
        oldest: Timestamp,
        mut forgotten: impl FnMut(&KeyName, Timestamp),
    ) {
        self.0.retain(|(key, ..), at| {
            let is_kept = *at >= oldest;
            if !is_kept {
                forgotten(key, *at);
            }
            is_kept
        });
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = Close> {
        let all = self.0.iter();
        all.map(|((key, service, source), at)| Close {
            key: (**key).clone(),
            service: *service,
            source: *source,
            at: *at,
        })
    }
}
