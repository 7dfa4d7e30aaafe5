//! The guard in the kernel: one description of its ruleset, which prints as nft text and is
//! installed as one netlink batch; the allow entries, made what they are to be. No program
//! is started for any of it.

mod blocked;
mod blocking;
mod connection;
mod connections;
mod elements;
mod error;
mod flows;
mod guard;
mod install;
mod latest;
mod message;
mod monitor;
mod names;
mod netlink;
mod notification;
mod notification_socket;
mod plan;
mod ports;
mod prefilter;
mod present;
mod query;
mod route_monitor;
mod routes;
mod ruleset;
mod sequence;
mod sockets;
mod state;
mod sync;
mod tampering;
#[cfg(test)]
mod tests;
mod trial;

pub use blocking::{BLOCK_TIME, BlockReason, BlockedConnections, BlockedSet};
pub use connection::ConnectionId;
pub use connections::{
    ConnectionError, Connections, Disconnected, GapRule, GuardContext, Snapshot,
};
pub use connections::{disconnect, disconnect_all, redirected};
pub use monitor::Monitor;
pub use notification::{ForeignChange, TableChange};
pub use ports::GuardedPorts;
pub use route_monitor::RouteMonitor;
pub use routes::{RouteError, default_gateways};

pub use error::KernelError;
pub use guard::{Guard, GuardMode, GuardedService, SequenceGuard, SequenceSteps};
pub use names::{STANDALONE_TABLE, TABLE};
pub use ruleset::standalone_sequence_text;

use crate::engine::Target;
use netlink::{Batch, Netlink, kind};
use nix::errno::Errno;
use oneknock_shared::name::KeyName;
use state::TableState;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tampering::KnownTable;

/// How often a batch is sent when elements end within it.
const MAX_COMMITS: usize = 3;

/// The way to the kernel's nftables. Where the guard is exclusive, this socket owns it.
#[derive(Debug)]
pub struct Kernel {
    netlink: Netlink,
    /// Whether the table is this process's: nothing else can change it then.
    owned: bool,
    /// The names of the table's sets, where they are known.
    sets: Option<BTreeSet<String>>,
    /// The gateways that the port sequence was told to block.
    gateways: BTreeSet<IpAddr>,
    /// The table as it was installed, where it was found whole.
    known: Option<KnownTable>,
}

/// What [`Kernel::install`] has done.
#[derive(Debug)]
pub struct Installed {
    /// What was there before; `None` where there was no table.
    pub before: Option<InstalledTable>,
    /// Whether the kernel keeps other programs off the table from now on.
    pub exclusive: bool,
    /// Parts besides the guard itself that this kernel cannot have, each with the reason.
    /// The guard holds without them: it costs more against floods without the prefilter,
    /// and the port sequence opens nothing.
    pub skipped: Vec<(OptionalPart, KernelError)>,
}

/// A part of the ruleset that the guard can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OptionalPart {
    /// What drops junk before connection tracking.
    Prefilter,
    /// The port sequence.
    Sequence,
}

/// When an installed guard guards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardForm {
    /// At all times.
    Enforcing,
    /// Only while a trial lasts.
    Trial,
}

/// The table `inet oneknock` as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledTable {
    /// The form of the guard in it; `None` where there is just a table.
    pub form: Option<GuardForm>,
    /// Whose guard it is: the id in 32 hexadecimal digits, as
    /// [`oneknock_shared::secret::ServerId::to_hex`] gives it.
    pub server: Option<String>,
    /// Whether the table outlives the process that owns it.
    pub is_persistent: bool,
    /// Whether a process owns it.
    pub is_owned: bool,
    /// Whether a port sequence is watched for that needs no daemon: a fixed one.
    pub has_fixed_sequence: bool,
}

/// An allow entry as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedEntry {
    /// The key in its comment.
    pub key: KeyName,
    /// The service, and the source that it is open for.
    pub target: Target,
    /// For how long still.
    pub remaining: Duration,
}

/// A trial that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrialState {
    /// For how long it was begun.
    pub length: Duration,
    /// What remains of that.
    pub remaining: Duration,
}

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

/// The ruleset of this guard as nft text, one `table` block that `nft -f -` takes.
#[must_use]
pub fn ruleset_text(guard: &Guard) -> String {
    ruleset::ruleset(guard).to_string()
}

impl Kernel {
    /// Opens the socket; changes nothing. [`KernelError::Capability`] without
    /// `CAP_NET_ADMIN`.
    pub fn open() -> Result<Self, KernelError> {
        if !has_net_admin() {
            return Err(KernelError::Capability);
        }
        Ok(Self {
            netlink: Netlink::open()?,
            owned: false,
            sets: None,
            gateways: BTreeSet::new(),
            known: None,
        })
    }

    /// The netlink port of the socket: what a [`Monitor`] passes over.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.netlink.port()
    }

    /// Whether this process owns the table, so that others cannot change it.
    #[must_use]
    pub fn is_exclusive(&self) -> bool {
        self.owned
    }

    /// What is in the kernel now; `None` where there is no table.
    pub fn installed(&mut self) -> Result<Option<InstalledTable>, KernelError> {
        let state = TableState::read(&mut self.netlink)?;
        Ok(state.map(|state| state.summary()))
    }

    /// Removes the table. Returns whether there was one.
    pub fn teardown(&mut self) -> Result<bool, KernelError> {
        let mut batch = Batch::new();
        batch.push(kind::DELETE_TABLE, 0, |table| table.text(1, TABLE));
        match self.netlink.commit(batch) {
            Err(refused) if refused.errno() == Errno::ENOENT => return Ok(false),
            other => other?,
        }
        (self.owned, self.sets, self.known) = (false, None, None);
        Ok(true)
    }

    /// The names of the sets in the table, as far as this process knows them.
    fn sets(&mut self) -> Result<&BTreeSet<String>, KernelError> {
        if self.sets.is_none() {
            let state = TableState::read(&mut self.netlink)?;
            let state = state.ok_or_else(|| KernelError::Missing("the table".into()))?;
            self.sets = Some(state.sets.into_keys().collect());
        }
        Ok(self.sets.get_or_insert_default())
    }

    /// The elements of a set.
    fn elements(&mut self, set: &str) -> Result<Vec<elements::ListedElement>, KernelError> {
        elements::elements(&mut self.netlink, set).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => KernelError::Missing(format!("set {set}")),
            _ => error.into(),
        })
    }

    /// Commits a batch that changes something in any case. It is sent again where an element
    /// has ended within it.
    fn commit_own(&mut self, batch: impl Fn() -> Batch) -> Result<(), KernelError> {
        let mut result = self.netlink.commit(batch());
        for _ in 1..MAX_COMMITS {
            match &result {
                Err(refused) if refused.errno() == Errno::ENOENT => {}
                _ => break,
            }
            result = self.netlink.commit(batch());
        }
        result?;
        self.note_own_change();
        Ok(())
    }
}

/// The first kernel that can keep other programs off a table.
const EXCLUSIVE_KERNEL: (u32, u32) = (6, 9);

/// Whether this kernel can keep other programs off a table. One that does not say which it is
/// is not called old.
#[must_use]
pub fn can_be_exclusive() -> bool {
    let release = nix::sys::utsname::uname();
    let release = release.map(|name| name.release().to_string_lossy().into_owned());
    let release = release.unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= EXCLUSIVE_KERNEL,
        _ => true,
    }
}

/// Whether this process has `CAP_NET_ADMIN` in effect, which is bit 12.
#[must_use]
pub fn has_net_admin() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> 12 & 1 == 1)
}
