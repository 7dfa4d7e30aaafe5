//! Other knockers, as Debian packages them and their manuals set them up, in the same lab.

use crate::probe::{self, PATIENCE};
use crate::site::{Measured, own};
use crate::stats::Samples;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use oneknock_tests::{Running, wait};
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Between two attempts to connect.
const EVERY: Duration = Duration::from_micros(20);

/// A running peer's daemon, and how to knock at it.
pub struct Peer {
    pub name: &'static str,
    _daemon: Running,
    knock: Box<dyn Fn(Ipv4Addr) -> Vec<String> + Sync>,
    /// The last packet of its knock goes there.
    pub protocol: u8,
    port: u16,
    /// Where its first packet goes.
    pub first: u16,
    /// Whether it can open for an address of the client's choice.
    chooses: bool,
}

/// Why a peer is not measured. Each of them opens by iptables.
pub fn missing(program: &str) -> Option<String> {
    let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let is_there = |program: &str| {
        folders
            .iter()
            .any(|dir| Path::new(dir).join(program).exists())
    };
    let missing = [program, "iptables"].into_iter().find(|p| !is_there(p))?;
    Some(format!("{program}: {missing} is not installed"))
}

/// ssh shut by iptables, but for what is established.
fn shut(measured: &Measured) {
    let server = &measured.site.lab.server;
    let established = "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT";
    for rule in [established, "-j DROP"] {
        let rule = format!("iptables -A INPUT -p tcp --dport 22 {rule}");
        server.run(&rule.split(' ').collect::<Vec<_>>()).ok();
    }
}

pub fn fwknop(measured: &Measured) -> Peer {
    fwknop_with("fwknop", "", measured)
}

/// As it listens where it is set to: on a socket, and does not look at the link every 0.1 s.
pub fn fwknop_by_socket(measured: &Measured) -> Peer {
    fwknop_with("fwknop, UDP server", "ENABLE_UDP_SERVER Y;\n", measured)
}

fn fwknop_with(name: &'static str, more: &str, measured: &Measured) -> Peer {
    shut(measured);
    let lab = &measured.site.lab;
    let made = lab.server.run(&["fwknop", "--key-gen"]).ok();
    let key = |name: &str| {
        let line = made.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim_start_matches(':').trim().to_owned()
    };
    let (key, hmac) = (key("KEY_BASE64"), key("HMAC_KEY_BASE64"));
    let dir = lab.server.home.join("fwknop");
    fs::create_dir_all(&dir).unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let access = format!(
        "SOURCE ANY\nOPEN_PORTS tcp/22\nREQUIRE_SOURCE_ADDRESS Y\n\
         KEY_BASE64 {key}\nHMAC_KEY_BASE64 {hmac}\nFW_ACCESS_TIMEOUT 2\n"
    );
    let access = file("access.conf", &access);
    let config = file("fwknopd.conf", &format!("PCAP_INTF eth0;\n{more}"));
    let run = dir.to_str().unwrap().to_owned();
    let daemon = [
        "fwknopd", "-f", "-i", "eth0", "-a", &access, "-c", &config, "-r", &run,
    ];
    let mut daemon = Running::start("fwknopd", lab.server.command(&daemon));
    wait::until_true("fwknopd", || {
        daemon.is_alive() && fs::exists(dir.join("fwknopd.pid")).unwrap()
    });
    let server = measured.server().to_string();
    Peer {
        name,
        _daemon: daemon,
        knock: Box::new(move |from| {
            let from = from.to_string();
            let words = [
                "fwknop",
                "-A",
                "tcp/22",
                "-a",
                &from,
                "-D",
                &server,
                "--use-hmac",
            ];
            let keys = ["--key-base64-rijndael", &key, "--key-base64-hmac", &hmac];
            let words = [&words[..], &keys, &["--no-save-args", "--no-rc-file"]].concat();
            words.into_iter().map(ToOwned::to_owned).collect()
        }),
        protocol: 17,
        port: 62201,
        first: 62201,
        chooses: true,
    }
}

