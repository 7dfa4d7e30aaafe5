//! The allow entries in the kernel are made what they are to be: one batch for what is
//! dirty together.
//!
//! What was not written stays dirty, so that nothing is admitted for long that no grant
//! claims, and no grant lacks its entry, whatever failed before.

use super::elements::{self, Element, Lifetime};
use super::names::{AddressFamily, TABLE, allow_set};
use super::netlink::{Batch, CREATE, CREATE_NEW, MAX_BATCH_ELEMENTS};
use super::ruleset::octets;
use super::{Kernel, KernelError, ListedEntry};
use crate::engine::{AllowEntry, Desired, Now, Source, Target};
use nix::errno::Errno;
use oneknock_shared::name::ServiceName;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a target is to have: an entry, or none.
pub(super) type WantedEntry<'d> = (Target, Option<Element<'d>>);

impl Kernel {
    /// Makes the dirty targets' allow entries what they are to be. What was written is
    /// clean afterwards; on an error the rest stays dirty and is to be tried again.
    pub fn sync(&mut self, desired: &mut Desired, now: Now) -> Result<(), KernelError> {
        if desired.dirty().is_empty() {
            return Ok(());
        }
        let sets = self.sets()?;
        let mut result = Ok(());
        let (mut targets, mut gone) = (Vec::new(), Vec::new());
        for target in desired.dirty() {
            let set = set_of(target);
            if sets.contains(&set) {
                targets.push(*target);
            } else if desired.allow().contains_key(target) {
                result = Err(KernelError::Missing(format!("set {set}")));
            } else {
                // A service that is guarded no longer: its set is gone, and all in it.
                gone.push(*target);
            }
        }
        desired.clean(&gone);
        for part in targets.chunks(MAX_BATCH_ELEMENTS) {
            match self.write(desired, part, now) {
                Ok(()) => desired.clean(part),
                Err(error) => result = Err(error),
            }
        }
        if matches!(result, Err(KernelError::Missing(_))) {
            self.sets = None;
        }
        result
    }

    fn write(
        &mut self,
        desired: &Desired,
        targets: &[Target],
        now: Now,
    ) -> Result<(), KernelError> {
        let allow = desired.allow();
        let all = targets.iter();
        let sets = by_set(all.map(|target| wanted(target, allow.get(target), now)));
        // Most are new, and then one message does. It is tried only where it should succeed:
        // the kernel takes a thousand times as long to refuse a batch.
        let is_new = targets.iter().all(|target| desired.is_new(target));
        if let Some(batch) = new_entries(&sets).filter(|_| is_new) {
            match self.netlink.commit(batch) {
                Ok(()) => {
                    self.note_own_change();
                    return Ok(());
                }
                Err(refused) if refused.errno() == Errno::EEXIST => {}
                Err(refused) => return Err(refused.into()),
            }
        }
        self.commit_own(|| any_entries(&sets))
    }

    /// The allow entries of these services, as the kernel lists them.
    pub fn allow_entries(
        &mut self,
        services: &[ServiceName],
    ) -> Result<Vec<ListedEntry>, KernelError> {
        let mut entries = Vec::new();
        for service in services {
            for family in AddressFamily::BOTH {
                let listed = self.elements(&allow_set(*service, family))?;
                entries.extend(listed.into_iter().filter_map(|element| {
                    let target = Target {
                        service: *service,
                        source: Source::of(elements::address(&element.key)?),
                    };
                    Some(ListedEntry {
                        key: element.comment?.parse().ok()?,
                        target,
                        remaining: element.remaining?,
                    })
                }));
            }
        }
        Ok(entries)
    }
}

/// Appends messages that add every allow entry of these services to sets that have none.
pub(super) fn add_all(batch: &mut Batch, desired: &Desired, now: Now, services: &[ServiceName]) {
    let entries = desired.allow().iter();
    let entries = entries.filter(|(target, _)| services.contains(&target.service));
    let sets = by_set(entries.map(|(target, entry)| wanted(target, Some(entry), now)));
    for (set, wanted) in &sets {
        elements::add(batch, CREATE, TABLE, set, &present(wanted));
    }
}

fn set_of(target: &Target) -> String {
    allow_set(target.service, AddressFamily::of(target.source.address()))
}

/// What a target is to have; nothing where the entry's time is over.
pub(super) fn wanted<'d>(
    target: &Target,
    entry: Option<&'d AllowEntry>,
    now: Now,
) -> WantedEntry<'d> {
    (*target, entry.and_then(|entry| element(target, entry, now)))
}

fn element<'d>(target: &Target, entry: &'d AllowEntry, now: Now) -> Option<Element<'d>> {
    let time = entry.until.checked_sub(now.mono).filter(|t| !t.is_zero())?;
    Some(Element {
        lifetime: Lifetime::For(time),
        comment: Some(entry.key.as_str()),
        ..key(target)
    })
}

/// A target's key, with a time that nothing is to last.
fn key(target: &Target) -> Element<'static> {
    Element::timed(octets(target.source.address()), Duration::from_secs(1))
}

pub(super) fn by_set<'d>(
    wanted: impl Iterator<Item = WantedEntry<'d>>,
) -> BTreeMap<String, Vec<WantedEntry<'d>>> {
    let mut sets: BTreeMap<String, Vec<WantedEntry<'d>>> = BTreeMap::new();
    for one in wanted {
        sets.entry(set_of(&one.0)).or_default().push(one);
    }
    sets
}

fn present<'d>(wanted: &[WantedEntry<'d>]) -> Vec<Element<'d>> {
    wanted
        .iter()
        .filter_map(|(_, element)| element.clone())
        .collect()
}

/// What adds these entries, of which none is there yet. `None` where one is to be removed.
pub(super) fn new_entries(sets: &BTreeMap<String, Vec<WantedEntry<'_>>>) -> Option<Batch> {
    let mut batch = Batch::new();
    for (set, wanted) in sets {
        if wanted.iter().any(|(_, element)| element.is_none()) {
            return None;
        }
        elements::add(&mut batch, CREATE_NEW, TABLE, set, &present(wanted));
    }
    Some(batch)
}

/// What makes these entries so, whichever of them are there.
pub(super) fn any_entries(sets: &BTreeMap<String, Vec<WantedEntry<'_>>>) -> Batch {
    let mut batch = Batch::new();
    for (set, wanted) in sets {
        let keys: Vec<Element> = wanted.iter().map(|(target, _)| key(target)).collect();
        elements::remove(&mut batch, set, &keys);
        elements::add(&mut batch, CREATE, TABLE, set, &present(wanted));
    }
    batch
}
