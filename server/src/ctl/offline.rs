//! Revokes where no daemon runs: the same server, without sockets, in this process.

use super::output::{say, warn};
use super::{Failure, look};
use crate::clock::Clock;
use crate::config::{Config, Paths};
use crate::control::answers::{Disconnected, Revoked};
use crate::control::protocol::Selection;
use crate::engine::{Desired, Grant, Target};
use crate::kernel::{BlockReason, ConnectionId, Kernel, KernelError, ListedEntry};
use crate::observers::Observers;
use crate::server::{OpenError, Opened, Server, ServerSettings};
use crate::store::StoreOpenError;
use oneknock_shared::name::ServiceName;
use std::time::Duration;

/// How long the journal is waited for.
const FLUSH_WITHIN: Duration = Duration::from_secs(10);

/// Why the kernel cannot be asked or told.
pub fn kernel_failure(what: &str, error: KernelError) -> Failure {
    match error {
        KernelError::Capability => Failure::needs_root(format!("{what}: only root can do that")),
        error => Failure::new(what, error),
    }
}

/// Opens the server; refuses where another server's guard is installed.
fn open(paths: &Paths) -> Result<Opened, Failure> {
    super::check_readable(paths)?;
    let failed = |error| kernel_failure("grants stay open", error);
    let settings = ServerSettings::load_for_start(paths).map_err(Failure::Config)?;
    for problem in settings.all_errors() {
        say(format_args!("error: {problem}"));
    }
    let server = settings.config.server_id.to_hex();
    let look = look::look().map_err(failed)?;
    look.check_not_foreign(&server).map_err(failed)?;
    let kernel = Kernel::open().map_err(failed)?;
    let (paths, clock) = (paths.clone(), Clock::start());
    let observers = Observers::without_log();
    let opened = Server::open(paths, settings, clock, kernel, observers);
    opened.map_err(|error| match error {
        OpenError::State(locked @ StoreOpenError::Locked(_)) => {
            let hint = "if it has just started, try again";
            Failure::Failed(locked.to_string(), Some(hint.into()))
        }
        error => Failure::new("grants stay open", error),
    })
}

/// Has everything removed that the kernel lists for a selection, but for what is to stand: the
/// kernel may hold more than the state knows of. Of a source that several keys admit the kernel
/// names one. Returns what they were.
fn revoke_listed(
    kernel: &mut Kernel,
    config: &Config,
    of: &Selection,
    standing: &Desired,
) -> Result<Vec<Target>, Failure> {
    let failed = |error| kernel_failure("grants stay open", error);
    let services: Vec<ServiceName> = config.services.iter().map(|s| s.name).collect();
    let listed = match kernel.allow_entries(&services) {
        // Without a table nothing is open.
        Err(KernelError::Missing(_)) => Vec::new(),
        listed => listed.map_err(failed)?,
    };
    let address = |entry: &ListedEntry| entry.target.source.address();
    let meant = listed
        .iter()
        .filter(|entry| of.includes(&entry.key, address(entry)))
        .filter(|entry| !standing.allow().contains_key(&entry.target));
    let mut desired = Desired::default();
    meant.for_each(|entry| desired.set(entry.target, None));
    let targets = desired.dirty().iter().copied().collect();
    let now = Clock::start().now();
    kernel.sync(&mut desired, now).map_err(failed)?;
    Ok(targets)
}

fn warn_of_lost_state(why: &str) {
    let what = format!(
        "the state cannot be read ({why}): clients that share an address with a revoked key must knock again"
    );
    warn(what, None);
}

/// As [`revoke`], where not even the directory of the state is there: nothing says which
/// connections were admitted.
fn revoke_without_state(
    paths: &Paths,
    of: &Selection,
    disconnect: bool,
) -> Result<Revoked, Failure> {
    let settings = ServerSettings::load_for_start(paths).map_err(Failure::Config)?;
    let failed = |error| kernel_failure("grants stay open", error);
    let mut kernel = Kernel::open().map_err(failed)?;
    let revoked = revoke_listed(&mut kernel, &settings.config, of, &Desired::default())?.len();
    warn_of_lost_state("it is missing");
    if disconnect {
        let what = "no connection was ended: without a state nothing says which were admitted";
        return Err(Failure::Failed(what.into(), None));
    }
    Ok(Revoked {
        revoked,
        ..Revoked::default()
    })
}

/// Revokes grants, and with `disconnect` ends the connections that they admitted.
pub fn revoke(
    paths: &Paths,
    of: &Selection,
    generations: &[u32],
    disconnect: bool,
) -> Result<Revoked, Failure> {
    let failed = |error| kernel_failure("grants stay open", error);
    if paths.state().symlink_metadata().is_err() {
        return revoke_without_state(paths, of, disconnect);
    }
    let Opened {
        mut server,
        lost,
        ended,
        ..
    } = open(paths)?;
    let now = server.clock.now();
    let (mut revoked, mut targets) = server.revoke(now, of, generations).map_err(failed)?;
    // What the key had no right to any more has ended as the state was read.
    let is_meant = |grant: &&Grant| {
        of.includes(&grant.key, grant.target.source.address())
            && (generations.is_empty() || generations.contains(&grant.number))
    };
    let ended: Vec<&Grant> = ended.iter().filter(is_meant).collect();
    revoked.revoked += ended.len();
    targets.extend(ended.iter().map(|grant| grant.target));
    let (kernel, standing) = (&mut server.kernel, server.engine.desired());
    let listed = revoke_listed(kernel, &server.settings.config, of, standing)?;
    revoked.revoked += listed.len();
    targets.extend(listed);
    if let Some(why) = lost {
        warn_of_lost_state(&why);
    }
    if disconnect {
        if let Some(flushed) = server.store.flush_journal() {
            // Where the journal cannot be had, reading it says so.
            let _ = flushed.recv_timeout(FLUSH_WITHIN);
        }
        let mut blocked: Vec<ConnectionId> = Vec::new();
        let disconnection = server.disconnection(of, generations, targets);
        let done = disconnection.run(|ids| {
            blocked.extend(ids);
            Ok(())
        });
        let live_on = "connections may go on";
        let done = done.map_err(|error| Failure::new(live_on, error))?;
        let written = server.block(now, &blocked, BlockReason::Disconnected);
        written.map_err(|error| Failure::new(live_on, error))?;
        if let Some(failure) = done.failures.first() {
            return Err(Failure::new(live_on, failure));
        }
        revoked.disconnected = Some(Disconnected {
            ended: done.ended,
            remaining: done.remaining,
        });
    }
    let closed = server.close();
    closed.map_err(|error| Failure::new("the state may lack what was revoked", error))?;
    Ok(revoked)
}
