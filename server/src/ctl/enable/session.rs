//! Which session a command is called from: not by its environment, which sudo strips and
//! anybody sets, but by the connection that a process holds which it descends from.

use crate::config::Config;
use crate::ctl::Failure;
use crate::firewall::Firewall;
use nix::unistd::{SysconfVar, sysconf};
use oneknock_shared::port::Transport;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// What to do where no session can be seen.
pub const HINT: &str = "open a new session from the client, such as \"ssh -o ControlPath=none home\", and call it there, in no screen or tmux";

/// A session of this call.
#[derive(Debug, PartialEq, Eq)]
pub struct Session {
    /// Its other end.
    pub address: IpAddr,
    /// For how long it has been there, at most.
    pub age: Duration,
}

/// The session, not older than `since`, that came in through a guarded port.
pub fn of_this_call(
    config: &Config,
    firewall: &mut Firewall,
    since: Duration,
) -> Result<Session, Failure> {
    let refused = |what: String| Err(Failure::Failed(what, Some(HINT.into())));
    let unseen = "cannot see which session this is";
    let redirected = firewall.redirected(config);
    let redirected = redirected.map_err(|error| Failure::new(unseen, error))?;
    let ports = config.services.iter().flat_map(|service| &service.ports);
    let is_guarded = |held: &Held| {
        ports.clone().any(|p| p.contains(Transport::Tcp, held.port))
            || redirected.contains(&(held.remote, held.port))
    };
    let found = read(is_guarded).map_err(|error| Failure::new(unseen, error))?;
    let remote = |session: &Session| !session.address.is_loopback();
    // The nearest one: a session may come from within another.
    let Some(session) = found.into_iter().find(remote) else {
        return refused("this call comes from no session through a guarded port".into());
    };
    let address = session.address;
    if config.never_knocks(address) {
        return refused(format!(
            "the session from {address} needed no knock: it is in [always]"
        ));
    }
    if session.age > since {
        return refused(format!(
            "the session from {address} is older than the trial"
        ));
    }
    Ok(session)
}

/// An established connection, as the socket of it knows it.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    /// Its port here; where a rule redirects, not the one that was addressed.
    port: u16,
    remote: SocketAddr,
}

/// A process, as /proc/PID/stat has it (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Process {
    parent: u32,
    /// When it began, in ticks since the machine's start.
    began: u64,
}

/// The guarded connections that this process's ancestors hold, the nearest first.
fn read(is_guarded: impl Fn(&Held) -> bool) -> Result<Vec<Session>, std::io::Error> {
    let mut connections = BTreeMap::new();
    for name in ["tcp", "tcp6"] {
        // A kernel without IPv6 has none of its table.
        let table = fs::read_to_string(PathBuf::from("/proc/net").join(name));
        connections.extend(established(&table.unwrap_or_default()));
    }
    connections.retain(|_, held| is_guarded(held));
    let uptime = fs::read_to_string("/proc/uptime")?;
    let uptime = uptime
        .split_whitespace()
        .next()
        .and_then(|s| s.parse().ok());
    let uptime = Duration::from_secs_f64(uptime.unwrap_or(0.0));
    let hertz = sysconf(SysconfVar::CLK_TCK)?.and_then(|h| u64::try_from(h).ok());
    let hertz = hertz.filter(|hertz| *hertz > 0).unwrap_or(100);
    let mut found: Vec<(u64, Session)> = Vec::new();
    let mut pid = std::process::id();
    while pid > 1 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let Some(process) = process(&stat) else { break };
        let began = Duration::from_millis(process.began * 1000 / hertz);
        let age = uptime.saturating_sub(began);
        for inode in sockets(pid) {
            let Some(held) = connections.get(&inode) else {
                continue;
            };
            let address = held.remote.ip();
            // Of several holders the oldest is as old as the connection, or younger.
            match found.iter_mut().find(|(known, _)| *known == inode) {
                Some((_, session)) => session.age = session.age.max(age),
                None => found.push((inode, Session { address, age })),
            }
        }
        pid = process.parent;
    }
    Ok(found.into_iter().map(|(_, session)| session).collect())
}

fn process(stat: &str) -> Option<Process> {
    // The name, in brackets, may have any character in it.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    // Field 22; the parent was field 4.
    let began = fields.nth(17)?.parse().ok()?;
    Some(Process { parent, began })
}

/// The inodes of a process's sockets; none where it has just ended.
fn sockets(pid: u32) -> BTreeSet<u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    let links = entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    let inode = |link: PathBuf| {
        let text = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        text.parse().ok()
    };
    links.filter_map(inode).collect()
}

/// The established connections in a table of proc(5), by the socket's inode.
fn established(table: &str) -> BTreeMap<u64, Held> {
    let connection = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, remote, "01", _, _, _, _, _, inode, ..] = fields[..] else {
            return None;
        };
        let number = |hex| u16::from_str_radix(hex, 16).ok();
        let port = number(local.rsplit_once(':')?.1)?;
        let (remote, remote_port) = remote.rsplit_once(':')?;
        let remote = SocketAddr::new(address(remote)?, number(remote_port)?);
        Some((inode.parse().ok()?, Held { port, remote }))
    };
    table.lines().filter_map(connection).collect()
}

/// Words of 32 bits in the machine's order, as they lie in memory.
fn address(hex: &str) -> Option<IpAddr> {
    let mut bytes = Vec::new();
    for at in (0..hex.len()).step_by(8) {
        let word = u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let stat = "812 (a) S 1 (b)) S 77 812 812 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4321 9 9";
        let want = Process {
            parent: 77,
            began: 4321,
        };
        assert_eq!(process(stat), Some(want));
        assert_eq!(process("812 (a) S 77"), None);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn an_established_connection_is_known_by_its_inode() {
        let table = "  sl  local_address rem_address   st\n\
             0: 0100000A:0016 076433C6:C000 01 00000000:00000000 00:00000000 00000000     0        0 4711 1\n\
             1: 0100000A:0017 076433C6:C001 01 00000000:00000000 00:00000000 00000000     0        0 4712 1\n\
             2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1\n\
             3: 0000000000000000FFFF00000100000A:0016 0000000000000000FFFF0000076433C6:C002 01 0:0 0:0 0 0 0 4714 1\n\
             4: B80D0120000000000000000001000000:0016 B80D0120000000000000000007000000:C002 01 0:0 0:0 0 0 0 4715 1\n\
             5: what\n";
        let held = |port, remote: &str| Held {
            port,
            remote: remote.parse().unwrap(),
        };
        let want = BTreeMap::from([
            (4711, held(22, "198.51.100.7:49152")),
            (4712, held(23, "198.51.100.7:49153")),
            (4714, held(22, "198.51.100.7:49154")),
            (4715, held(22, "[2001:db8::7]:49154")),
        ]);
        assert_eq!(established(table), want);
    }
}
