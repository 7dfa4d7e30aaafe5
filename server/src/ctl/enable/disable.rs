//! `oneknockctl disable`: the guard is removed, and the daemon ends.

use super::{clear, needs_root, self_knock, systemd};
use crate::config::{Paths, last_good};
use crate::control::answers::TornDown;
use crate::control::protocol::Command;
use crate::ctl::ask::{NoAnswer, ask};
use crate::ctl::offline::kernel_failure;
use crate::ctl::output::say;
use crate::ctl::status::note_standalone_sequence;
use crate::ctl::{Failure, look};
use crate::kernel::{Kernel, KernelError};
use std::time::{Duration, Instant};

/// A daemon that monitors the guard has installed it again by then.
const REPAIRED_WITHIN: Duration = Duration::from_millis(1500);

/// Until the next boot, or for good.
pub fn disable(paths: &Paths, until_reboot: bool) -> Result<(), Failure> {
    if until_reboot {
        remove(paths)?;
        return systemd::stop(paths);
    }
    needs_root("only root can disable the guard")?;
    // First: wherever this call ends, nothing enforces after the next boot.
    clear(paths)?;
    let removed = remove(paths);
    systemd::disable(paths)?;
    match removed {
        // One that hangs, or could not remove it, has ended by now.
        Err(_) if systemd::is_in_charge(paths) => remove(paths)?,
        removed => removed?,
    }
    self_knock::remove_file(paths)?;
    last_good::forget(paths)
        .map_err(|error| Failure::new("the last good configuration is still there", error))
}

/// Removes the guard, and says so: the daemon does it, which ends then; where none runs, this
/// process.
pub fn remove(paths: &Paths) -> Result<(), Failure> {
    let (was_installed, daemon) = match ask(paths, &Command::Teardown) {
        Ok(TornDown { was_up }) => (was_up, "; stopped oneknockd"),
        Err(NoAnswer::NoDaemon(_)) => (remove_here()?, ""),
        Err(no) => return Err(no.into()),
    };
    if was_installed {
        say(format_args!("removed the guard{daemon}: not enforcing"));
    } else {
        say(format_args!("note: there was no guard{daemon}"));
    }
    note_standalone_sequence();
    Ok(())
}

fn remove_here() -> Result<bool, Failure> {
    let failed = |error: KernelError| match error {
        KernelError::Capability => Failure::needs_root("only root can remove the guard".into()),
        error => kernel_failure("the guard is still installed", error),
    };
    let was_installed = Kernel::open().map_err(failed)?.teardown().map_err(failed)?;
    let start = Instant::now();
    while was_installed && start.elapsed() < REPAIRED_WITHIN {
        if look::look().map_err(failed)?.is_installed() {
            let what = "the guard is installed again: an oneknockd runs that was not found";
            let hint = "stop that oneknockd, then again; pidof oneknockd";
            return Err(Failure::Failed(what.into(), Some(hint.into())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(was_installed)
}
