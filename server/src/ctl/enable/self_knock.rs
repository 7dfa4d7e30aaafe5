//! The self-test: the machine knocks at itself with a key of its own, so that the path from a
//! packet to the kernel's set is seen to work before a port is closed.

use crate::config::{Generation, Paths, Policy};
use crate::control::answers::KeyReloaded;
use crate::control::protocol::Command;
use crate::ctl::Failure;
use crate::ctl::ask::ask;
use crate::ctl::key::{Folder, OWN_KEY};
use crate::files::Existing;
use crate::kernel::Kernel;
use oneknock_shared::knock::{Action, Knock, Timestamp};
use oneknock_shared::name::KeyName;
use oneknock_shared::packet::seal;
use oneknock_shared::secret::{Secret, Subkeys, random};
use std::fs;
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
pub fn knock(paths: &Paths) -> Result<Duration, Failure> {
    let folder = Folder::open(paths)?;
    let name: KeyName = OWN_KEY.parse().map_err(|e| Failure::new(OWN_KEY, e))?;
    let services = folder.config.services.iter().map(|s| s.name).collect();
    let mut policy = Policy::new(services);
    policy.max_open_for = Some(OPEN_FOR);
    policy.admit_others = true;
    let made = Generation::generate(1, Folder::now());
    let mut generation = made.map_err(|e| Failure::new("cannot make a key", e))?;
    let ends = u64::try_from(LIVES_FOR.as_millis()).unwrap_or(u64::MAX);
    generation.not_after = Some(Timestamp(Folder::now().0.saturating_add(ends)));
    let secret = generation.secret.clone();
    let generations = vec![generation];
    let turn = folder.turn()?;
    let written = folder.write(&turn, &name, (&policy, &generations), Existing::Replace);
    drop(turn);
    written.map_err(|error| Failure::io(&folder.path(&name), &error))?;
    let reload = Command::ReloadKey { key: name.clone() };
    let told: Result<KeyReloaded, _> = ask(paths, &reload);
    let took = match told {
        Ok(_) => until_granted(&folder, &name, &secret),
        Err(no) => Err(no.into()),
    };
    let turn = folder.turn()?;
    folder.remove(&turn, &name)?;
    drop(turn);
    let _: KeyReloaded = ask(paths, &reload)?;
    took
}

/// Removes the key that a call has left which was killed.
pub fn clean_up(paths: &Paths) -> Result<(), Failure> {
    let path = paths.key_file(OWN_KEY);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::io(&path, &error)),
        _ => Ok(()),
    }
}

fn until_granted(
    folder: &Folder<'_>,
    name: &KeyName,
    secret: &Secret,
) -> Result<Duration, Failure> {
    let config = &folder.config;
    let keys = Subkeys::derive(secret, &config.server_id);
    let failed = |why: &dyn std::fmt::Display| {
        let hint = format!(
            "{} log --denied; oneknockd's log may say more",
            folder.paths.ctl()
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
        timestamp: Folder::now(),
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
