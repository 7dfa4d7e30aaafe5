//! The guard on trial: its doors are reached only while an element of a set has time left.
//! When that ends the kernel has opened them again, and needs no process for it.

use super::elements::{many, retried, timeout};
use super::names::{GRACE, TRIAL};
use super::netlink::{Netlink, Step};
use super::standing;
use netlink_packet_netfilter::nftables::{DataAttribute, NfTablesMessage, SetElementAttribute};
use std::io;
use std::time::Duration;

/// The protocols that a door may be for, by their numbers.
const PROTOCOLS: [u8; 2] = [6, 17];
/// Connections older than the guard are TCP's, and have so long to show themselves.
const GRACE_FOR: (u8, Duration) = (6, Duration::from_secs(60));

/// A trial that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// For how long it was begun.
    pub time: Duration,
    /// What is left of that.
    pub left: Duration,
}

/// Shuts the doors for so long, all at once; connections that are open live on.
/// `NotFound` where the guard that stands is not one on trial.
pub fn begin(netlink: &mut Netlink, time: Duration) -> io::Result<()> {
    let of_trial = PROTOCOLS.map(|protocol| (TRIAL, protocol, time));
    let (protocol, grace) = GRACE_FOR;
    let all = of_trial.into_iter().chain([(GRACE, protocol, grace)]);
    // As with grants: adding alone refreshes nothing on many kernels.
    let steps = all.flat_map(|(set, protocol, time)| {
        let one = |time| many(set, vec![element(protocol, time)]);
        [
            Step::create(NfTablesMessage::NewSetElement(one(Some(time)))),
            Step::change(NfTablesMessage::DeleteSetElement(one(None))),
            Step::create(NfTablesMessage::NewSetElement(one(Some(time)))),
        ]
    });
    let steps: Vec<Step> = steps.collect();
    retried(|| netlink.commit(&steps))
}

fn element(protocol: u8, time: Option<Duration>) -> Vec<SetElementAttribute> {
    let key = SetElementAttribute::Key(DataAttribute::Value(vec![protocol]));
    [key].into_iter().chain(time.map(timeout)).collect()
}

/// The trial that goes on; `None` where there is none, and none that has not ended.
pub fn read(netlink: &mut Netlink) -> io::Result<Option<Trial>> {
    let listed = match standing::list(netlink, TRIAL) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    // The kernel's numbers: timeout 4, expiration 5, both in milliseconds.
    let time = |one: &_, kind| {
        let ms = standing::value(one, kind)?.try_into().ok()?;
        Some(Duration::from_millis(u64::from_be_bytes(ms)))
    };
    let trials = listed.iter().filter_map(|one| {
        let (time, left) = (time(one, 4)?, time(one, 5)?);
        (!left.is_zero()).then_some(Trial { time, left })
    });
    Ok(trials.min_by_key(|trial| trial.left))
}