pub fn knockd(measured: &Measured) -> Peer {
    shut(measured);
    let lab = &measured.site.lab;
    let file = lab.server.home.join("knockd.conf");
    let log = lab.server.home.join("knockd.log");
    let rule = "-s %IP% -p tcp --dport 22 -j ACCEPT";
    let config = format!(
        "[options]\nlogfile = {}\n[ssh]\nsequence = 7000,8000,9000\nseq_timeout = 5\n\
         tcpflags = syn\nstart_command = /usr/sbin/iptables -I INPUT 1 {rule}\n\
         cmd_timeout = 2\nstop_command = /usr/sbin/iptables -D INPUT {rule}\n",
        log.display()
    );
    fs::write(&file, config).unwrap();
    let daemon = ["knockd", "-i", "eth0", "-c", file.to_str().unwrap()];
    let daemon = Running::start("knockd", lab.server.command(&daemon));
    let server = measured.server().to_string();
    // Its start is not told anywhere but in its capture.
    wait::until_true("knockd", || log.exists());
    Peer {
        name: "knockd",
        _daemon: daemon,
        knock: Box::new(move |_| {
            let words = ["knock", "-d", "10", &server, "7000", "8000", "9000"];
            words.map(ToOwned::to_owned).to_vec()
        }),
        protocol: 6,
        port: 9000,
        first: 7000,
        chooses: false,
    }
}

/// Sees what arrives at the server's link.
struct Watch {
    socket: OwnedFd,
}

impl Watch {
    fn start(measured: &Measured) -> Self {
        let socket = measured.site.lab.server.enter(|| {
            let (kind, flags) = (SockType::Datagram, SockFlag::empty());
            socket(AddressFamily::Packet, kind, flags, SockProtocol::EthAll).unwrap()
        });
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(4, 0)).unwrap();
        Self { socket }
    }

    /// Waits for a packet from there to that port.
    fn until(&self, from: Ipv4Addr, protocol: u8, port: u16) -> Option<Instant> {
        let (mut bytes, begun) = ([0; 2048], Instant::now());
        // In a flood there is always something.
        while begun.elapsed() < 2 * PATIENCE {
            let flags = MsgFlags::empty();
            let length = recv(self.socket.as_raw_fd(), &mut bytes, flags).ok()?;
            let is_it = length >= 24
                && bytes[0] == 0x45
                && bytes[9] == protocol
                && bytes[12..16] == from.octets()
                && bytes[22..24] == port.to_be_bytes();
            if is_it {
                return Some(Instant::now());
            }
        }
        None
    }
}

impl Peer {
    /// A command that knocks from the host beside the server.
    pub fn command(&self, measured: &Measured, from: Ipv4Addr) -> Command {
        measured.near.command(&(self.knock)(from))
    }

    /// From the arrival of its (last) packet until a SYN is answered.
    pub fn to_answer(&self, measured: &Measured, trials: usize) -> Samples {
        let trial = |number: usize| {
            let from = if self.chooses {
                own(number)
            } else {
                measured.near.v4
            };
            let mut knock = self.command(measured, from);
            measured.near.enter(|| {
                until_shut(measured, from);
                let watch = Watch::start(measured);
                let begun = Instant::now();
                let mut client = knock.output_later();
                let (arrived, answered) = std::thread::scope(|scope| {
                    let arrived = scope.spawn(|| watch.until(from, self.protocol, self.port));
                    let answered = probe::until_answered(from, measured.ssh(), EVERY, PATIENCE);
                    (arrived.join().unwrap(), answered)
                });
                client.wait().unwrap();
                // A watch that was swamped by a flood costs nobody his success.
                answered?.checked_duration_since(arrived.unwrap_or(begun))
            })
        };
        (0..trials).map(trial).collect()
    }

    /// The client's command, then ssh, as a person would type it.
    pub fn whole(&self, measured: &Measured, trials: usize) -> Samples {
        let config = measured.site.sshd.config();
        let server = measured.server().to_string();
        let from = measured.near.v4;
        let trial = |_| {
            measured.near.enter(|| until_shut(measured, from));
            let mut knock = self.command(measured, from);
            let ssh = ["ssh", "-F", config, &server, "true"];
            let mut ssh = measured.near.command(&ssh);
            let start = Instant::now();
            let knocked = knock.output_later().wait().unwrap();
            let done = ssh.output_later().wait().unwrap();
            (knocked.success() && done.success()).then(|| start.elapsed())
        };
        (0..trials).map(trial).collect()
    }
}

/// Waits until what was open is shut again.
fn until_shut(measured: &Measured, from: Ipv4Addr) {
    let shut = || {
        let soon = Duration::from_millis(100);
        probe::until_answered(from, measured.ssh(), EVERY, soon).is_none()
    };
    wait::until_true("it is shut again", shut);
}

/// A command whose words nobody reads.
trait Quiet {
    fn output_later(&mut self) -> std::process::Child;
}

impl Quiet for Command {
    fn output_later(&mut self) -> std::process::Child {
        use std::process::Stdio;
        self.stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.spawn().unwrap()
    }
}
