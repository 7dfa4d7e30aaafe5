//! A server that is set up: sshd, configuration and keys, ready for its daemon.

use crate::clock::{self, WallClock};
use crate::host::{Done, Host};
use crate::lab::{Binaries, Lab, SERVER_NAME};
use crate::process::Running;
use crate::ssh::Sshd;
use crate::wire::{self, Key};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The UDP port that every lab's daemon listens on.
pub const PORT: u16 = 45123;

/// A lab whose server is configured, and enforces where its daemon starts.
#[derive(Debug)]
pub struct Site {
    /// sshd on the server.
    pub sshd: Sshd,
    /// The hosts.
    pub lab: Lab,
    /// The server's configuration folder.
    pub dir: PathBuf,
}

/// A member of an allow set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Who is admitted.
    pub address: IpAddr,
    /// For how many more seconds, rounded down.
    pub expires: u64,
    /// The key's name.
    pub comment: String,
}

impl Site {
    /// A lab with sshd and `oneknockctl init`, for the service ssh alone, as if enabled.
    pub fn new(binaries: Binaries) -> Self {
        Self::with_services(binaries, &[])
    }

    /// As [`Site::new`], as `init` leaves it: its daemon does not enforce.
    pub fn not_enabled(binaries: Binaries) -> Self {
        let site = Self::new(binaries);
        fs::remove_file(site.enabled()).unwrap();
        site
    }

    /// As [`Site::new`], with the services given as `--service` takes them.
    pub fn with_services(binaries: Binaries, services: &[&str]) -> Self {
        let lab = Lab::new(binaries);
        let sshd = Sshd::start(&lab, &lab.server);
        let dir = lab.server.home.join("oneknock");
        let site = Self { sshd, lab, dir };
        let port = PORT.to_string();
        let mut init = vec!["init", "--host", SERVER_NAME, "--name", "home"];
        init.extend(["--port", &port]);
        init.extend(services.iter().flat_map(|s| ["--service", s]));
        site.ctl(&init).ok();
        fs::write(site.enabled(), "").unwrap();
        site
    }

    /// Runs `oneknockctl` with this site's configuration.
    pub fn ctl(&self, args: &[&str]) -> Done {
        let config = ["--config", self.dir.to_str().unwrap()];
        let args = [&["oneknockctl"], args, &config].concat();
        self.lab.server.run(&args)
    }

    /// Makes a key that may open these services.
    pub fn key(&self, name: &str, services: &[&str]) -> Key {
        let mut add = vec!["key", "add", name];
        add.extend(services.iter().flat_map(|s| ["--service", s]));
        let line = self.ctl(&add).ok();
        let invitation = line.parse().unwrap_or_else(|e| panic!("{line}: {e}"));
        Key { line, invitation }
    }

    /// Makes a key for ssh and imports it on the laptop as the door `home`.
    pub fn laptop_key(&self) -> Key {
        let key = self.key("laptop", &["ssh"]);
        self.import(&self.lab.laptop, &key, "home");
        key
    }

    /// Imports a key on a host.
    pub fn import(&self, host: &Host, key: &Key, door: &str) {
        let import = ["oneknock", "import", "--name", door];
        host.run_with(&import, &key.line).ok();
    }

    /// The configuration's file.
    pub fn config(&self) -> PathBuf {
        self.dir.join("oneknockd.toml")
    }

