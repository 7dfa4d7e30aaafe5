//! The lab: a server, a laptop and a stranger, each in a network of its own, and the
//! router between them.

use crate::host::{self, Host};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

/// Where cargo put the binaries; made by [`crate::binaries!`].
#[derive(Debug, Clone, Copy)]
pub struct Binaries {
    /// The client.
    pub oneknock: &'static str,
    /// The daemon.
    pub oneknockd: &'static str,
    /// The daemon by a clock that a test sets; see [`crate::clock`].
    pub oneknockd_shifted: &'static str,
    /// The administration.
    pub oneknockctl: &'static str,
}

/// Several hosts, joined. Everything is removed when it is dropped.
#[derive(Debug)]
pub struct Lab {
    /// The one who may come in: 198.51.100.7.
    pub laptop: Host,
    /// The one who may not: 203.0.113.9.
    pub stranger: Host,
    /// The one that is guarded: 192.0.2.10.
    pub server: Host,
    /// The router between them, and the server's default gateway: 192.0.2.1.
    pub net: Host,
    id: String,
    path: String,
    // Last: the hosts' homes are in it.
    dir: TempDir,
}

static COUNTER: AtomicUsize = AtomicUsize::new(0);
static SWEEP: Once = Once::new();

/// What the server is called in the lab's names.
pub const SERVER_NAME: &str = "server.lab";

impl Lab {
    /// Builds the lab; panics with one line unless this is root.
    pub fn new(binaries: Binaries) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "the lab makes network namespaces: run these tests as root"
        );
        SWEEP.call_once(sweep);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let id = format!("ok{}-{number}", std::process::id());
        let prefix = format!("{id}-");
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
        let path = link_binaries(dir.path(), binaries);
        let host = |name: &str, v4: &str, v6: &str| {
            let home = dir.path().join(name);
            Host::new(&format!("{id}-{name}"), &home, &path, v4, v6)
        };
        let net = host("net", "192.0.2.1", "2001:db8:0:1::1");
        let server = host("server", "192.0.2.10", "2001:db8:0:1::10");
        let laptop = host("laptop", "198.51.100.7", "2001:db8:0:2::7");
        let stranger = host("stranger", "203.0.113.9", "2001:db8:0:3::9");
        net.forward();
        // The server stands on a bridge, so that a test can put a neighbour beside it.
        net.ip_batch(&format!(
            "link add br0 type bridge mcast_snooping 0\n\
             link set br0 up\n\
             addr add 192.0.2.1/24 dev br0\n\
             addr add 2001:db8:0:1::1/64 dev br0 nodad\n\
             link add server type veth peer name eth0 netns {}\n\
             link set server master br0 up\n\
             link add laptop type veth peer name eth0 netns {}\n\
             link set laptop up\n\
             addr add 198.51.100.1/24 dev laptop\n\
             addr add 2001:db8:0:2::1/64 dev laptop nodad\n\
             link add stranger type veth peer name eth0 netns {}\n\
             link set stranger up\n\
             addr add 203.0.113.1/24 dev stranger\n\
             addr add 2001:db8:0:3::1/64 dev stranger nodad\n",
            server.namespace(),
            laptop.namespace(),
            stranger.namespace(),
        ));
        plug_in(&server, "192.0.2.1", "2001:db8:0:1::1");
        plug_in(&laptop, "198.51.100.1", "2001:db8:0:2::1");
        plug_in(&stranger, "203.0.113.1", "2001:db8:0:3::1");
        let lab = Self {
            laptop,
            stranger,
            server,
            net,
            id,
            path,
            dir,
        };
        for host in [&lab.laptop, &lab.stranger] {
            lab.name_server(host, &lab.server.addresses());
        }
        lab
    }

    /// A folder that goes when the lab goes.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Lets `server.lab` mean these addresses on `host`.
    pub fn name_server(&self, host: &Host, addresses: &[std::net::IpAddr]) {
        let lines = addresses.iter().map(|a| format!("{a} {SERVER_NAME}\n"));
        host.set_names(&lines.collect::<String>());
    }

    /// One more host on the server's own network, on its very wire: 192.0.2.20.
    pub fn neighbour(&self) -> Host {
        let host = self.host("neighbour", "192.0.2.20", "2001:db8:0:1::20");
        self.net.ip_batch(&format!(
            "link add neighbour type veth peer name eth0 netns {}\n\
             link set neighbour master br0 up\n",
            host.namespace()
        ));
        plug_in(&host, "192.0.2.1", "2001:db8:0:1::1");
        host
    }

    /// A host behind the server, which then forwards: 198.18.0.2.
    pub fn behind(&self) -> Host {
        let host = self.host("behind", "198.18.0.2", "2001:db8:0:9::2");
        self.server.forward();
        self.server.ip_batch(&format!(
            "link add behind type veth peer name eth0 netns {}\n\
             link set behind up\n\
             addr add 198.18.0.1/24 dev behind\n\
             addr add 2001:db8:0:9::1/64 dev behind nodad\n",
            host.namespace()
        ));
        plug_in(&host, "198.18.0.1", "2001:db8:0:9::1");
        self.net.ip_batch(
            "route add 198.18.0.0/24 via 192.0.2.10\n\
             route add 2001:db8:0:9::/64 via 2001:db8:0:1::10\n",
        );
        host
    }

    fn host(&self, name: &str, v4: &str, v6: &str) -> Host {
        let home = self.dir.path().join(name);
        Host::new(&format!("{}-{name}", self.id), &home, &self.path, v4, v6)
    }
}

fn plug_in(host: &Host, gateway4: &str, gateway6: &str) {
    let Host { v4, v6, .. } = host;
    host.ip_batch(&format!(
        "link set eth0 up\n\
         addr add {v4}/24 brd + dev eth0\n\
         addr add {v6}/64 dev eth0 nodad\n\
         route add default via {gateway4}\n\
         route add default via {gateway6}\n"
    ));
}

/// Puts the binaries, under the names that people know, first in a `PATH`.
fn link_binaries(dir: &Path, binaries: Binaries) -> String {
    let bin: PathBuf = dir.join("bin");
    fs::create_dir(&bin).unwrap();
    for (name, file) in [
        ("oneknock", binaries.oneknock),
        ("oneknockd", binaries.oneknockd),
        ("oneknockd-shifted", binaries.oneknockd_shifted),
        ("oneknockctl", binaries.oneknockctl),
    ] {
        symlink(file, bin.join(name)).unwrap();
    }
    let bin = bin.display();
    format!("{bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

/// Removes labs whose process was killed before it could.
fn sweep() {
    let Ok(folder) = fs::read_dir("/run/netns") else {
        return;
    };
    for entry in folder.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("ok").and_then(|n| n.split('-').next());
        let Some(pid) = pid.filter(|p| p.parse::<u32>().is_ok()) else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            host::remove(&name);
        }
    }
}
