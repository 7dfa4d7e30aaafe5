//! The self-test: the machine knocks at itself with a key of its own, so that the path from a
//! packet to the kernel's set is seen to work before a port is closed.

use crate::config::{Generation, Paths, Policy};
use crate::control::answers::KeyReloaded;
use crate::control::protocol::Command;
use crate::ctl::Failure;
use crate::ctl::ask::{NoAnswer, ask};
use crate::ctl::edit_lock::EditLock;
use crate::ctl::key::{KeyDirectory, OWN_KEY};
use crate::files::{self, Existing};
use crate::kernel::Kernel;
use oneknock_shared::knock::{Action, Knock, Timestamp};
use oneknock_shared::name::KeyName;
use oneknock_shared::packet::seal;
use oneknock_shared::secret::{Secret, Subkeys, random};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The admitted address: one for documentation (RFC 5737, section 3), which no host has.
const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 251);
const OPEN_FOR: Duration = Duration::from_secs(10);
/// A call that is killed leaves the key behind, which opens nothing after this time.
const LIVES_FOR: Duration = Duration::from_secs(60);
/// How long the grant may take, with knocks in between so far apart.
const PATIENCE: Duration = Duration::from_secs(5);
const AGAIN_AFTER: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Knocks, sees the grant in the kernel, and removes key and grant again. Returns how long that
/// took from the first packet.
pub fn knock(paths: &Paths, lock: &EditLock) -> Result<Duration, Failure> {
    let directory = KeyDirectory::open(paths)?;
    let name: KeyName = OWN_KEY.parse().map_err(|e| Failure::new(OWN_KEY, e))?;
    let services = directory.config.services.iter().map(|s| s.name).collect();
    let mut policy = Policy::new(services);
    policy.max_duration = Some(OPEN_FOR);
    policy.allow_other_addresses = true;
    let made = Generation::generate(1, KeyDirectory::now());
    let mut generation = made.map_err(|e| Failure::new("cannot make a key", e))?;
    let ends = u64::try_from(LIVES_FOR.as_millis()).unwrap_or(u64::MAX);
    generation.not_after = Some(Timestamp(KeyDirectory::now().0.saturating_add(ends)));
    let secret = generation.secret.clone();
    let generations = vec![generation];
    let written = directory.write(lock, &name, (&policy, &generations), Existing::Replace);
    written.map_err(|error| Failure::io(&directory.path(&name), &error))?;
    let told: Result<KeyReloaded, _> = ask(paths, &Command::ReloadKey { key: name.clone() });
    let took = match told {
        Ok(_) => until_granted(&directory, &name, &secret),
        Err(no) => Err(no.into()),
    };
    let removed = clean_up(paths);
    took.and_then(|took| removed.map(|()| took))
}

/// Removes the key, also what a call has left of it that was killed, and has the daemon drop it.
pub fn clean_up(paths: &Paths) -> Result<(), Failure> {
    let removed = remove_file(paths);
    let key: KeyName = OWN_KEY.parse().map_err(|e| Failure::new(OWN_KEY, e))?;
    let dropped: Result<KeyReloaded, _> = ask(paths, &Command::ReloadKey { key });
    match dropped {
        Ok(_) | Err(NoAnswer::NoDaemon(_)) => removed,
        Err(no) => removed.and(Err(no.into())),
    }
}

/// Removes the key's file, where no daemon is to be told.
pub fn remove_file(paths: &Paths) -> Result<(), Failure> {
    let path = paths.key_file(OWN_KEY);
    match files::remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::io(&path, &error)),
        _ => Ok(()),
    }
}

fn until_granted(
    directory: &KeyDirectory<'_>,
    name: &KeyName,
    secret: &Secret,
) -> Result<Duration, Failure> {
    let config = &directory.config;
    let keys = Subkeys::derive(secret, &config.server_id);
    let failed = |why: &dyn std::fmt::Display| {
        let hint = format!(
            "{} log --denied; oneknockd's log may say more",
            directory.paths.ctl()
        );
        let what = format!("self-test failed: {why}; nothing was changed");
        Failure::Failed(what, Some(hint))
    };
    let mut kernel = Kernel::open().map_err(|error| failed(&error))?;
    let services: Vec<_> = config.services.iter().map(|s| s.name).collect();
    let begun = Instant::now();
    let mut sent = None;
    while begun.elapsed() < PATIENCE {
        if sent.is_none_or(|sent: Instant| sent.elapsed() >= AGAIN_AFTER) {
            // Where one of several cannot be sent to, another may do.
            let sent_to = config.listen.iter().map(|address| send(&keys, *address));
            let sent_to: Vec<io::Result<()>> = sent_to.collect();
            if let Some(Err(error)) = sent_to.iter().min_by_key(|sent| sent.is_err()) {
                return Err(failed(error));
            }
            sent = Some(Instant::now());
        }
        let entries = kernel
            .allow_entries(&services)
            .map_err(|error| failed(&error))?;
        if entries.iter().any(|entry| entry.key == *name) {
            return Ok(begun.elapsed());
        }
        sleep(LOOK_EVERY);
    }
    Err(failed(&"no grant appeared within 5 s"))
}

/// To a socket of the daemon's, over the loopback interface.
fn send(keys: &Subkeys, listens: SocketAddr) -> io::Result<()> {
    let knock = Knock {
        action: Action::Open { seconds: 0 },
        timestamp: KeyDirectory::now(),
        address: Some(SOURCE.into()),
        service: None,
    };
    let nonce = random().map_err(io::Error::other)?;
    let (any, here): (IpAddr, IpAddr) = if listens.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into())
    } else {
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into())
    };
    let mut to = listens;
    if to.ip().is_unspecified() {
        to.set_ip(here);
    }
    let socket = UdpSocket::bind((any, 0))?;
    socket.send_to(&seal(keys, &knock, nonce), to).map(drop)
}
