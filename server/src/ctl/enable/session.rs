//! The session that a command is called from: known not by its environment, which sudo strips and
//! anyone sets, but by the connection that an ancestor of its process holds.

use crate::config::Config;
use crate::ctl::Failure;
use crate::kernel::{self, GuardedPorts};
use crate::proc_net::{self, ESTABLISHED, Socket};
use nix::unistd::{SysconfVar, sysconf};
use oneknock_shared::port::Transport;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// What to do where no session can be seen.
pub const HINT: &str = "confirm in an ssh session that was opened since, not in tmux or screen: ssh -o ControlPath=none home; or: confirm --from-console";

/// A session of this call, through a guarded port.
#[derive(Debug, PartialEq, Eq)]
pub struct Session {
    /// Its other end.
    pub remote: SocketAddr,
    /// For how long it has been there, at most.
    pub age: Duration,
}

impl Session {
    /// The one that this call comes from, where it comes from elsewhere through a guarded port.
    pub fn of_this_call(config: &Config) -> io::Result<Option<Self>> {
        let services = config.services.iter().map(|s| (s.name, s.ports.clone()));
        let redirected = kernel::redirected(&GuardedPorts::new(services.collect()));
        let redirected = redirected.map_err(io::Error::other)?;
        let ports = config.services.iter().flat_map(|service| &service.ports);
        // Where a rule redirects, the socket's port is not the one that was addressed.
        let is_guarded = |socket: &Socket| {
            let port = socket.local.port();
            ports.clone().any(|p| p.contains(Transport::Tcp, port))
                || redirected.contains(&(socket.remote, port))
        };
        let found = read(is_guarded)?;
        // The nearest one: a session may come from within another.
        let is_remote = |session: &Self| !session.remote.ip().is_loopback();
        Ok(found.into_iter().find(is_remote))
    }
}

/// Where this call comes from, if from elsewhere: through a guarded port, or by ssh through
/// another.
pub fn remote(config: &Config) -> Option<IpAddr> {
    let session = Session::of_this_call(config).ok().flatten();
    session.map(|session| session.remote.ip()).or_else(|| {
        let connection = std::env::var("SSH_CONNECTION").ok()?;
        connection.split(' ').next()?.parse().ok()
    })
}

/// The session that may confirm a trial: not older than `since`, and not of a trusted network.
pub fn that_confirms(config: &Config, since: Duration) -> Result<Session, Failure> {
    let refused = |what: String| {
        Err(Failure::Refused(
            format!("cannot confirm: {what}"),
            Some(HINT.into()),
        ))
    };
    let session = Session::of_this_call(config)
        .map_err(|error| Failure::new("cannot see which session this is", error))?;
    let Some(session) = session else {
        return refused("this is no session through a guarded port".into());
    };
    let address = session.remote.ip();
    if config.never_knocks(address) {
        return refused(format!("{address} is trusted and never needs to knock"));
    }
    if session.age > since {
        return refused(format!(
            "the session from {address} is older than the trial"
        ));
    }
    Ok(session)
}

/// A process, as /proc/PID/stat has it (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Process {
    parent: u32,
    /// When it began, in ticks since boot.
    began: u64,
}

/// The guarded connections that this process's ancestors hold, the nearest first.
fn read(is_guarded: impl Fn(&Socket) -> bool) -> io::Result<Vec<Session>> {
    let mut connections = BTreeMap::new();
    for name in ["tcp", "tcp6"] {
        // A kernel without IPv6 has no such table.
        let table = fs::read_to_string(PathBuf::from("/proc/net").join(name));
        let sockets = proc_net::sockets(table.as_deref().unwrap_or_default());
        let ours = sockets.filter(|s| s.state == ESTABLISHED && is_guarded(s));
        connections.extend(ours.map(|socket| (socket.inode, socket.remote)));
    }
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
            let Some(&remote) = connections.get(&inode) else {
                continue;
            };
            // Of several holders the oldest is as old as the connection, or younger.
            match found.iter_mut().find(|(known, _)| *known == inode) {
                Some((_, session)) => session.age = session.age.max(age),
                None => found.push((inode, Session { remote, age })),
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
}
