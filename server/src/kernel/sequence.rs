//! The port sequence while it runs: blocked gateways, the steps of rolling sequences, and
//! what it has opened.

use super::elements::{self, Element, Lifetime};
use super::names::{self, AddressFamily, STANDALONE_TABLE};
use super::netlink::{Batch, CREATE, MAX_BATCH_ELEMENTS};
use super::ruleset::octets;
use super::{Kernel, KernelError, RollingStep, state};
use nix::errno::Errno;
use oneknock_shared::name::ServiceName;
use oneknock_shared::rolling;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

impl Kernel {
    /// Makes these, and no others, the sources that the port sequence never admits. Costs
    /// nothing where they are those that it was told last, or there is no sequence.
    pub fn block_gateways(&mut self, gateways: &[IpAddr]) -> Result<(), KernelError> {
        let gateways: BTreeSet<IpAddr> = gateways.iter().copied().collect();
        if gateways == self.gateways
            || !self
                .sets()?
                .contains(&names::gateway_set(AddressFamily::V4))
        {
            return Ok(());
        }
        let mut batch = Batch::new();
        for family in AddressFamily::BOTH {
            let set = names::gateway_set(family);
            let of = gateways
                .iter()
                .filter(|ip| AddressFamily::of(**ip) == family);
            let of = of.map(|ip| Element {
                lifetime: Lifetime::Permanent,
                ..Element::timed(octets(*ip), Duration::ZERO)
            });
            elements::flush(&mut batch, &set);
            elements::add(
                &mut batch,
                CREATE,
                names::TABLE,
                &set,
                &of.collect::<Vec<_>>(),
            );
        }
        self.netlink.commit(batch)?;
        self.gateways = gateways;
        Ok(())
    }

    /// Makes these, and no others, the steps of rolling sequences, all at once. That all of
    /// them are replaced keeps a port whose old element has not quite ended from standing in
    /// the way of the new one.
    pub fn roll(&mut self, steps: &[RollingStep]) -> Result<(), KernelError> {
        let mut batch = Batch::new();
        for at in 1..=rolling::STEPS {
            let of = steps.iter().filter(|step| step.at == at);
            // Of two sequences with the same port the one that is told last has it.
            let ports: BTreeMap<u16, &RollingStep> = of.map(|step| (step.port, step)).collect();
            let elements = ports.into_values().map(|step| Element {
                // A mark is a number of this machine's own.
                data: Some(step.id.to_ne_bytes()),
                ..Element::timed(step.port.to_be_bytes().to_vec(), step.time)
            });
            let map = names::step_ports(at);
            elements::flush(&mut batch, &map);
            let elements: Vec<Element> = elements.collect();
            elements::add(&mut batch, CREATE, names::TABLE, &map, &elements);
        }
        Ok(self.netlink.commit(batch)?)
    }

    /// The sources that the port sequence has admitted to its service, and for how long
    /// still.
    pub fn sequence_grants(
        &mut self,
        service: ServiceName,
    ) -> Result<Vec<(IpAddr, Duration)>, KernelError> {
        let mut grants = Vec::new();
        for family in AddressFamily::BOTH {
            let listed = self.elements(&names::sequence_set(service, family))?;
            grants.extend(listed.into_iter().filter_map(|element| {
                Some((elements::address(&element.key)?, element.remaining?))
            }));
        }
        Ok(grants)
    }

    /// Ends what the port sequence has opened for these sources, or for all. What is not
    /// there is no error. A source that knows the sequence can open it again.
    pub fn revoke_sequence_grants(
        &mut self,
        service: ServiceName,
        sources: Option<&[IpAddr]>,
    ) -> Result<(), KernelError> {
        for family in AddressFamily::BOTH {
            let set = names::sequence_set(service, family);
            let Some(sources) = sources else {
                let mut batch = Batch::new();
                elements::flush(&mut batch, &set);
                self.netlink.commit(batch)?;
                continue;
            };
            let of = sources
                .iter()
                .filter(|ip| AddressFamily::of(**ip) == family);
            let keys = of.map(|ip| Element::timed(octets(*ip), Duration::from_secs(1)));
            self.remove_grants(&set, &keys.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Whether the table of [`super::standalone_sequence_text`] is there.
    pub fn has_standalone_sequence(&mut self) -> Result<bool, KernelError> {
        Ok(state::has_table(&mut self.netlink, STANDALONE_TABLE)?)
    }

    fn remove_grants(&mut self, set: &str, grants: &[Element<'_>]) -> Result<(), KernelError> {
        for part in grants.chunks(MAX_BATCH_ELEMENTS) {
            let all = self.commit_own(|| {
                let mut batch = Batch::new();
                elements::remove(&mut batch, set, part);
                batch
            });
            match all {
                // It is full, and takes none that it lacks. Those that it has go one by one.
                Err(KernelError::Refused { source, .. }) if is_full(&source) => {
                    self.delete_each(set, part)?;
                }
                other => other?,
            }
        }
        Ok(())
    }

    fn delete_each(&mut self, set: &str, elements: &[Element<'_>]) -> Result<(), KernelError> {
        for one in elements {
            let mut batch = Batch::new();
            elements::delete(&mut batch, set, std::slice::from_ref(one));
            match self.netlink.commit(batch) {
                Err(refused) if refused.errno() == Errno::ENOENT => {}
                other => other?,
            }
        }
        Ok(())
    }
}

fn is_full(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENFILE as i32)
}
