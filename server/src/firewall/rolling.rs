//! The ports that are steps of rolling sequences, as the daemon says them: maps whose
//! elements have timeouts.

use super::elements::{self, emptied};
use super::netlink::{Netlink, Step};
use netlink_packet_netfilter::nftables::{DataAttribute, NfTablesMessage, SetElementAttribute};
use oneknock_shared::rolling;
use std::io;
use std::time::Duration;

/// A map of the ports that are this step of some sequence.
pub fn port_map(at: usize) -> String {
    format!("port_{at}")
}

/// A port that is a step of a rolling sequence for a time from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RollingStep {
    /// Which step, from 1.
    pub at: usize,
    /// The TCP port; it is this step of no other sequence.
    pub port: u16,
    /// What tells its sequence from others.
    pub id: u32,
    /// For how long.
    pub time: Duration,
}

/// Lets these be steps, besides those that are or, `anew`, in their place; all at once, or
/// nothing of it.
pub fn fill(netlink: &mut Netlink, steps: &[RollingStep], anew: bool) -> io::Result<()> {
    let mut batch: Vec<Step> = Vec::new();
    if anew {
        batch.extend((1..=rolling::STEPS).map(|at| emptied(&port_map(at))));
    }
    // One message for each map: a batch of very many is not answered as a whole.
    for at in 1..=rolling::STEPS {
        let of = steps.iter().filter(|step| step.at == at);
        let elements: Vec<_> = of.map(element).collect();
        if !elements.is_empty() {
            let message = elements::many(&port_map(at), elements);
            batch.push(Step::create(NfTablesMessage::NewSetElement(message)));
        }
    }
    // Nor is an empty one at all.
    if batch.is_empty() {
        return Ok(());
    }
    netlink.commit(&batch)
}

fn element(step: &RollingStep) -> Vec<SetElementAttribute> {
    vec![
        SetElementAttribute::Key(DataAttribute::Value(step.port.to_be_bytes().to_vec())),
        // A mark is a number of this machine's own.
        SetElementAttribute::Data(DataAttribute::Value(step.id.to_ne_bytes().to_vec())),
        elements::timeout(step.time),
    ]
}
