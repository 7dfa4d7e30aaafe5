//! Grants are ended before their time, and connections with them.

use super::Server;
use crate::control::answers::{ListedGrant, MOST_LISTED, Revoked};
use crate::control::protocol::Selection;
use crate::engine::{Grant, Now, Source, Target};
use crate::kernel::KernelError;
use crate::kernel::{self, BlockReason, ConnectionId, Disconnected, GuardContext, GuardedPorts};
use crate::observers::{self, Level};
use crate::store::{self, ConnectionFilter};
use ipnet::IpNet;
use oneknock_shared::name::ServiceName;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

/// What the guard guards, for a thread that looks at connections.
#[derive(Debug, Clone)]
pub struct GuardedConnections {
    /// The guarded ports.
    pub ports: GuardedPorts,
    trusted: Vec<IpNet>,
    blocked: BTreeSet<ConnectionId>,
}

impl GuardedConnections {
    /// Does what needs it.
    pub fn with<T>(&self, work: impl FnOnce(&GuardContext<'_>) -> T) -> T {
        let is_trusted = |address: IpAddr| self.trusted.iter().any(|net| net.contains(&address));
        work(&GuardContext {
            ports: &self.ports,
            is_trusted: &is_trusted,
            blocked: &self.blocked,
        })
    }
}

/// Why it is not known whether all was ended.
const INCOMPLETE: &str = "the journal does not know all that was opened since boot; \
     what it knows was ended, and \"revoke --all --disconnect\" ends every connection";

/// Which connections are to be ended. It is looked for, and done, on a thread that may take
/// its time: [`Disconnection::run`].
#[derive(Debug)]
pub struct Disconnection {
    of: Selection,
    generations: Vec<u32>,
    state: PathBuf,
    guarded: GuardedConnections,
    /// What is known without the journal: what just ended, and who came by the sequence.
    targets: BTreeSet<Target>,
}

impl Server {
    /// Ends the grants of a selection, and of these generations alone where there are any.
    /// What the port sequence has opened ends with an address or with everything.
    pub fn revoke(
        &mut self,
        now: Now,
        of: &Selection,
        generations: &[u32],
    ) -> Result<(Revoked, BTreeSet<Target>), KernelError> {
        let is_meant = |grant: &Grant| {
            of.includes(&grant.key, grant.target.source.address())
                && (generations.is_empty() || generations.contains(&grant.number))
        };
        let ended = self.engine.revoke(now, is_meant);
        let mut targets: BTreeSet<Target> = ended.iter().map(|grant| grant.target).collect();
        let still = self.engine.grants(now, None);
        let still = still.filter(|grant| targets.contains(&grant.target));
        let still = still.map(|grant| ListedGrant::of(grant, now.mono));
        let mut revoked = Revoked {
            revoked: ended.len(),
            still: still.take(MOST_LISTED).collect(),
            disconnected: None,
        };
        let result = self.carry_out_in_kernel(now);
        // Without a table nothing is open; whoever makes it again makes it as desired.
        without_table(result)?;
        let walked = self.revoke_sequence(of)?;
        revoked.revoked += walked.len();
        targets.extend(walked);
        Ok((revoked, targets))
    }

    /// Ends what the port sequence has opened for a selection.
    fn revoke_sequence(&mut self, of: &Selection) -> Result<Vec<Target>, KernelError> {
        let Some(sequence) = &self.settings.config.sequence else {
            return Ok(Vec::new());
        };
        let service = sequence.service;
        let listed = without_table(self.kernel.sequence_grants(service))?.into_iter();
        let meant = listed.filter(|(address, _)| of.includes_sequence(*address));
        let meant: Vec<IpAddr> = meant.map(|(address, _)| address).collect();
        if *of == Selection::All && !meant.is_empty() {
            self.kernel.revoke_sequence_grants(service, None)?;
        } else if !meant.is_empty() {
            self.kernel.revoke_sequence_grants(service, Some(&meant))?;
        }
        let target = |address| Target {
            service,
            source: Source::of(address),
        };
        Ok(meant.into_iter().map(target).collect())
    }

    /// What the guard guards now.
    #[must_use]
    pub fn guarded_connections(&self) -> GuardedConnections {
        let services = self.settings.config.services.iter();
        GuardedConnections {
            ports: GuardedPorts::new(services.map(|s| (s.name, s.ports.clone())).collect()),
            trusted: self.settings.config.trusted.clone(),
            blocked: self.blocked.ids(),
        }
    }

    /// Which connections a selection has let in, besides those to these targets.
    #[must_use]
    pub fn disconnection(
        &self,
        of: &Selection,
        generations: &[u32],
        targets: BTreeSet<Target>,
    ) -> Disconnection {
        Disconnection {
            of: of.clone(),
            generations: generations.to_vec(),
            state: self.paths.state(),
            guarded: self.guarded_connections(),
            targets,
        }
    }

    /// Drops the packets of these connections from now on.
    pub fn block(
        &mut self,
        now: Now,
        connections: &[ConnectionId],
        reason: BlockReason,
    ) -> Result<(), KernelError> {
        self.blocked
            .block(now.mono, connections, reason, &mut self.kernel)
    }
}

impl Disconnection {
    /// Ends the connections; `block` is asked for those that no socket of this machine holds.
    pub fn run(
        self,
        block: impl FnOnce(&[ConnectionId]) -> std::io::Result<()>,
    ) -> Result<Disconnected, String> {
        let Self {
            of,
            generations,
            state,
            guarded,
            mut targets,
        } = self;
        guarded.with(|context| {
            if of == Selection::All {
                return Ok(kernel::disconnect_all(context, block));
            }
            let address = of.address();
            let mut numbers: Vec<Option<u32>> = generations.into_iter().map(Some).collect();
            if numbers.is_empty() {
                numbers.push(None);
            }
            for number in numbers {
                let filter = ConnectionFilter {
                    key: of.key(),
                    number,
                    source: address.map(Source::of),
                };
                let opened = store::opened_targets(&state, &filter);
                targets.extend(opened.map_err(|error| format!("the journal: {error}"))?);
            }
            let is_meant = |service: ServiceName, source: Source| {
                targets.contains(&Target { service, source })
                    || address.is_some_and(|address| source.contains(address))
            };
            let done = kernel::disconnect(context, is_meant, block);
            // What an address has is known without it.
            let known = address.is_some() || store::knows_all_since_boot(&state).unwrap_or(false);
            if known {
                Ok(done)
            } else {
                Err(INCOMPLETE.into())
            }
        })
    }
}

/// Nothing is in a table that is not there.
pub(super) fn without_table<T: Default>(result: Result<T, KernelError>) -> Result<T, KernelError> {
    match result {
        Err(KernelError::Missing(_)) => Ok(T::default()),
        other => other,
    }
}

/// Says how it went, in the log.
pub fn log_revoked(of: &Selection, revoked: &Revoked, uid: u32) {
    let count = revoked.revoked;
    let mut line = format!("asked-to-revoke of=\"{of}\" grants={count} uid={uid}");
    if let Some(disconnected) = &revoked.disconnected {
        line = format!("{line} connections={}", disconnected.ended);
    }
    observers::write(Level::Info, line);
}
