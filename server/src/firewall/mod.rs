//! The guard in the kernel: its ruleset through nft, its elements over netlink.

mod alone;
mod connection;
mod connections;
mod elements;
mod flows;
mod gateways;
mod names;
mod netlink;
mod nft;
mod raise;
mod rolling;
mod ruleset;
mod sequence;
mod shape;
mod sieve;
mod sockets;
mod standing;
mod trial;

pub use alone::{ALONE, alone as sequence_alone};
pub use elements::AT_ONCE;
pub use gateways::barred;
pub use names::TABLE;
pub use nft::NftFailed;
pub use rolling::RollingStep;
pub use ruleset::{How, TableIs, ruleset};
pub use sequence::script as sequence_script;
pub use sieve::script as sieve_script;
pub use standing::{Element, Standing};
pub use trial::Trial;

use crate::config::{Config, Service};
use crate::gate::{Change, Place};
use connections::Connections;
use names::{seq_name, set_name};
use netlink::Netlink;
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_shared::selector::Selector;
use shape::Shape;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Why a change was not made. Nothing was half-applied.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// The ruleset could not be read or loaded.
    #[error(transparent)]
    Nft(#[from] NftFailed),
    /// The elements could not be changed.
    #[error("the allow set cannot be changed: {0}")]
    Netlink(#[from] io::Error),
    /// A running process owns the table.
    #[error("a running oneknockd owns the guard: stop it first")]
    Owned,
    /// Something removes it again and again.
    #[error("another program changes the guard as fast as it is put up")]
    Contested,
    /// Another configuration's guard is up.
    #[error(
        "the guard of another configuration is up, and there is one to a machine: stop its oneknockd, take it down with \"oneknockctl teardown\", and start again"
    )]
    Anothers,
    /// The process may not change the firewall.
    #[error(
        "cannot change the firewall: CAP_NET_ADMIN is missing (run it as root, or give its unit AmbientCapabilities=CAP_NET_ADMIN)"
    )]
    Capability,
}

impl FirewallError {
    /// Whether the table, or one of its sets, is gone, or is not what it was.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Netlink(_))
    }
}

/// What stood before the guard was put up.
#[derive(Debug, PartialEq, Eq)]
pub struct Before {
    /// Whether there was a table.
    pub was_up: bool,
    /// The grants in it.
    pub grants: Vec<Surviving>,
}

/// A grant that the kernel has from an earlier run of the daemon.
#[derive(Debug, PartialEq, Eq)]
pub struct Surviving {
    /// The key in its comment.
    pub key: KeyName,
    /// Who to where.
    pub place: Place,
    /// The time it has left.
    pub left: Duration,
}

/// The guard, up.
#[derive(Debug)]
pub struct Firewall {
    netlink: Netlink,
    /// Whether the table is this process's: nobody else can change it then.
    owned: bool,
    /// Whether it is to be.
    wants_to_own: bool,
    shape: Shape,
    generation: u32,
    connections: Connections,
    /// The gateways that the kernel was told of.
    barred: BTreeSet<IpAddr>,
    /// Why there is no sieve; the gate does its work then.
    no_sieve: Option<NftFailed>,
}

impl Firewall {
    /// Opens the way to the kernel; changes nothing.
    pub fn open() -> Result<Self, FirewallError> {
        if !has_net_admin() {
            return Err(FirewallError::Capability);
        }
        Ok(Self {
            netlink: Netlink::open()?,
            owned: false,
            wants_to_own: false,
            shape: Shape::default(),
            generation: 0,
            connections: Connections::default(),
            barred: BTreeSet::new(),
            no_sieve: None,
        })
    }

