//! Connections are listed and ended by the worker: a dump of them may be long.

use super::Daemon;
use crate::control::Reply;
use crate::control::answers::{Disconnected, ErrorBody, Revoked};
use crate::control::protocol::Selection;
use crate::engine::{Source, Target};
use crate::kernel::{
    BlockReason, ConnectionId, Connections, Disconnected as EndedConnections, GapRule, Snapshot,
};
use crate::observers::{self, Level};
use crate::server::{Disconnection, log_revoked};
use crate::store;
use std::collections::BTreeSet;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long the journal is waited for.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// So many targets of the port sequence are remembered; with more, only those that are open.
const MOST_BY_SEQUENCE: usize = 65_536;

/// What the worker knows of connections.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedConnections(Arc<Mutex<Connections>>);

impl SharedConnections {
    fn with<T>(&self, work: impl FnOnce(&mut Connections) -> T) -> T {
        // The worker is the only one that takes it; what a panic left is whole.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Waits until the journal holds what has happened; where it cannot, what is read from it says
/// so.
fn wait(flushed: Option<Receiver<Result<(), String>>>) {
    if let Some(flushed) = flushed {
        let _ = flushed.recv_timeout(FLUSH_WITHIN);
    }
}

impl Daemon {
    /// In monitored mode: takes note of the connections that there are; they may go on
    /// whatever becomes of the guard.
    pub(super) fn snapshot_connections(&mut self) {
        if self.server.kernel.is_exclusive() {
            return;
        }
        let guarded = self.server.guarded_connections();
        self.work(move || {
            let snapshot = Snapshot::read(&guarded.ports);
            move |daemon: &mut Daemon| daemon.keep_snapshot(snapshot)
        });
    }

    /// Not one that may hold connections made in a gap.
    fn keep_snapshot(&mut self, snapshot: Snapshot) {
        for failure in snapshot.failures() {
            observers::say(Level::Warning, "connections-not-listed", failure);
        }
        if !matches!(self.server.kernel.check_tampering(), Ok(None)) {
            let what = "another program changed the guard meanwhile";
            observers::say(Level::Warning, "connections-not-listed", what);
            return self.check_guard();
        }
        let shared = self.connections.clone();
        self.work(move || {
            shared.with(|known| known.add(&snapshot));
            |_: &mut Daemon| {}
        });
    }

    /// In monitored mode: takes note of what the port sequence has opened, which the kernel alone
    /// knows, and forgets where another program removes the table. To be called about once a
    /// second.
    pub(super) fn note_sequence_targets(&mut self) {
        if self.server.kernel.is_exclusive() {
            return;
        }
        let now = self.sequence_targets();
        self.by_sequence.extend(&now);
        if self.by_sequence.len() > MOST_BY_SEQUENCE {
            self.by_sequence = now;
        }
    }

    /// In monitored mode, after a repair: ends the connections that were made while the guard
    /// was not whole.
    pub(super) fn end_gap_connections(&mut self) {
        // On trial it is not whole by intent, now and then.
        if !self.server.settings.enforcing {
            return;
        }
        let now = self.server.clock.now();
        let admitted: BTreeSet<Source> = self
            .server
            .engine
            .grants(now, None)
            .map(|grant| grant.target.source)
            .collect();
        self.note_sequence_targets();
        let by_sequence = self.by_sequence.clone();
        let shared = self.connections.clone();
        let guarded = self.server.guarded_connections();
        let state = self.server.paths.state();
        let flushed = self.server.store.flush_journal();
        self.work(move || {
            wait(flushed);
            // Where the journal does not say, who had no grant now may go on.
            let granted = store::granted_since_boot(&state).unwrap_or_default();
            let rule = GapRule {
                was_granted: &|source| {
                    let since_boot = granted.as_ref();
                    admitted.contains(&source)
                        || since_boot.is_none_or(|granted| granted.contains(&source))
                },
                is_in_by_sequence: &|service, source| {
                    by_sequence.contains(&Target { service, source })
                },
            };
            let mut to_block: Vec<ConnectionId> = Vec::new();
            let block = |ids: &[ConnectionId]| {
                to_block.extend(ids);
                Ok(())
            };
            let ended = guarded
                .with(|guard| shared.with(|known| known.end_gap_connections(guard, &rule, block)));
            move |daemon: &mut Daemon| {
                daemon.block(&to_block, BlockReason::MadeInGap);
                if ended.ended > 0 {
                    let count = ended.ended;
                    observers::write(
                        Level::Warning,
                        format_args!("gap-connections-ended connections={count}"),
                    );
                }
                for failure in ended.failures {
                    observers::say(Level::Error, "gap-connections-may-live", failure);
                }
            }
        });
    }

    fn block(&mut self, connections: &[ConnectionId], reason: BlockReason) {
        if connections.is_empty() {
            return;
        }
        let now = self.server.clock.now();
        if let Err(error) = self.server.block(now, connections, reason) {
            observers::say(Level::Error, "connections-not-blocked", error);
        }
    }

    /// Ends the connections of a selection, and answers then.
    pub(super) fn disconnect(
        &mut self,
        disconnection: Disconnection,
        of: Selection,
        mut revoked: Revoked,
        reply: Reply,
        uid: u32,
    ) {
        let flushed = self.server.store.flush_journal();
        self.work(move || {
            wait(flushed);
            let mut to_block: Vec<ConnectionId> = Vec::new();
            let result = disconnection.run(|ids| {
                to_block.extend(ids);
                Ok(())
            });
            move |daemon: &mut Daemon| {
                daemon.block(&to_block, BlockReason::Disconnected);
                let failed = |why: &str| {
                    Err(ErrorBody::new(format_args!(
                        "connections may live on: {why}"
                    )))
                };
                let failure =
                    |done: &EndedConnections| done.failures.first().map(ToString::to_string);
                let answer = match result.and_then(|done| failure(&done).map_or(Ok(done), Err)) {
                    Err(error) => failed(&error),
                    Ok(done) => {
                        revoked.disconnected = Some(Disconnected {
                            ended: done.ended,
                            remaining: done.remaining,
                        });
                        log_revoked(&of, &revoked, uid);
                        Ok(revoked)
                    }
                };
                reply.send(answer);
            }
        });
    }
}
