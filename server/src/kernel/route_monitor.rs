//! The default gateways as events: a thread of its own reads the routing tables, and again
//! when the kernel says that a default route may be another.

use super::netlink::{Netlink, RawMessage};
use super::routes::{
    DELETE_ROUTE, NEW_ROUTE, RouteError, UnknownGateways, default_gateways, is_default,
};
use super::watcher::{RETRY_AFTER, ThreadEvent, Watch, WatchThread, Watcher};
use netlink_sys::protocols::NETLINK_ROUTE;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV4_ROUTE`, `RTNLGRP_IPV6_IFADDR`,
/// `RTNLGRP_IPV6_ROUTE`. Routes of IPv4 that go with their link or address go in silence.
const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];
/// The tables are read again this long after they were read, at the earliest.
const REST: Duration = Duration::from_millis(100);
/// Reading takes this share of the time at most: a router's tables may have a million
/// routes.
const SHARE: u32 = 20;

/// The gateways, or why they are not all known.
type Gateways = Result<Vec<IpAddr>, UnknownGateways>;

/// Watches the default gateways. They are told where they differ from what was told last. An
/// error is told once, and then the gateways as soon as they are known.
pub type RouteMonitor = Watcher<Gateways>;

impl RouteMonitor {
    /// Starts to watch the routes of this thread's network namespace. The first answer comes
    /// when all routes were read.
    pub fn start() -> io::Result<Self> {
        Self::spawn(RouteWatch { last: None })
    }
}

/// The gateways that are known, and in words why others are not.
type Told = Result<Vec<IpAddr>, (Vec<IpAddr>, String)>;

struct RouteWatch {
    /// What was told last.
    last: Option<Told>,
}

impl Watch<Gateways> for RouteWatch {
    const NAME: &'static str = "routes";

    fn open(&self) -> io::Result<Netlink> {
        Netlink::subscribe(NETLINK_ROUTE, &GROUPS, None)
    }

    fn read(&mut self, mut socket: Netlink, thread: &WatchThread<Gateways>) -> io::Result<()> {
        loop {
            let started = Instant::now();
            let found = default_gateways();
            let retry = found.is_err().then_some(RETRY_AFTER);
            self.tell(found, thread);
            let rest = REST.max(started.elapsed().saturating_mul(SHARE));
            if thread.wait(None, Some(rest))? == ThreadEvent::Stop {
                return Ok(());
            }
            loop {
                match thread.wait(Some(&socket), retry)? {
                    ThreadEvent::Stop => return Ok(()),
                    ThreadEvent::TimedOut if retry.is_some() => break,
                    _ => {}
                }
                let mut may_differ = false;
                let is_lost = socket.drain(|message| may_differ |= bears_on_default(message))?;
                if may_differ || is_lost {
                    break;
                }
            }
        }
    }

    fn fail(&mut self, error: io::Error, thread: &WatchThread<Gateways>) {
        self.tell(Err(RouteError::Read(error).into()), thread);
    }
}

impl RouteWatch {
    fn tell(&mut self, found: Gateways, thread: &WatchThread<Gateways>) {
        let told = found.as_ref().cloned();
        let told = told.map_err(|unknown| (unknown.known.clone(), unknown.to_string()));
        if self.last.as_ref() != Some(&told) {
            self.last = Some(told);
            thread.tell(|_| found);
        }
    }
}

/// Whether a default route may have changed: a router hears of many routes to single
/// networks, which are skipped.
fn bears_on_default(message: &RawMessage<'_>) -> bool {
    ![NEW_ROUTE, DELETE_ROUTE].contains(&message.kind) || is_default(message)
}
