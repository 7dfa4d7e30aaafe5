//! `oneknockctl key add`.

use super::directory::{KeyDirectory, OWN_KEY};
use super::moment::Moment;
use super::{give, invite};
use crate::config::{Generation, Key, Paths, Policy};
use crate::ctl::edit_lock::EditLock;
use crate::ctl::{Failure, revoke, say, span_of_time};
use crate::files::Existing;
use oneknock_shared::name::{KeyName, ServiceName};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct Add {
    /// The key's name, such as laptop.
    name: KeyName,
    /// A service that it may open; several times for several [default: all].
    #[arg(long = "service", value_name = "SERVICE")]
    services: Vec<ServiceName>,
    /// It opens nothing before then: a time in UTC such as 2027-01-31T08:00:00Z, or from
    /// now, such as 2d.
    #[arg(long, value_name = "TIME")]
    not_before: Option<Moment>,
    /// It opens nothing after then, written as for --not-before.
    #[arg(long, value_name = "TIME")]
    not_after: Option<Moment>,
    /// The longest time for which one knock opens a service, such as 1h, at most 30d.
    #[arg(long, value_name = "TIME", value_parser = max_duration)]
    max_duration: Option<Duration>,
    /// Require that the packet signs its address: not from behind NAT.
    #[arg(long)]
    require_signed_address: bool,
    /// Allow grants for addresses other than the one that the knock comes from.
    #[arg(long)]
    allow_other_addresses: bool,
}

fn max_duration(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(30 * 24 * 3600);
    let time = span_of_time(text)?;
    if time.subsec_nanos() != 0 || time.is_zero() || time > longest {
        return Err("must be whole seconds, from 1s to 30d".into());
    }
    Ok(time)
}

impl Add {
    pub fn run(&self, paths: &Paths) -> Result<(), Failure> {
        let (name, directory) = (&self.name, KeyDirectory::open(paths)?);
        if name.as_str() == OWN_KEY {
            let what = format!(
                "{name} is the name of the key by which \"enable\" knocks, and which it removes"
            );
            let hint = "give this key another name";
            return Err(Failure::Usage(what, Some(hint.into())));
        }
        if name.as_str().parse::<IpAddr>().is_ok() {
            let what = format!("{name} is an address, and cannot be the name of a key");
            let hint =
                "\"revoke\" and \"log\" take a key or an address: give this key another name";
            return Err(Failure::Usage(what, Some(hint.into())));
        }
        let now = KeyDirectory::now();
        let mut policy = Policy::new(self.known_services(&directory)?);
        policy.max_duration = self.max_duration;
        policy.require_signed_address = self.require_signed_address;
        policy.allow_other_addresses = self.allow_other_addresses;
        let made = Generation::generate(1, now);
        let mut generation = made.map_err(|e| Failure::new("cannot make a key", e))?;
        generation.not_before = self.not_before.map(|moment| moment.after(now));
        generation.not_after = self.not_after.map(|moment| moment.after(now));
        let first = generation.not_before.unwrap_or(now);
        if generation.not_after.is_some_and(|last| last < first) {
            let what = "--not-after must be later than now and than --not-before";
            return Err(Failure::Usage(what.into(), None));
        }
        let key = Key {
            name: name.clone(),
            policy,
            generations: vec![generation],
        };
        let line = invite::line(&directory.config, &key)?;
        let content = (&key.policy, &key.generations[..]);
        let lock = EditLock::wait(directory.paths)?;
        let written = if directory.path(name).symlink_metadata().is_ok() {
            Err(io::ErrorKind::AlreadyExists.into())
        } else {
            directory.write(&lock, name, content, Existing::Keep)
        };
        drop(lock);
        written.map_err(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists {
                // Where the answer goes to a file, the shell has emptied that one by now.
                let hint = format!(
                    "\"{} key invite {name}\" prints its invitation again, also into a file that this call has emptied",
                    paths.ctl()
                );
                let what = format!("key {name} exists already: nothing was changed");
                Failure::Refused(what, Some(hint))
            } else {
                Failure::io(&directory.path(name), &error)
            }
        })?;
        let told = revoke::tell(paths, name, &format!("added key {name}"), None);
        give(paths, name, &line, told)?;
        say(
            "hint: the line just printed holds the secret: bring it to the client unseen, into \"oneknock import\"",
        );
        Ok(())
    }

    fn known_services(&self, directory: &KeyDirectory<'_>) -> Result<Vec<ServiceName>, Failure> {
        let known: Vec<ServiceName> = directory.config.services.iter().map(|s| s.name).collect();
        if let Some(unknown) = self.services.iter().find(|s| !known.contains(s)) {
            let known: Vec<&str> = known.iter().map(ServiceName::as_str).collect();
            return Err(Failure::Usage(
                format!("there is no service {unknown}"),
                Some(format!("there are: {}", known.join(", "))),
            ));
        }
        let mut services = if self.services.is_empty() {
            known
        } else {
            self.services.clone()
        };
        services.sort_unstable();
        services.dedup();
        Ok(services)
    }
}
