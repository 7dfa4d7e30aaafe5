//! `oneknockctl init`.

use super::Failure;
use super::output::{print, say};
use crate::config::{
    Config, Paths, Service, enabled, last_good, main_text, one_line, parse_config,
};
use crate::files::{self, Existing, KEY_FOLDER_MODE, Owner};
use crate::store::Store;
use oneknock_shared::name::{Host, KeyName};
use oneknock_shared::port::Ports;
use oneknock_shared::secret::{ServerId, random};
use std::io;
use std::path::Path;
use std::str::FromStr;

/// The ports from which one is drawn: above those of services and below those that
/// Linux hands out to outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_768;

#[derive(Debug, clap::Args)]
pub struct Init {
    /// The DNS name or address by which clients reach this machine
    ///
    /// Without --name its first part, up to the dot, is the name of the clients' profile
    /// ("server" for an address).
    #[arg(long, required_unless_present = "restore")]
    host: Option<Host>,
    /// The name of the clients' profile, as in "ssh home" [default: from HOST]
    #[arg(long)]
    name: Option<KeyName>,
    /// The UDP port to knock on [default: a random one from 20000 to 32767]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// A service to guard, such as ssh=tcp/22 or mosh=tcp/22,udp/60000-61000; several times
    /// for several [default: ssh=tcp/22]
    #[arg(long = "service", value_name = "NAME=PORTS")]
    services: Vec<Named>,
    /// Write oneknockd.toml from the last good copy, and print it
    ///
    /// For a file that was removed. Read what is printed: the daemon's user can write the copy.
    #[arg(long, conflicts_with_all = ["host", "name", "port", "services"])]
    restore: bool,
}

/// A service as the command line writes it.
#[derive(Debug, Clone)]
struct Named(Service);

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, ports) = text.split_once('=').ok_or("write for example ssh=tcp/22")?;
        let name = name.parse().map_err(|error| format!("{error}"))?;
        let ports = ports.split(',').map(str::parse);
        let ports: Vec<Ports> = ports
            .collect::<Result<_, _>>()
            .map_err(|e| format!("{e}"))?;
        Ok(Self(Service::new(name, ports)))
    }
}

impl Init {
    pub fn run(&self, paths: &Paths) -> Result<(), Failure> {
        match &self.host {
            Some(host) => self.make(paths, host),
            None => restore(paths),
        }
    }

    fn make(&self, paths: &Paths, host: &Host) -> Result<(), Failure> {
        let owner = Owner::wanted();
        let config = self.config(host)?;
        let path = paths.main_file();
        let text = main_text(&config);
        // What the daemon would refuse is not written.
        parse_config(&path, &text).map_err(|errors| {
            let errors: Vec<&str> = errors.iter().map(|error| &*error.what).collect();
            Failure::Usage(errors.join("; "), None)
        })?;
        if path.symlink_metadata().is_ok() {
            return Err(failed(&path, &io::ErrorKind::AlreadyExists.into()));
        }
        let keys = paths.keys();
        files::make_folder(paths.dir(), owner, 0o755).map_err(|e| failed(paths.dir(), &e))?;
        files::make_folder(&keys, owner, KEY_FOLDER_MODE).map_err(|e| failed(&keys, &e))?;
        // The default one is the service manager's.
        if !paths.is_default() {
            let run = paths.run();
            files::make_folder(&run, Owner::of_state(), 0o755).map_err(|e| failed(&run, &e))?;
        }
        Store::create(&paths.state(), Owner::of_state())
            .map_err(|error| Failure::new("the configuration was not written", error))?;
        // Of a server that was here before.
        last_good::forget(paths).map_err(|e| failed(&paths.last_good(), &e))?;
        enabled::clear(paths).map_err(|e| failed(&paths.enabled(), &e))?;
        // Last, so that a configuration never stands without what it needs.
        files::write(&path, &text, owner, 0o640, Existing::Keep).map_err(|e| failed(&path, &e))?;
        let ctl = paths.ctl();
        say(format_args!(
            "wrote {}: clients knock on udp/{}",
            path.display(),
            config.port
        ));
        say(format_args!(
            "hint: {ctl} key add laptop; allow udp/{} in this machine's firewall and forward it in your router; then: {ctl} enable --confirm 10m",
            config.port
        ));
        Ok(())
    }

    fn config(&self, host: &Host) -> Result<Config, Failure> {
        let no_random = |error| Failure::new("cannot make a server id", error);
        let port = match self.port {
            Some(port) => port,
            None => random_port().map_err(no_random)?,
        };
        let id = ServerId::generate().map_err(no_random)?;
        let name = self.name.clone().unwrap_or_else(|| profile_name(host));
        let mut config = Config::new(name, host.clone(), port, id);
        config.services = self.services.iter().map(|named| named.0.clone()).collect();
        if config.services.is_empty()
            && let (Ok(name), Ok(port)) = ("ssh".parse(), "tcp/22".parse())
        {
            config.services.push(Service::new(name, vec![port]));
        }
        Ok(config)
    }
}

fn failed(what: &Path, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::Refused(
            format!("{} exists already: nothing was changed", what.display()),
            Some("edit it, or give another directory with --config".into()),
        ),
        _ => Failure::io(what, error),
    }
}

/// Writes the main file from the last good copy. What is checked, shown and written is one
/// text, read once: the copy is the daemon's, which may have been taken over.
fn restore(paths: &Paths) -> Result<(), Failure> {
    let path = paths.main_file();
    if path.symlink_metadata().is_ok() {
        return Err(failed(&path, &io::ErrorKind::AlreadyExists.into()));
    }
    let main = last_good::read(paths).map_err(Failure::Config)?;
    for unknown in &main.unknown {
        say(format_args!("warning: {unknown}"));
    }
    let lines: Vec<String> = main.text.lines().map(one_line).collect();
    print(&lines.join("\n"))?;
    let written = files::write(&path, &main.text, Owner::wanted(), 0o640, Existing::Keep);
    written.map_err(|error| failed(&path, &error))?;
    say(format_args!("wrote {}, as shown", path.display()));
    say(format_args!(
        "hint: read it first, since the daemon's user could have changed it; then: {} reload",
        paths.ctl()
    ));
    Ok(())
}

/// The first label of a DNS name; an address makes no good name.
fn profile_name(host: &Host) -> KeyName {
    let label = host.as_str().split('.').next().unwrap_or_default();
    let is_address = host.as_str().parse::<std::net::IpAddr>().is_ok();
    let name = label.parse().ok().filter(|_| !is_address);
    name.or_else(|| "server".parse().ok())
        .unwrap_or_else(|| unreachable!("\"server\" is a name"))
}

fn random_port() -> Result<u16, oneknock_shared::secret::NoRandomness> {
    let drawn = u64::from_be_bytes(random()?) % u64::try_from(PORTS.len()).unwrap_or(1);
    Ok(PORTS.start + u16::try_from(drawn).unwrap_or(0))
}
