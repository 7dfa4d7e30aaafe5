//! The way to the kernel's nftables, which every part of this room writes by.

use super::elements::{self, ListedElement};
use super::error::KernelError;
use super::names::TABLE;
use super::netlink::{Batch, Netlink, kind};
use super::state::{InstalledTable, KnownTable, TableState};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::fs;
use std::io;

/// How often a batch is sent when elements end within it.
const MAX_COMMITS: usize = 3;

/// The way to the kernel's nftables. Where the guard is exclusive, this socket owns it.
#[derive(Debug)]
pub struct Kernel {
    pub(super) netlink: Netlink,
    /// Whether the table is this process's: nothing else can change it then.
    pub(super) owned: bool,
    /// The names of the table's sets, where they are known.
    pub(super) sets: Option<BTreeSet<String>>,
    /// The table as it was installed, where it was found whole.
    pub(super) known: Option<KnownTable>,
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

    pub(super) fn socket() -> io::Result<Netlink> {
        Netlink::open(NETLINK_NETFILTER)
    }

    /// The netlink port of the socket: what a [`super::Monitor`] passes over.
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
    pub(super) fn sets(&mut self) -> Result<&BTreeSet<String>, KernelError> {
        if self.sets.is_none() {
            let state = TableState::read(&mut self.netlink)?;
            let state = state.ok_or_else(|| KernelError::Missing("the table".into()))?;
            self.sets = Some(state.sets.into_keys().collect());
        }
        Ok(self.sets.get_or_insert_default())
    }

    /// The elements of a set.
    pub(super) fn elements(&mut self, set: &str) -> Result<Vec<ListedElement>, KernelError> {
        elements::elements(&mut self.netlink, set).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => KernelError::Missing(format!("set {set}")),
            _ => error.into(),
        })
    }

    /// Commits a batch that changes something in any case. It is sent again where an element
    /// has ended within it.
    pub(super) fn commit_own(&mut self, write: impl Fn(&mut Batch)) -> Result<(), KernelError> {
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
    pub(super) fn commit_new(
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

    /// A batch of this process's has changed something for certain.
    pub(super) fn note_own_change(&mut self) {
        if let Some(known) = &mut self.known {
            known.own_changes = known.own_changes.wrapping_add(1);
        }
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