    /// The file of a key.
    pub fn key_file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("keys/{name}.toml"))
    }

    /// The marker of a server that enforces.
    pub fn enabled(&self) -> PathBuf {
        self.dir.join("enabled")
    }

    /// The folder of the state that outlives the daemon.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// How many bytes the state has on disk.
    pub fn state_size(&self) -> u64 {
        let files = fs::read_dir(self.state()).unwrap();
        files.map(|f| f.unwrap().metadata().unwrap().len()).sum()
    }

    /// Sets a top-level value, given as TOML, in the configuration or a key's file.
    pub fn set(&self, file: &Path, name: &str, value: &str) {
        let text = without(file, name);
        fs::write(file, format!("{name} = {value}\n{text}")).unwrap();
    }

    /// Sets a value of every service in the configuration.
    pub fn set_service(&self, name: &str, value: &str) {
        let file = self.config();
        let text = without(&file, name);
        let header = "[[service]]\n";
        assert!(text.contains(header), "no {header} in\n{text}");
        let text = text.replace(header, &format!("{header}{name} = {value}\n"));
        fs::write(file, text).unwrap();
    }

    /// The command that starts the daemon.
    pub fn daemon_command(&self) -> Vec<&str> {
        vec!["oneknockd", "--config", self.dir.to_str().unwrap()]
    }

    /// Starts the daemon and waits until it is ready.
    pub fn daemon(&self) -> Running {
        let mut daemon = self.daemon_unready();
        daemon.expect("oneknockd: ready ");
        daemon
    }

    /// Starts the daemon by a clock of the test's own, and waits until it is ready.
    pub fn daemon_by(&self, clock: &WallClock) -> Running {
        let mut daemon = self.daemon_unready_by(clock);
        daemon.expect("oneknockd: ready ");
        daemon
    }

    /// Starts the daemon by a clock of the test's own.
    pub fn daemon_unready_by(&self, clock: &WallClock) -> Running {
        let config = self.dir.to_str().unwrap();
        let command = ["oneknockd-shifted", "--config", config];
        let mut command = self.lab.server.command(&command);
        command.env(clock::FILE, clock.file());
        Running::start("oneknockd", command)
    }

    /// Starts the daemon, which must refuse and load nothing; gives what it said.
    #[track_caller]
    pub fn daemon_refuses(&self) -> String {
        let mut daemon = self.daemon_unready();
        let status = daemon.end();
        let said = daemon.lines().join("\n");
        assert_eq!(status.code(), Some(2), "{said}");
        assert_eq!(daemon.count("ready"), 0, "{said}");
        let tables = self.lab.server.run(&["nft", "list", "tables"]).ok();
        assert_eq!(tables, "", "{said}");
        said
    }

    /// Starts the daemon.
    pub fn daemon_unready(&self) -> Running {
        let command = self.lab.server.command(&self.daemon_command());
        Running::start("oneknockd", command)
    }

    /// The members of a service's two allow sets.
    pub fn guests(&self, service: &str) -> Vec<Guest> {
        ["4", "6"]
            .iter()
            .flat_map(|family| self.set_members(&format!("{service}{family}")))
            .collect()
    }

    /// Whether `address` is in a service's allow set.
    pub fn admits(&self, service: &str, address: IpAddr) -> bool {
        self.guests(service).iter().any(|g| g.address == address)
    }

    /// Whether `address` is in a service's allow set, asked for by itself: a list of very
    /// many may lack some.
    pub fn has_guest(&self, service: &str, address: IpAddr) -> bool {
        let family = if address.is_ipv6() { 6 } else { 4 };
        let (set, element) = (format!("{service}{family}"), format!("{{ {address} }}"));
        let get = ["nft", "get", "element", "inet", "oneknock", &set, &element];
        self.lab.server.run(&get).code == Some(0)
    }

    fn set_members(&self, set: &str) -> Vec<Guest> {
        let list = ["nft", "-j", "list", "set", "inet", "oneknock", set];
        let listing = self.lab.server.run(&list).ok();
        let listing: serde_json::Value = serde_json::from_str(&listing).unwrap();
        let entries = listing["nftables"].as_array().unwrap().iter();
        entries
            .filter_map(|e| e["set"]["elem"].as_array())
            .flatten()
            .map(|element| Guest {
                address: element["elem"]["val"].as_str().unwrap().parse().unwrap(),
                expires: element["elem"]["expires"].as_u64().unwrap_or(0),
                comment: element["elem"]["comment"].as_str().unwrap_or("").into(),
            })
            .collect()
    }

    /// Runs `oneknock` on the laptop.
    pub fn oneknock(&self, args: &[&str]) -> Done {
        self.lab.laptop.run(&[&["oneknock"], args].concat())
    }

    /// Runs `oneknock ssh home` on the laptop, with a command for the server's shell.
    pub fn oneknock_ssh(&self, command: &str) -> Done {
        self.oneknock(&["ssh", "home", "-F", self.sshd.config(), command])
    }

    /// An ssh session from the laptop that answers `got X` to each line X that it is
    /// told; `ssh` is the program and its first arguments.
    pub fn session(&self, ssh: &[&str]) -> Running {
        let echo = "echo in; while read line; do echo got $line; done";
        let config = ["-F", self.sshd.config(), echo];
        let command = self.lab.laptop.command(&[ssh, &config].concat());
        let mut session = Running::start("session", command);
        session.expect("in");
        session
    }

    /// How the guarded ssh port looks from a host.
    pub fn probe(&self, from: &Host, to: IpAddr) -> wire::Probe {
        wire::probe(from, to, 22)
    }
}

/// The file's text without its lines `name = …`.
fn without(file: &Path, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap();
    let is_it = |line: &str| {
        let rest = line.trim_start().strip_prefix(name);
        rest.is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let lines = text.lines().filter(|line| !is_it(line));
    lines.flat_map(|line| [line, "\n"]).collect()
}
