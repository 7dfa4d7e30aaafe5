//! `oneknockctl debug`: what units and recovery call.

use super::{Failure, boot_guard, check_readable, print, reset_state};
use crate::config::{Paths, Settings, enabled};
use crate::kernel::{self, default_gateways};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Install the guard without the daemon, at boot, before the network comes up.
    ///
    /// Reads oneknockd.toml and no key. Grants and established connections go on. If
    /// oneknockd.toml is invalid, the guard is installed from the last good configuration; where
    /// there is none either, the exit status is 3, and there is no guard. If it does not enforce,
    /// the exit status is 7, or 6 on trial.
    BootGuard,
    /// Print the ruleset that the daemon installs, for "nft -f -".
    Rules {
        /// The port sequence and its service alone, for a machine without a daemon (beside one,
        /// its guard would close what a knock has opened)
        #[arg(long)]
        sequence_only: bool,
    },
    /// Make the lost replay log again, asserting that this machine's clock is right.
    ///
    /// For a machine whose clock nothing synchronizes: the daemon would wait for that before it
    /// accepts a knock. Knocks that were made before now are refused from then on. Stop oneknockd
    /// first.
    ResetState,
}

impl Command {
    pub fn run(&self, paths: &Paths) -> Result<(), Failure> {
        match self {
            Self::BootGuard => boot_guard::install(paths),
            Self::Rules { sequence_only } => rules(paths, *sequence_only),
            Self::ResetState => reset_state::reset(paths),
        }
    }
}

fn rules(paths: &Paths, sequence_only: bool) -> Result<(), Failure> {
    check_readable(paths)?;
    let settings = Settings::load(paths).map_err(Failure::Config)?;
    let gateways = default_gateways();
    let gateways = gateways.map_err(|error| Failure::new("the default gateways", error))?;
    let guard = settings.config.guard(enabled::is_set(paths), &gateways);
    if !sequence_only {
        return print(kernel::ruleset_text(&guard).trim_end());
    }
    let text = kernel::standalone_sequence_text(&guard).ok_or_else(|| {
        let hint = "a rolling sequence needs the daemon; set ports in [sequence] of oneknockd.toml";
        Failure::Failed("no fixed sequence is configured".into(), Some(hint.into()))
    })?;
    print(text.trim_end())
}
