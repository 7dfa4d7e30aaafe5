//! Whom the port sequence has admitted: the kernel alone knows.

use super::Daemon;
use crate::config::Config;
use crate::control::answers::{Failed, MOST_LISTED, Walked};
use crate::control::protocol::Who;
use crate::firewall::FirewallError;
use crate::log;
use oneknock_shared::name::ServiceName;
use std::collections::BTreeSet;
use std::net::IpAddr;

impl Daemon {
    /// Who is admitted by the port sequence, at most [`MOST_LISTED`].
    pub(super) fn walked(&mut self) -> Result<Vec<Walked>, Failed> {
        let config = &self.settings.config;
        let Some(sequence) = &config.sequence else {
            return Ok(Vec::new());
        };
        let walked = self.firewall.walked(config).map_err(Failed::new)?;
        let walked = walked.into_iter().take(MOST_LISTED);
        let walked = walked.map(|who| Walked::new(sequence.service, who));
        Ok(walked.collect())
    }

    /// Ends what it has opened for an address, or for all; a key has none of it. Returns for
    /// how many.
    pub(super) fn turn_away(&mut self, who: Option<&Who>) -> Result<usize, Failed> {
        let is_meant = |address: &IpAddr| Who::means_walked(who, *address);
        let failed = |error: FirewallError| {
            Failed::new(format_args!(
                "what the port sequence has opened stays open: {error}"
            ))
        };
        let config = &self.settings.config;
        let walked = self.firewall.walked(config).map_err(failed)?;
        let meant = walked.into_iter().map(|(address, _)| address);
        let meant: Vec<IpAddr> = meant.filter(is_meant).collect();
        self.firewall.turn_away(config, &meant).map_err(failed)?;
        let count = meant.len();
        self.turned_away = meant;
        Ok(count)
    }

    /// Where the guard is watched: sees who is admitted by the port sequence, and takes note
    /// of the connections of those who are no longer, so that `cut` does not end them.
    pub(super) fn see_walked(&mut self) {
        let config = &self.settings.config;
        if self.firewall.is_owned() || config.sequence.is_none() {
            return;
        }
        let seen = self.firewall.walked(config).and_then(|walked| {
            let now: BTreeSet<IpAddr> = walked.into_iter().map(|(address, _)| address).collect();
            let left: BTreeSet<IpAddr> = self.walked_in.difference(&now).copied().collect();
            if !left.is_empty() {
                self.firewall.remember(config, Some(&left))?;
            }
            self.walked_in = now;
            Ok(())
        });
        if let Err(error) = seen {
            log::line(format_args!(
                "cannot see whom the port sequence has admitted: {error}"
            ));
        }
    }
}

/// Whether the port sequence had admitted an address to a service, when those whom it had
/// admitted were seen last.
pub(super) fn has(
    config: &Config,
    walked_in: &BTreeSet<IpAddr>,
    service: ServiceName,
    address: IpAddr,
) -> bool {
    let sequence = config.sequence.as_ref();
    sequence.is_some_and(|s| s.service == service) && walked_in.contains(&address)
}
