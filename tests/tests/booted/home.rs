//! A server at home: a machine of its own, and sshd on it.

use crate::packages;
use oneknock_tests::boot::Machine;
use oneknock_tests::ssh::Sshd;
use oneknock_tests::wire::{self, Probe};
use oneknock_tests::{Lab, Running, wait};
use std::path::{Path, PathBuf};

pub const DAEMON: &str = "oneknockd.service";
pub const GUARD: &str = "oneknock-guard.service";
/// The configuration's file.
pub const CONFIG: &str = "/etc/oneknock/oneknockd.toml";

/// A lab whose server is such a machine.
pub struct Home<'l> {
    pub machine: Machine<'l>,
    pub sshd: Sshd,
    pub lab: &'l Lab,
}

/// A file of the server's package.
pub fn dist(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("server/dist").join(name)
}

impl<'l> Home<'l> {
    /// Booted, with the package, a configuration, and a key on the laptop; nothing is
    /// enabled.
    pub fn new(lab: &'l Lab) -> Self {
        let home = Self::bare(lab);
        home.install(&packages::server("1.0-1"));
        home.configure();
        home
    }

    /// Booted, as Debian left it.
    pub fn bare(lab: &'l Lab) -> Self {
        Self::bare_with(lab, &[])
    }

    /// Booted, with these packages of Debian's.
    pub fn bare_with(lab: &'l Lab, packages: &[&str]) -> Self {
        let sshd = Sshd::start(lab, &lab.server);
        let mut machine = Machine::new(lab, &lab.server);
        if !packages.is_empty() {
            machine.install(packages);
        }
        machine.boot();
        Self { machine, sshd, lab }
    }

    /// As a person installs a package's file. Gives what was said.
    pub fn install(&self, package: &Path) -> String {
        let file = "/root/package.deb";
        self.machine.copy(package, file, 0o644);
        self.machine.run(&["dpkg", "--install", file]).ok()
    }

    /// A configuration, and a key that the laptop has.
    pub fn configure(&self) {
        let init = ["oneknockctl", "init", "--host", "server.lab"];
        let init = [&init[..], &["--name", "home", "--port", "45123"]].concat();
        self.machine.run(&init).ok();
        let add = ["oneknockctl", "key", "add", "laptop"];
        let key = self.machine.run(&add).ok();
        self.lab.laptop.run_with(&["oneknock", "import"], &key).ok();
    }

    pub fn systemctl(&self, args: &[&str]) -> String {
        self.machine.run(&[&["systemctl"], args].concat()).ok()
    }

    /// As a person does it.
    pub fn enable(&self) {
        self.machine.run(&["oneknockctl", "enable"]).ok();
    }

    /// The laptop is in by `oneknock ssh`.
    pub fn gets_in(&self) {
        let ssh = ["oneknock", "ssh", "home", "-F", self.sshd.config()];
        let ssh = [&ssh[..], &["echo in"]].concat();
        assert_eq!(self.lab.laptop.run(&ssh).ok(), "in\n");
    }

    /// A session that answers `got X` to each line X that it is told.
    pub fn session(&self) -> Running {
        let script = "echo in; while read line; do echo got $line; done";
        let ssh = ["oneknock", "ssh", "home", "-F", self.sshd.config(), script];
        let mut session = Running::start("session", self.lab.laptop.command(&ssh));
        session.expect("in");
        session
    }

    /// The port is silent for a stranger.
    pub fn is_shut(&self) {
        for to in self.lab.server.addresses() {
            assert_eq!(wire::probe(&self.lab.stranger, to, 22), Probe::Silent);
        }
    }

    /// Waits until the port is silent for a stranger.
    pub fn until_shut(&self) {
        for to in self.lab.server.addresses() {
            wire::until_silent(&self.lab.stranger, to, 22);
        }
    }

    /// The daemon knows of the laptop's grant.
    pub fn has_the_grant(&self) {
        let grants = self.machine.run(&["oneknockctl", "grants"]).ok();
        assert!(grants.contains("laptop"), "{grants}");
    }

    /// All of the state is the daemon's user's, whoever made it.
    pub fn has_no_state_but_its_own(&self) {
        let find = ["find", "/var/lib/oneknock", "!", "-user", "oneknock"];
        assert_eq!(self.machine.run(&find).ok(), "");
    }

    /// Waits until a daemon is ready that is not the process `pid`.
    pub fn until_another_than(&self, pid: u32) {
        wait::until_true("another daemon", || {
            let another = self.machine.main_pid(DAEMON);
            let state = self.machine.property(DAEMON, "ActiveState");
            another != 0 && another != pid && state == "active"
        });
    }
}
