//! What the daemon tells the service manager that started it: that it is ready, and that
//! its loop still turns. Without one, nothing.
//!
//! Each message is one datagram to the socket that the manager has named, as `sd_notify(3)`
//! describes it.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The way to the service manager.
#[derive(Debug)]
pub struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Whether it wants to hear that the loop turns.
    watches: bool,
}

impl Manager {
    /// The one that the environment names, where it names one.
    pub fn from_environment() -> io::Result<Self> {
        let variable = |name| std::env::var(name).ok();
        let (socket, watchdog) = (variable("NOTIFY_SOCKET"), variable("WATCHDOG_USEC"));
        Self::new(socket.as_deref(), watchdog.as_deref()).map_err(|error| unreached(&error))
    }

    fn new(socket: Option<&str>, watchdog: Option<&str>) -> io::Result<Self> {
        let socket = match socket {
            None => None,
            Some(name) => {
                let address = match name.strip_prefix('@') {
                    Some(name) => SocketAddr::from_abstract_name(name)?,
                    None => SocketAddr::from_pathname(name)?,
                };
                Some((UnixDatagram::unbound()?, address))
            }
        };
        let watches = watchdog.is_some() && socket.is_some();
        Ok(Self { socket, watches })
    }

    /// The guard is up and the sockets are bound. Where that cannot be said it is an error:
    /// the manager would wait for it, and end the daemon in the end.
    pub fn ready(&self) -> io::Result<()> {
        self.say("READY=1").map_err(|error| unreached(&error))?;
        match &self.socket {
            // From now on nothing may hold the loop up.
            Some((socket, _)) => socket.set_nonblocking(true),
            None => Ok(()),
        }
    }

    /// The loop turns. To be said by the loop itself, so that a stuck one is found.
    pub fn turns(&self) {
        if self.watches {
            // One that is lost is followed by the next.
            let _ = self.say("WATCHDOG=1");
        }
    }

    /// The daemon is about to end, because it was asked to.
    pub fn stopping(&self) {
        // The manager sees the end itself.
        let _ = self.say("STOPPING=1");
    }

    fn say(&self, what: &str) -> io::Result<()> {
        match &self.socket {
            Some((socket, address)) => socket.send_to_addr(what.as_bytes(), address).map(|_| ()),
            None => Ok(()),
        }
    }
}

fn unreached(error: &io::Error) -> io::Error {
    let what = format!("the service manager cannot be told (NOTIFY_SOCKET): {error}");
    io::Error::new(error.kind(), what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 64];
        manager.set_nonblocking(true).unwrap();
        let length = manager.recv(&mut buffer).unwrap_or(0);
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn a_manager_hears_of_readiness_and_of_each_turn_that_it_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listens = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::new(path.to_str(), Some("30000000")).unwrap();
        manager.ready().unwrap();
        assert_eq!(told(&listens), "READY=1");
        manager.turns();
        assert_eq!(told(&listens), "WATCHDOG=1");
        manager.stopping();
        assert_eq!(told(&listens), "STOPPING=1");
        let does_not_watch = Manager::new(path.to_str(), None).unwrap();
        does_not_watch.turns();
        assert_eq!(told(&listens), "");
    }

    #[test]
    fn an_abstract_socket_is_found_too() {
        let name = format!("oneknock-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listens = UnixDatagram::bind_addr(&address).unwrap();
        let manager = Manager::new(Some(&format!("@{name}")), None).unwrap();
        manager.ready().unwrap();
        assert_eq!(told(&listens), "READY=1");
    }

    #[test]
    fn without_a_manager_nothing_is_said_and_with_a_dead_one_readiness_is_an_error() {
        let nobody = Manager::new(None, Some("30000000")).unwrap();
        nobody.ready().unwrap();
        nobody.turns();
        let gone = Manager::new(Some("/nonexistent/notify"), Some("1")).unwrap();
        gone.ready().unwrap_err();
        gone.turns();
    }

    #[test]
    fn a_manager_that_does_not_read_holds_nothing_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _listens = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::new(path.to_str(), Some("1")).unwrap();
        manager.ready().unwrap();
        (0..10_000).for_each(|_| manager.turns());
    }
}
