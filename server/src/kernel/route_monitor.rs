//! The default gateways as events: a thread of its own reads the routing tables, and again
//! when the kernel says that a default route may be another.

use super::latest::Latest;
use super::message::messages;
use super::notification_socket::{NotificationSocket, StopOnDrop, StopSignal, ThreadEvent};
use super::routes::{DELETE_ROUTE, NEW_ROUTE, RouteError, default_gateways, is_default};
use netlink_sys::protocols::NETLINK_ROUTE;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV4_ROUTE`, `RTNLGRP_IPV6_IFADDR`,
/// `RTNLGRP_IPV6_ROUTE`. Routes of IPv4 that go with their link or address go in silence.
const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];
/// The tables are read again this long after they were read, at the earliest.
const REST: Duration = Duration::from_millis(100);
/// Reading takes this share of the time at most: a router's tables may have a million
/// routes.
const SHARE: u32 = 20;
/// How long after an error the tables are read again, although nothing is said of them.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Watches the default gateways. It ends when it is dropped.
#[derive(Debug)]
pub struct RouteMonitor {
    latest: Arc<Latest<Result<Vec<IpAddr>, RouteError>>>,
    _stop: StopOnDrop,
}

impl RouteMonitor {
    /// Starts to watch the routes of this thread's network namespace. The first answer comes
    /// when all routes were read.
    pub fn start() -> io::Result<Self> {
        let socket = open()?;
        let (stop_on_drop, stop) = StopSignal::new()?;
        let latest = Arc::new(Latest::new());
        let thread = RouteThread {
            stop,
            latest: Arc::clone(&latest),
            last: None,
        };
        thread::Builder::new()
            .name("routes".into())
            .spawn(move || thread.run(socket))?;
        Ok(Self {
            latest,
            _stop: stop_on_drop,
        })
    }

    /// The gateways, where they differ from what was given last. An error is given once, and
    /// then the gateways as soon as they are known.
    #[must_use]
    pub fn changed(&self) -> Option<Result<Vec<IpAddr>, RouteError>> {
        self.latest.take()
    }

    /// Waits for what [`RouteMonitor::changed`] gives. A wait that is dropped loses nothing.
    /// There may be one waiter at a time.
    pub async fn wait(&self) -> Result<Vec<IpAddr>, RouteError> {
        self.latest.wait().await
    }
}

fn open() -> io::Result<NotificationSocket> {
    NotificationSocket::open(NETLINK_ROUTE, &GROUPS, None)
}

struct RouteThread {
    stop: StopSignal,
    latest: Arc<Latest<Result<Vec<IpAddr>, RouteError>>>,
    /// What was published last: the gateways, or the error in words.
    last: Option<Result<Vec<IpAddr>, String>>,
}

impl RouteThread {
    /// Watches until the thread is to stop. After an error it goes on with a new socket.
    fn run(mut self, socket: NotificationSocket) {
        let mut socket = Ok(socket);
        loop {
            match socket.and_then(|socket| self.watch(socket)) {
                Ok(()) => return,
                Err(error) => self.publish(Err(error.into())),
            }
            if !matches!(self.stop.sleep(RETRY_AFTER), Ok(ThreadEvent::TimedOut)) {
                return;
            }
            socket = open();
        }
    }

    fn watch(&mut self, mut socket: NotificationSocket) -> io::Result<()> {
        loop {
            let started = Instant::now();
            let found = default_gateways();
            let is_known = found.is_ok();
            self.publish(found);
            let rest = REST.max(started.elapsed().saturating_mul(SHARE));
            if self.stop.sleep(rest)? == ThreadEvent::Stop {
                return Ok(());
            }
            loop {
                let time = (!is_known).then_some(RETRY_AFTER);
                match socket.wait(&self.stop, time)? {
                    ThreadEvent::Stop => return Ok(()),
                    ThreadEvent::TimedOut if !is_known => break,
                    _ => {}
                }
                let mut may_differ = false;
                let is_lost = socket.drain(|datagram| may_differ |= bears_on_default(datagram))?;
                if may_differ || is_lost {
                    break;
                }
            }
        }
    }

    fn publish(&mut self, found: Result<Vec<IpAddr>, RouteError>) {
        let told = match &found {
            Ok(gateways) => Ok(gateways.clone()),
            Err(error) => Err(error.to_string()),
        };
        if self.last.as_ref() != Some(&told) {
            self.last = Some(told);
            self.latest.update(|_| found);
        }
    }
}

/// Whether a default route may have changed: a router hears of many routes to single
/// networks, which are skipped.
fn bears_on_default(datagram: &[u8]) -> bool {
    messages(datagram).any(|m| ![NEW_ROUTE, DELETE_ROUTE].contains(&m.kind) || is_default(&m))
}
