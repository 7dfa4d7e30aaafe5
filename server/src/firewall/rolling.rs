//! The ports that are steps of rolling sequences, as the daemon says them: maps whose
//! elements have timeouts.

use super::elements;
use super::names::TABLE;
use super::netlink::{Netlink, Step};
use netlink_packet_netfilter::nftables::{
    DataAttribute, NfTablesMessage, SetElementAttribute, SetElementList, SetElementMessage,
};
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

/// Lets these be steps; all, or none.
pub fn fill(netlink: &mut Netlink, steps: &[RollingStep]) -> io::Result<()> {
    // One message for each map: a batch of very many is not answered as a whole.
    let added = (1..=rolling::STEPS).filter_map(|at| {
        let of = steps.iter().filter(|step| step.at == at);
        let elements: Vec<_> = of.map(element).collect();
        if elements.is_empty() {
            return None;
        }
        let message = elements::many(&port_map(at), elements);
        Some(Step::create(NfTablesMessage::NewSetElement(message)))
    });
    let added: Vec<Step> = added.collect();
    // Nor is an empty one at all.
    if added.is_empty() {
        return Ok(());
    }
    netlink.commit(&added)
}

fn element(step: &RollingStep) -> Vec<SetElementAttribute> {
    vec![
        SetElementAttribute::Key(DataAttribute::Value(step.port.to_be_bytes().to_vec())),
        // A mark is a number of this machine's own.
        SetElementAttribute::Data(DataAttribute::Value(step.id.to_ne_bytes().to_vec())),
        elements::timeout(step.time),
    ]
}

/// Lets nothing be a step of a rolling sequence any more.
pub fn empty(netlink: &mut Netlink) -> io::Result<()> {
    let emptied = (1..=rolling::STEPS).map(|at| {
        // Without elements it is all of them.
        let attributes = vec![
            SetElementList::Table(TABLE.into()),
            SetElementList::Set(port_map(at)),
        ];
        let message = SetElementMessage { attributes };
        Step::change(NfTablesMessage::DeleteSetElement(message))
    });
    netlink.commit(&emptied.collect::<Vec<_>>())
}
