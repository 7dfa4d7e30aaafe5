//! The guard on trial: its services are guarded only while an element of a set has time
//! left. When that ends the kernel has opened them again, and needs no process for it.

use super::address::protocol_number;
use super::elements::{self, Element};
use super::error::KernelError;
use super::guard::GRACE_TIME;
use super::names::{GRACE, TRIAL};
use super::netlink::Batch;
use super::nftables::Kernel;
use oneknock_shared::port::Transport;
use std::time::Duration;

/// A trial that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrialState {
    /// For how long it was begun.
    pub length: Duration,
    /// What remains of that.
    pub remaining: Duration,
}

impl Kernel {
    /// Guards the service ports for this long, where the guard has the form of a trial.
    /// TCP connections that are open live on. [`KernelError::Missing`] where it does not.
    pub fn begin_trial(&mut self, time: Duration) -> Result<(), KernelError> {
        let of = |transport, time| Element::timed(vec![protocol_number(transport)], time);
        let trial = [Transport::Tcp, Transport::Udp].map(|transport| of(transport, time));
        let grace = [of(Transport::Tcp, GRACE_TIME)];
        self.commit_own(|batch| {
            elements::renew(batch, TRIAL, &trial);
            elements::renew(batch, GRACE, &grace);
        })
    }

    /// The trial that goes on; `None` where there is none, or it has ended.
    pub fn trial(&mut self) -> Result<Option<TrialState>, KernelError> {
        let listed = match self.elements(TRIAL) {
            Err(KernelError::Missing(_)) => return Ok(None),
            other => other?,
        };
        let trials = listed.iter().filter_map(|element| {
            let (length, remaining) = (element.timeout?, element.remaining?);
            let is_over = remaining.is_zero();
            (!is_over).then_some(TrialState { length, remaining })
        });
        Ok(trials.min_by_key(|trial| trial.remaining))
    }

    /// Ends a trial: the service ports are not guarded any more.
    pub fn end_trial(&mut self) -> Result<(), KernelError> {
        let batch = Batch::of(|batch| elements::replace(batch, TRIAL, &[]));
        Ok(self.netlink.commit(batch)?)
    }
}
