//! The prefilter while it runs. Its failure is a higher price for a flood, and nothing else.

use super::elements::{self, Element};
use super::names::{PREFILTER_VERDICT, SELECTORS, TABLE};
use super::netlink::{Attributes, Batch, CREATE_NEW, Writer, kind};
use super::ruleset;
use super::{Kernel, KernelError};
use nix::errno::Errno;
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
            if are_new {
                let mut batch = Batch::new();
                elements::add(&mut batch, CREATE_NEW, TABLE, SELECTORS, &elements);
                match self.netlink.commit(batch) {
                    Ok(()) => {
                        self.note_own_change();
                        continue;
                    }
                    // A refusal takes the kernel long: it is asked for one only.
                    Err(refused) if refused.errno() == Errno::EEXIST => are_new = false,
                    Err(refused) => return Err(refused.into()),
                }
            }
            self.commit_own(|| {
                let mut batch = Batch::new();
                elements::renew(&mut batch, SELECTORS, &elements);
                batch
            })?;
        }
        Ok(())
    }

    /// Lets every datagram of a knock's length pass the prefilter, until the next install:
    /// where it cannot be filled the engine does its work.
    pub fn open_prefilter(&mut self) -> Result<(), KernelError> {
        if !self.sets()?.contains(SELECTORS) {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.push(kind::DELETE_RULE, 0, of_verdict);
        for rule in ruleset::open_verdict() {
            ruleset::add_rule(&mut batch, TABLE, PREFILTER_VERDICT, &rule);
        }
        self.netlink.commit(batch)?;
        // Nothing else may have changed meanwhile.
        let before = self.known.take();
        let before = before.map(|known| known.state.without_rules(PREFILTER_VERDICT));
        self.remember(|state| {
            let now = state.clone().without_rules(PREFILTER_VERDICT);
            before.is_some_and(|before| before.changed(Some(&now)).is_none())
        });
        Ok(())
    }

    /// How many datagrams the prefilter has dropped since it was installed.
    pub fn prefilter_dropped(&mut self) -> Result<u64, KernelError> {
        // The kernel's numbers: expressions 4; in each, name 1 and data 2; in a counter's,
        // packets 2.
        let counted = |rule: Attributes<'_>| {
            let expressions = rule.nested(4).each().map(|(_, one)| Attributes::new(one));
            let mut counters = expressions.filter(|one| one.text(1) == Some("counter"));
            counters.find_map(|one| one.nested(2).long(2))
        };
        let counts = self.netlink.dump(kind::GET_RULE, of_verdict, counted)?;
        Ok(counts.iter().sum())
    }
}

fn of_verdict(message: &mut Writer<'_>) {
    message.text(1, TABLE);
    message.text(2, PREFILTER_VERDICT);
}
