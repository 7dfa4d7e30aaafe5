//! The prefilter while it runs. Its failure is a higher price for a flood, and nothing else.

use super::elements::{self, Element};
use super::error::KernelError;
use super::names::{PREFILTER_VERDICT, SELECTORS, TABLE};
use super::netlink::{Attributes, Batch, CREATE_NEW, INET, Writer, kind};
use super::nftables::Kernel;
use oneknock_shared::selector::Selector;
use std::time::Duration;

/// Selectors in one batch: the kernel takes a batch in one go, and knocks wait meanwhile.
const MAX_BATCH: usize = 1024;

impl Kernel {
    /// Lets packets with these selectors pass the prefilter, each for this long from now,
    /// also those that could pass before. A part of them may pass where it fails. No
    /// selector twice. Does nothing where this kernel can have no prefilter.
    pub fn fill_prefilter(
        &mut self,
        selectors: &[Selector],
        lifetime: Duration,
    ) -> Result<(), KernelError> {
        if !self.sets()?.contains(SELECTORS) {
            return Ok(());
        }
        let mut are_new = true;
        for part in selectors.chunks(MAX_BATCH) {
            let elements = part.iter();
            let elements = elements.map(|selector| Element::timed(selector.0.into(), lifetime));
            let elements: Vec<Element> = elements.collect();
            let new =
                || Batch::of(|batch| elements::add(batch, CREATE_NEW, TABLE, SELECTORS, &elements));
            // A refusal takes the kernel long: it is asked for one only.
            are_new = self.commit_new(are_new.then(new), |batch| {
                elements::renew(batch, SELECTORS, &elements);
            })?;
        }
        Ok(())
    }

    /// How many datagrams the prefilter has dropped since it was installed.
    pub fn prefilter_dropped(&mut self) -> Result<u64, KernelError> {
        // The kernel's numbers: expressions 4; in each, name 1 and data 2; in a counter's,
        // packets 2.
        let of = Writer::body(INET, |message| {
            message.text(1, TABLE);
            message.text(2, PREFILTER_VERDICT);
        });
        let counts = self.netlink.dump(kind::GET_RULE, &of, |rule| {
            let expressions = rule.attributes().nested(4).each();
            let expressions = expressions.map(|(_, one)| Attributes(one));
            let mut counters = expressions.filter(|one| one.text(1) == Some("counter"));
            counters.find_map(|one| one.nested(2).long(2))
        })?;
        Ok(counts.iter().sum())
    }
}
