//! The port sequence while it runs: blocked gateways, the steps of rolling sequences, and
//! what it has opened.

use super::address::{AddressFamily, address_of, octets};
use super::elements::{self, Element};
use super::error::KernelError;
use super::names::{self, GATEWAY, STANDALONE_TABLE};
use super::netlink::Batch;
use super::nftables::Kernel;
use super::state;
use nix::errno::Errno;
use oneknock_shared::name::ServiceName;
use oneknock_shared::rolling;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// A port that is a step of a rolling sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RollingStep {
    /// Which step, from 1.
    pub at: usize,
    /// The TCP port; it is this step of no other sequence.
    pub port: u16,
    /// What tells its sequence from others.
    pub id: u32,
    /// For how long from now.
    pub time: Duration,
}

impl Kernel {
    /// Makes these, and no others, the sources that the port sequence never admits, where
    /// there is one.
    pub fn block_gateways(&mut self, gateways: &[IpAddr]) -> Result<(), KernelError> {
        let set_of = |family| names::set_of(GATEWAY, family);
        if !self.sets()?.contains(&set_of(AddressFamily::V4)) {
            return Ok(());
        }
        let batch = Batch::of(|batch| {
            for family in AddressFamily::BOTH {
                let of = gateways.iter();
                let of = of.filter(|address| AddressFamily::of(**address) == family);
                let of: Vec<_> = of.map(|of| Element::permanent(octets(*of))).collect();
                elements::replace(batch, &set_of(family), &of);
            }
        });
        Ok(self.netlink.commit(batch)?)
    }

    /// Makes these, and no others, the steps of rolling sequences, all at once. That all of
    /// them are replaced keeps a port whose old element has not quite ended from standing in
    /// the way of the new one.
    pub fn roll(&mut self, steps: &[RollingStep]) -> Result<(), KernelError> {
        let batch = Batch::of(|batch| {
            for at in 1..=rolling::STEPS {
                let of = steps.iter().filter(|step| step.at == at);
                // Of two sequences with the same port the one that is told last has it.
                let ports: BTreeMap<u16, &RollingStep> = of.map(|step| (step.port, step)).collect();
                let elements = ports.into_values().map(|step| Element {
                    // A mark is a number of this machine's own.
                    data: Some(step.id.to_ne_bytes()),
                    ..Element::timed(step.port.to_be_bytes().to_vec(), step.time)
                });
                let elements: Vec<Element> = elements.collect();
                elements::replace(batch, &names::step_ports(at), &elements);
            }
        });
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
            let read = listed.iter();
            grants.extend(read.filter_map(|one| Some((address_of(&one.key)?, one.remaining?))));
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
                let batch = Batch::of(|batch| elements::replace(batch, &set, &[]));
                self.netlink.commit(batch)?;
                continue;
            };
            // One by one: one that is not there would fail the batch, and a full set takes none
            // that could be removed for certain.
            for of in self.elements(&set)? {
                if address_of(&of.key).is_some_and(|of| sources.contains(&of)) {
                    let batch = Batch::of(|batch| {
                        elements::delete(batch, &set, &[Element::permanent(of.key)]);
                    });
                    match self.netlink.commit(batch) {
                        Err(refused) if refused.errno() == Errno::ENOENT => {}
                        other => other?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether the table of [`super::standalone_sequence_text`] is there.
    pub fn has_standalone_sequence(&mut self) -> Result<bool, KernelError> {
        Ok(state::has_table(&mut self.netlink, STANDALONE_TABLE)?)
    }
}