    /// Whether other programs cannot change the guard, because the kernel holds the table
    /// for this process alone. Where they can, [`Firewall::changed`] is to be asked.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        self.owned
    }

    /// Whether a guard is up, this server's or another's.
    pub fn is_up(&mut self) -> Result<bool, FirewallError> {
        let standing = Standing::read(&mut self.netlink)?;
        Ok(standing.is_some_and(|standing| standing.is_guard()))
    }

    /// Whether a guard is up and in force: one on trial is not, when its trial has ended.
    pub fn is_in_force(&mut self) -> Result<bool, FirewallError> {
        let Some(standing) = Standing::read(&mut self.netlink)?.filter(Standing::is_guard) else {
            return Ok(false);
        };
        Ok(!standing.is_on_trial() || self.trial()?.is_some())
    }

    /// Whether a port sequence lets people in that needs no daemon: a fixed one.
    pub fn has_fixed_sequence(&mut self) -> Result<bool, FirewallError> {
        let standing = Standing::read(&mut self.netlink)?;
        Ok(standing.is_some_and(|standing| standing.has_fixed_sequence()))
    }

    /// Whether the table of `rules --sequence-only` is there, with or without the guard.
    pub fn has_sequence_alone(&mut self) -> Result<bool, FirewallError> {
        Ok(standing::is_there(&mut self.netlink, ALONE)?)
    }

    /// Whether a guard is up for good: no trial of it is to end, or has ended.
    pub fn stays_up(&mut self) -> Result<bool, FirewallError> {
        let standing = Standing::read(&mut self.netlink)?;
        Ok(standing.is_some_and(|standing| standing.is_guard() && !standing.is_on_trial()))
    }

    /// Who is admitted by grants, as the kernel has it.
    pub fn admitted(&mut self, config: &Config) -> Result<Vec<Surviving>, FirewallError> {
        let standing = Standing::read(&mut self.netlink)?.unwrap_or_default();
        let elements = standing.elements.iter();
        let ours = elements.filter_map(|element| surviving(&config.services, element));
        Ok(ours.collect())
    }

    /// Refuses where the guard of another server is up: taking its place would open its
    /// doors. `config`'s own guard, from an earlier run, is no hindrance.
    pub fn check_free(&mut self, config: &Config) -> Result<(), FirewallError> {
        match Standing::read(&mut self.netlink)? {
            Some(standing) if standing.is_anothers(config.server_id) => {
                Err(FirewallError::Anothers)
            }
            _ => Ok(()),
        }
    }

    /// Why junk is not refused in the kernel, where it is not: the gate refuses it then, at
    /// a higher price.
    #[must_use]
    pub fn no_sieve(&self) -> Option<&NftFailed> {
        self.no_sieve.as_ref()
    }

    /// How many datagrams to the knock port were refused in the kernel since the rules were
    /// made.
    pub fn sifted_out(&mut self) -> Result<u64, FirewallError> {
        Ok(sieve::refused(&mut self.netlink)?)
    }

    /// Lets packets with these selectors through to the daemon, each for so long from now.
    /// No selector twice. A part of it may be done where it fails.
    pub fn sift(&mut self, selectors: &[(Selector, Duration)]) -> Result<(), FirewallError> {
        if self.no_sieve.is_some() {
            return Ok(());
        }
        Ok(sieve::fill(&mut self.netlink, selectors)?)
    }

    /// Lets ports be steps of rolling sequences, besides those that are or, `anew`, in their
    /// place; all at once, or nothing of it.
    pub fn roll(&mut self, steps: &[RollingStep], anew: bool) -> Result<(), FirewallError> {
        Ok(rolling::fill(&mut self.netlink, steps, anew)?)
    }

    /// Lets the port sequence admit nobody as one of these gateways, as far as the
    /// configuration says so. It costs nothing where they are those that they were.
    pub fn bar(&mut self, config: &Config, gateways: &[IpAddr]) -> Result<(), FirewallError> {
        let barred = barred(config, gateways);
        if barred != self.barred {
            gateways::bar(&mut self.netlink, &barred)?;
            self.barred = barred;
        }
        Ok(())
    }

    /// Who is admitted by the port sequence, and for how long still.
    pub fn walked(&mut self, config: &Config) -> Result<Vec<(IpAddr, Duration)>, FirewallError> {
        let mut walked = Vec::new();
        if let Some(sequence) = &config.sequence {
            for is_ipv6 in [false, true] {
                let set = seq_name(sequence.service, is_ipv6);
                walked.extend(standing::members(&mut self.netlink, &set)?);
            }
        }
        Ok(walked)
    }

    /// Ends what the port sequence has opened for these addresses. Whoever knows it can walk
    /// it again.
    pub fn turn_away(&mut self, config: &Config, walked: &[IpAddr]) -> Result<(), FirewallError> {
        if let Some(sequence) = &config.sequence {
            for is_ipv6 in [false, true] {
                let mut of = walked.to_vec();
                of.retain(|address| address.is_ipv6() == is_ipv6);
                let set = seq_name(sequence.service, is_ipv6);
                elements::remove(&mut self.netlink, &set, &of)?;
            }
        }
        Ok(())
    }

    /// Shuts the doors of a guard that is on trial, for so long: when that ends they are
    /// open again. Connections that are open live on.
    pub fn try_out(&mut self, time: Duration) -> Result<(), FirewallError> {
        Ok(trial::begin(&mut self.netlink, time)?)
    }

    /// The trial that goes on, where the guard is on trial. `None` where it has ended.
    pub fn trial(&mut self) -> Result<Option<Trial>, FirewallError> {
        Ok(trial::read(&mut self.netlink)?)
    }

    /// Lets the next look find the guard changed.
    pub fn distrust(&mut self) {
        (self.shape, self.generation) = (Shape::default(), 0);
    }

    /// What another program has changed in the guard since it was put up, in words. It
    /// costs nothing where the table is this process's, next to nothing where nobody has
    /// changed any table, and little where others have changed theirs.
    pub fn changed(&mut self) -> Result<Option<String>, FirewallError> {
        if self.owned && self.generation != 0 {
            return Ok(None);
        }
        self.own()?;
        if shape::generation(&mut self.netlink)? == self.generation {
            return Ok(None);
        }
        // Where there is no whole picture, the next look will have one.
        let Some((shape, generation)) = Shape::read(&mut self.netlink)? else {
            return Ok(None);
        };
        let changed = self.shape.changed(&shape);
        if changed.is_none() {
            self.generation = generation;
        }
        Ok(changed)
    }

    /// Where the guard is watched: takes note of the connections of addresses that are
    /// admitted no longer, or of all; they may go on.
    pub fn remember(
        &mut self,
        config: &Config,
        of: Option<&BTreeSet<IpAddr>>,
    ) -> Result<(), FirewallError> {
        if self.owned {
            return Ok(());
        }
        Ok(self.connections.remember(&mut self.netlink, config, of)?)
    }

    /// Where the guard was watched: ends the connections that nobody was admitted for.
    /// Returns how many there were.
    pub fn cut(
        &mut self,
        config: &Config,
        admitted: impl Fn(ServiceName, IpAddr) -> bool,
    ) -> Result<usize, FirewallError> {
        Ok(self.connections.cut(&mut self.netlink, config, admitted)?)
    }

    /// Ends the connections from these addresses to these services, of this machine's own
    /// and forwarded ones. Returns how many there were. They are to be shut out before: who
    /// is admitted still connects again.
    pub fn end(
        &mut self,
        config: &Config,
        meant: impl Fn(ServiceName, IpAddr) -> bool,
    ) -> Result<usize, FirewallError> {
        Ok(self.connections.end(&mut self.netlink, config, meant)?)
    }

    /// The connections to guarded ports that another port of this machine's answers: who,
    /// and that port.
    pub fn redirected(
        &mut self,
        config: &Config,
    ) -> Result<BTreeSet<(SocketAddr, u16)>, FirewallError> {
        Ok(connections::redirected(&mut self.netlink, config)?)
    }

    /// Makes the changes; see [`elements::apply`].
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), FirewallError> {
        elements::apply(&mut self.netlink, changes)?;
        let admitted = changes.iter().filter_map(|change| match change {
            Change::Admit { place, .. } => Some(place.address),
            Change::Shut { .. } => None,
        });
        Ok(self.connections.forgive(&mut self.netlink, admitted)?)
    }

    /// Takes the guard down.
    pub fn teardown(&mut self) -> Result<(), FirewallError> {
        Ok(self.netlink.delete_table()?)
    }
}

/// An element of a service's set whose comment is a key's name. One that is not ours, such
/// as an administrator's own, is left alone.
fn surviving(services: &[Service], element: &Element) -> Option<Surviving> {
    let address = element.address;
    let mut names = services.iter().map(|s| s.name);
    let service = names.find(|name| set_name(*name, address.is_ipv6()) == element.set)?;
    Some(Surviving {
        key: element.comment.parse().ok()?,
        place: Place { service, address },
        left: element.left,
    })
}

/// Takes the guard down, where no daemon owns it. Returns whether there was one.
pub fn teardown() -> Result<bool, FirewallError> {
    if !has_net_admin() {
        return Err(FirewallError::Capability);
    }
    match Netlink::open()?.delete_table() {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(owned_by_another(error)),
    }
}

/// The kernel refuses changes to a table that another socket owns.
fn owned_by_another(error: io::Error) -> FirewallError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => FirewallError::Owned,
        _ => error.into(),
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
