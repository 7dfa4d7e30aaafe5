//! The guard in the kernel: its ruleset through nft, its elements over netlink.

mod elements;
mod nft;
mod ruleset;

pub use nft::{NftFailed, teardown};
pub use ruleset::{Standing, TABLE, ruleset};

use crate::config::{Config, Service};
use crate::gate::{Change, Place};
use elements::Elements;
use oneknock_shared::name::KeyName;
use ruleset::set_name;
use serde_json::Value;
use std::fs;
use std::io;
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
    /// Whether the table, or one of its sets, is gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Netlink(error) if error.kind() == io::ErrorKind::NotFound)
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
    /// The time it has left, at least.
    pub left: Duration,
}

/// The guard, up.
#[derive(Debug)]
pub struct Firewall {
    elements: Elements,
}

impl Firewall {
    /// Opens the way to the kernel; changes nothing.
    pub fn open() -> Result<Self, FirewallError> {
        if !has_net_admin() {
            return Err(FirewallError::Capability);
        }
        Ok(Self {
            elements: Elements::open()?,
        })
    }

    /// Refuses where the guard of another server is up: taking its place would open its
    /// doors. `config`'s own guard, from an earlier run, is no hindrance.
    pub fn check_free(&self, config: &Config) -> Result<(), FirewallError> {
        match nft::standing()? {
            Some(standing) if standing.is_anothers(config.server_id) => {
                Err(FirewallError::Anothers)
            }
            _ => Ok(()),
        }
    }

    /// Puts the guard up as this configuration wants it, in one transaction, and says what
    /// was there before: grants in sets that stay are kept. Where there was no table and
    /// `grace` is given, connections that are older than the guard live on.
    pub fn put_up(&mut self, config: &Config, grace: bool) -> Result<Before, FirewallError> {
        let found = nft::standing()?;
        let was_up = found.is_some();
        let standing = found.unwrap_or_default();
        nft::apply(&ruleset(config, &standing, grace && !was_up))?;
        let services = &config.services;
        let elements = standing.elements.iter();
        let grants = elements.filter_map(|(set, element)| surviving(services, set, element));
        Ok(Before {
            was_up,
            grants: grants.collect(),
        })
    }

    /// Makes the changes; see [`Elements::apply`].
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), FirewallError> {
        Ok(self.elements.apply(changes)?)
    }
}

/// Reads one element of nft's listing: `{"val": …, "expires": …, "comment": …}`. One that
/// is not ours, such as an administrator's own, is left alone.
fn surviving(services: &[Service], set: &str, element: &Value) -> Option<Surviving> {
    let address = element["val"].as_str()?.parse().ok()?;
    let mut names = services.iter().map(|s| s.name);
    let is_ipv6 = matches!(address, std::net::IpAddr::V6(_));
    let service = names.find(|name| set_name(*name, is_ipv6) == set)?;
    Some(Surviving {
        key: element["comment"].as_str()?.parse().ok()?,
        place: Place { service, address },
        left: Duration::from_secs(element["expires"].as_u64()?),
    })
}

/// Whether this process has `CAP_NET_ADMIN` in effect, which is bit 12.
#[must_use]
pub fn has_net_admin() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> 12 & 1 == 1)
}
