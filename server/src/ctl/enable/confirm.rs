//! `oneknockctl confirm`: a trial is kept if a knock has admitted someone since it began.

use super::{enforce, enforces, needs_root, session, systemd};
use crate::clock::Clock;
use crate::config::{Config, Loaded, Paths, enabled};
use crate::ctl::key::OWN_KEY;
use crate::ctl::offline::kernel_failure;
use crate::ctl::output::say;
use crate::ctl::{Failure, look};
use crate::kernel::Kernel;
use crate::store;
use oneknock_shared::knock::Timestamp;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Between the grants that are revoked for a trial, and its beginning.
const SLACK: Duration = Duration::from_secs(1);
/// The journal follows the log: it has a knock this long after it at most.
const JOURNAL_WITHIN: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub struct Confirm {
    /// From any session, such as the console's: it is enough that some knock was granted since
    /// the trial began, as for services without a shell
    #[arg(long)]
    from_console: bool,
}

impl Confirm {
    pub fn run(&self, paths: &Paths) -> Result<(), Failure> {
        needs_root("only root can confirm a trial")?;
        let settings = Loaded::at_start(paths).map_err(Failure::Config)?.settings;
        let config = &settings.config;
        let unseen = |error| kernel_failure("cannot see the trial", error);
        let Some(trial) = look::look().map_err(unseen)?.trial else {
            if enforces(config)? && enabled::is_set(paths) {
                say("note: confirmed already: the guard enforces");
                return systemd::enable(paths);
            }
            let hint = format!("{} enable --confirm 10m", paths.ctl());
            let what = "there is no trial to confirm, or it has ended";
            return Err(Failure::Failed(what.into(), Some(hint)));
        };
        let since = trial.length.saturating_sub(trial.remaining);
        let address = if self.from_console {
            None
        } else {
            Some(session::that_confirms(config, since)?.remote.ip())
        };
        let waited = Instant::now();
        while !has_knocked(paths, config, address, since)? {
            if waited.elapsed() < JOURNAL_WITHIN {
                std::thread::sleep(LOOK_EVERY);
                continue;
            }
            return Err(match address {
                Some(address) => Failure::Refused(
                    format!("cannot confirm: {address} has not knocked since the trial began"),
                    Some(session::HINT.into()),
                ),
                None => Failure::Refused(
                    "cannot confirm: no knock was granted since the trial began".into(),
                    Some("knock from the client: oneknock open home".into()),
                ),
            });
        }
        enforce(paths)?;
        match address {
            Some(address) => say(format_args!(
                "confirmed by a session from {address}: enforcing"
            )),
            None => say("confirmed: enforcing"),
        }
        systemd::enable(paths)
    }
}

/// Whether a knock since the trial began, or the port sequence, has admitted this address, or any
/// where none is given. All grants were revoked at its beginning.
fn has_knocked(
    paths: &Paths,
    config: &Config,
    address: Option<IpAddr>,
    since: Duration,
) -> Result<bool, Failure> {
    let begun = u64::try_from((since + SLACK).as_millis()).unwrap_or(u64::MAX);
    let begun = Timestamp(Clock::start().now().wall.0.saturating_sub(begun));
    let rows = store::history(&paths.state(), None, begun, Clock::start().now())
        .map_err(|error| Failure::new("cannot see who has knocked", error))?;
    let is_it = |row: &store::HistoryRow| {
        let is_its = address.is_none_or(|address| row.source.contains(address));
        // The self-test is no knock of a client.
        is_its && row.opened >= begun && row.key.as_str() != OWN_KEY
    };
    if rows.iter().any(is_it) {
        return Ok(true);
    }
    let Some(sequence) = &config.sequence else {
        return Ok(false);
    };
    let listed = Kernel::open().and_then(|mut kernel| kernel.sequence_grants(sequence.service));
    let listed = listed.map_err(|error| kernel_failure("cannot see who has knocked", error))?;
    let mut listed = listed.iter();
    Ok(listed.any(|(admitted, _)| address.is_none_or(|address| *admitted == address)))
}
