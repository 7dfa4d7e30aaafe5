//! `oneknockctl guard`: the guard without the daemon.

use super::Failure;
use super::ask::ask;
use super::words;
use crate::config::{self, Config};
use crate::control::answers::Status;
use crate::control::protocol::Command;
use crate::files::Owner;
use crate::firewall::{self, Firewall, FirewallError};
use std::path::Path;

/// Puts the guard up as the configuration wants it; grants that stand in it stay. A daemon
/// that runs keeps it up itself. With mistakes in the configuration it is as it was last in
/// force.
pub fn put_up(dir: &Path) -> Result<(), Failure> {
    super::check_readable(dir)?;
    let mistakes = match config::load_config(dir, Owner::wanted()) {
        Ok(config) => return put_up_as(dir, &config),
        Err(mistakes) => mistakes,
    };
    let Some(kept) = config::kept_config(dir) else {
        return Err(Failure::Mistakes(mistakes));
    };
    put_up_as(dir, &kept)?;
    let hint = format!("mend them, then: {} guard", config::ctl_command(dir));
    Err(Failure::AsItWas(mistakes, hint))
}

fn put_up_as(dir: &Path, config: &Config) -> Result<(), Failure> {
    if !firewall::has_net_admin() {
        let what = "the guard can be put up by root alone";
        return Err(Failure::needs_root(what.into()));
    }
    // One that does not answer may hang: then the kernel says below whether it has the guard.
    if let Ok(status) = ask::<Status>(dir, &Command::Status) {
        match status.on_trial {
            Some(trial) => eprintln!("{}", words::on_trial(&trial)),
            None => eprintln!("a running oneknockd keeps the guard up"),
        }
        return Ok(());
    }
    let put_up = || {
        let mut firewall = Firewall::open()?;
        firewall.check_free(config)?;
        firewall.put_up(config, true)
    };
    match put_up() {
        Ok(_) if config.on_trial => eprintln!("{}", words::NOT_CONFIRMED),
        Ok(before) if before.was_up => eprintln!("the guard was up, and is as configured"),
        Ok(_) => eprintln!("the guard is up"),
        // Nobody else can have taken it down.
        Err(FirewallError::Owned) => eprintln!("a running oneknockd owns the guard: it is up"),
        Err(error) => return Err(Failure::new("the guard is not up as configured", error)),
    }
    Ok(())
}
