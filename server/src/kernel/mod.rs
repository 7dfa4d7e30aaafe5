//! The guard in the kernel: one description of its ruleset, which prints as nft text and is
//! installed as one netlink batch; the allow entries, made what they are to be. No program
//! is started for any of it.

mod address;
mod blocking;
mod connection;
mod connections;
mod elements;
mod error;
mod flows;
mod guard;
mod install;
mod monitor;
mod names;
mod netlink;
mod plan;
mod ports;
mod prefilter;
mod present;
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
mod watcher;

pub use blocking::{BLOCK_TIME, BlockChange, BlockReason, BlockedConnections, BlockedSet};
pub use connection::ConnectionId;
pub use connections::{Connections, Disconnected, GapRule, GuardContext};
pub use connections::{disconnect, disconnect_all};
pub use error::KernelError;
pub use guard::{Guard, GuardMode, GuardedService, OptionalPart, SequenceGuard, SequenceSteps};
pub use install::Installed;
pub use monitor::{ForeignChange, Monitor, TableChange};
pub use names::{STANDALONE_TABLE, TABLE};
pub use ports::GuardedPorts;
pub use present::{ConnectionError, Snapshot, redirected};
pub use route_monitor::RouteMonitor;
pub use routes::{RouteError, default_gateways};
pub use ruleset::standalone_sequence_text;
pub use sequence::RollingStep;
pub use state::{GuardForm, InstalledTable};
pub use sync::ListedEntry;
pub use trial::TrialState;

use netlink::{Batch, Netlink, kind};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;
use state::TableState;
use std::collections::BTreeSet;
use std::fs;
use std::io;
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
    /// The table as it was installed, where it was found whole.
    known: Option<KnownTable>,
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
            netlink: Self::socket()?,
            owned: false,
            sets: None,
            known: None,
        })
    }

    fn socket() -> io::Result<Netlink> {
        Netlink::open(NETLINK_NETFILTER)
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
        let batch = |batch: &mut Batch| {
            batch.push(kind::DELETE_TABLE, 0, |table| table.text(1, TABLE));
        };
        match self.netlink.commit(Batch::of(batch)) {
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
    fn commit_own(&mut self, write: impl Fn(&mut Batch)) -> Result<(), KernelError> {
        let mut tries = 1;
        loop {
            match self.netlink.commit(Batch::of(&write)) {
                Err(refused) if refused.errno() == Errno::ENOENT && tries < MAX_COMMITS => {}
                Err(refused) => return Err(refused.into()),
                Ok(()) => break,
            }
            tries += 1;
        }
        self.note_own_change();
        Ok(())
    }

    /// Commits what does where all is new: most is, and then one message for each set does.
    /// Where that is not to be tried, or something is there after all, commits what does in
    /// any case: the kernel takes a thousand times as long to refuse a batch. Returns whether
    /// all was new.
    fn commit_new(
        &mut self,
        new: Option<Batch>,
        otherwise: impl Fn(&mut Batch),
    ) -> Result<bool, KernelError> {
        if let Some(batch) = new {
            match self.netlink.commit(batch) {
                Ok(()) => {
                    self.note_own_change();
                    return Ok(true);
                }
                Err(refused) if refused.errno() == Errno::EEXIST => {}
                Err(refused) => return Err(refused.into()),
            }
        }
        self.commit_own(otherwise).map(|()| false)
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
