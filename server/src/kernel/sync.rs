//! The allow entries in the kernel are made what they are to be: one batch for what is
//! dirty together.
//!
//! What was not written stays dirty, so that nothing is admitted for long that no grant
//! claims, and no grant lacks its entry, whatever failed before.

use super::address::{AddressFamily, address_of, octets};
use super::elements::{self, Element};
use super::error::KernelError;
use super::names::{TABLE, allow_set};
use super::netlink::{Batch, CREATE, CREATE_NEW, MAX_BATCH_ELEMENTS};
use super::nftables::Kernel;
use crate::engine::{AllowEntry, Desired, Now, Source, Target};
use oneknock_shared::name::{KeyName, ServiceName};
use std::collections::BTreeMap;
use std::time::Duration;

/// An allow entry as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedEntry {
    /// The key in its comment.
    pub key: KeyName,
    /// The service, and the source that it is open for.
    pub target: Target,
    /// For how long still.
    pub remaining: Duration,
}

/// What is to become of targets of one set.
#[derive(Debug, Default)]
pub(super) struct SetChange<'d> {
    /// All of them, each with a time that nothing is to last.
    targets: Vec<Element<'static>>,
    /// The entries of those that are to have one.
    entries: Vec<Element<'d>>,
}

/// What is to become of targets, by the name of the set.
pub(super) struct Changes<'d>(BTreeMap<String, SetChange<'d>>);

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

    fn write(&mut self, desired: &Desired, part: &[Target], now: Now) -> Result<(), KernelError> {
        let entries = part.iter().map(|of| (of, desired.allow().get(of)));
        let changes = Changes::new(entries, now);
        let is_new = part.iter().all(|target| desired.is_new(target));
        let new = changes.new_entries().filter(|_| is_new);
        self.commit_new(new, |batch| changes.any_entries(batch))
            .map(drop)
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
                        source: Source::of(address_of(&element.key)?),
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

impl<'d> Changes<'d> {
    /// Those that give these targets these entries, or none, where there is none or its time
    /// is over.
    pub fn new<'t>(
        all: impl Iterator<Item = (&'t Target, Option<&'d AllowEntry>)>,
        now: Now,
    ) -> Self {
        let mut sets: BTreeMap<String, SetChange<'d>> = BTreeMap::new();
        for (target, entry) in all {
            let change = sets.entry(set_of(target)).or_default();
            let key = octets(target.source.address());
            change.entries.extend(entry.and_then(|entry| {
                let time = entry.until.checked_sub(now.mono)?;
                (!time.is_zero()).then(|| Element {
                    comment: Some(entry.key.as_str()),
                    ..Element::timed(key.clone(), time)
                })
            }));
            let targets = &mut change.targets;
            targets.push(Element::timed(key, Duration::from_secs(1)));
        }
        Self(sets)
    }

    /// What adds the entries, where none is there yet and none is to be removed.
    pub fn new_entries(&self) -> Option<Batch> {
        let mut sets = self.0.values();
        let are_all = sets.all(|change| change.entries.len() == change.targets.len());
        are_all.then(|| Batch::of(|batch| self.add(batch, CREATE_NEW)))
    }

    /// Appends what makes them so, whichever of them are there.
    pub fn any_entries(&self, batch: &mut Batch) {
        for (set, change) in &self.0 {
            elements::remove(batch, set, &change.targets);
        }
        self.add(batch, CREATE);
    }

    /// Appends messages that add the entries.
    pub fn add(&self, batch: &mut Batch, flags: u16) {
        for (set, change) in &self.0 {
            elements::add(batch, flags, TABLE, set, &change.entries);
        }
    }
}

fn set_of(target: &Target) -> String {
    allow_set(target.service, AddressFamily::of(target.source.address()))
}
