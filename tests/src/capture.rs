//! What really passed on a host's wire, as tcpdump saw it.

use crate::host::Host;
use crate::process::Running;
use crate::wait;
use std::net::{IpAddr, UdpSocket};

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Running,
    marks: usize,
}

/// Neighbour discovery and multicast listener reports: a host says these by itself.
pub const NOT_HOUSEKEEPING: &str =
    "not arp and not ip6[6] = 0 and not (icmp6 and ip6[40] >= 133 and ip6[40] <= 137)";

/// Whatever the server sends, of either family.
pub const FROM_SERVER: &str = "src host 192.0.2.10 or src host 2001:db8:0:1::10";

/// The discard service: where marks are sent.
const MARK_PORT: u16 = 9;

impl Capture {
    /// Watches the host's own link for what the filter (tcpdump's language) takes.
    pub fn start(host: &Host, filter: &str) -> Self {
        Self::start_for(host, "inout", filter)
    }

    /// As [`Capture::start`], but only for what leaves the host.
    pub fn leaving(host: &Host, filter: &str) -> Self {
        Self::start_for(host, "out", filter)
    }

    fn start_for(host: &Host, direction: &str, filter: &str) -> Self {
        let filter = format!("({filter}) or udp dst port {MARK_PORT}");
        let tcpdump = ["tcpdump", "-i", "eth0", "-n", "-l", "--immediate-mode"];
        let command = host.command(&[&tcpdump[..], &["-Q", direction, &filter]].concat());
        let mut tcpdump = Running::start("tcpdump", command);
        tcpdump.expect("listening on");
        Self { tcpdump, marks: 0 }
    }

    /// All packets so far, one line each. `sender` sends a mark to `to`, on a way that
    /// leads past here: what it sent before the mark is then surely among them.
    pub fn packets(&mut self, sender: &Host, to: IpAddr) -> Vec<String> {
        self.marks += 1;
        let mark = vec![0; self.marks];
        sender.enter(|| {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).unwrap();
            socket.send_to(&mark, (to, MARK_PORT)).unwrap();
        });
        let end = format!(".{MARK_PORT}: UDP, length {}", self.marks);
        wait::until_true("the capture's mark", || self.tcpdump.count(&end) > 0);
        let is_mark = |line: &String| line.contains(&format!(".{MARK_PORT}: UDP, length"));
        let is_packet = |line: &String| line.contains(" IP ") || line.contains(" IP6 ");
        let lines = self.tcpdump.lines().into_iter();
        lines.filter(|l| is_packet(l) && !is_mark(l)).collect()
    }

    /// Waits for a packet whose line holds `text`, after the last one waited for.
    pub fn expect(&mut self, text: &str) -> String {
        self.tcpdump.expect(text)
    }

    /// How many packets so far have a line that holds `text`.
    pub fn count(&self, text: &str) -> usize {
        self.tcpdump.count(text)
    }
}
