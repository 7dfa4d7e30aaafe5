//! A host as a whole machine: systemd is its first process, Debian's own files lie below
//! what it writes, its network is the lab's. It can be switched off and on again.

use crate::host::{self, Done, Host};
use crate::lab::Lab;
use crate::process::Running;
use crate::wait;
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SCRIPT: &str = include_str!("boot.sh");
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A machine with a disk. What holds the disk is a program in a mount namespace of its own,
/// so that nothing is left of it whatever ends the test.
#[derive(Debug)]
pub struct Machine<'l> {
    host: &'l Host,
    dir: PathBuf,
    on: Option<On>,
    disk: Running,
}

#[derive(Debug)]
struct On {
    init: Pid,
    // Ends the machine when it is dropped.
    _running: Running,
}

impl<'l> Machine<'l> {
    /// A machine that is off, in the place of one of the lab's hosts.
    pub fn new(lab: &Lab, host: &'l Host) -> Self {
        let dir = lab.dir().join(format!("machine-{}", host.namespace()));
        fs::create_dir_all(dir.join("disk")).unwrap();
        fs::write(dir.join("boot.sh"), SCRIPT).unwrap();
        let script = r#"
            mount -t tmpfs -o mode=755 tmpfs "$1" && mkdir "$1/upper" "$1/work" &&
            echo on && read line"#;
        let disk = dir.join("disk");
        let words = ["unshare", "--mount", "--propagation", "private"];
        let script = ["sh", "-c", script, "sh", disk.to_str().unwrap()];
        let command = host.command(&[&words[..], &script].concat());
        let mut disk = Running::start("disk", command);
        disk.expect("on");
        Self {
            host,
            dir,
            on: None,
            disk,
        }
    }

    /// Installs Debian's packages on it, while it is off: over the network of the machine
    /// that the tests run on, which keeps nothing of it.
    pub fn install(&self, packages: &[&str]) {
        assert!(self.on.is_none(), "it is on");
        let holder = self.disk.pid().to_string();
        let script = self.dir.join("boot.sh");
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &holder]);
        command.args(["unshare", "--mount", "sh"]).arg(script);
        command.arg(&self.dir).args(["-", "install"]).args(packages);
        let done = command.output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{packages:?}: {said}");
    }

    /// Switches it on, and waits for nothing but its first process.
    pub fn switch_on(&mut self) {
        assert!(self.on.is_none(), "it is on");
        let holder = self.disk.pid().to_string();
        let script = self.dir.join("boot.sh");
        let command = self.host.command(&[
            "nsenter",
            "--mount",
            "--target",
            &holder,
            "sh",
            script.to_str().unwrap(),
            self.dir.to_str().unwrap(),
            self.host.namespace(),
        ]);
        let running = Running::start("boot", command);
        let children = format!("/proc/{0}/task/{0}/children", running.pid());
        let init = wait::until("systemd", || {
            let child = fs::read_to_string(&children).ok()?;
            let child = child.split_whitespace().next()?.to_owned();
            let is = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
            (is == "systemd\n").then(|| Pid::from_raw(child.parse().unwrap()))
        });
        self.on = Some(On {
            init,
            _running: running,
        });
    }

    /// Switches it on, and waits until it has started whatever it starts.
    pub fn boot(&mut self) {
        self.switch_on();
        self.until_started();
    }

    /// Waits until it has started whatever it starts, without a failure.
    pub fn until_started(&self) {
        let state = wait::until("the machine has started", || {
            let state = self.run(&["systemctl", "is-system-running"]).out;
            let known = ["running\n", "degraded\n"].contains(&state.as_str());
            known.then_some(state)
        });
        let failed = self.run(&["systemctl", "--failed", "--no-pager", "--plain"]);
        assert_eq!(state, "running\n", "{failed}");
    }

    /// The power fails; with it goes what the kernel knew of the firewall. The disk is as it
    /// was, to the last byte written.
    pub fn switch_off(&mut self) {
        assert!(self.on.take().is_some(), "it is off");
        self.remove_group();
        self.host.nft("flush ruleset");
    }

    /// Runs a program on it to its end, as root, with nothing of this process's environment.
    pub fn run(&self, args: &[&str]) -> Done {
        self.run_with(args, "")
    }

    /// As [`Machine::run`], with `input` as its standard input.
    pub fn run_with(&self, args: &[&str], input: &str) -> Done {
        host::finish(self.command(args), args.join(" "), input)
    }

    /// Starts a program on it that goes on.
    pub fn start(&self, args: &[&str]) -> Running {
        Running::start(args[0], self.command(args))
    }

    fn command(&self, args: &[&str]) -> Command {
        let on = self.on.as_ref().expect("it is on");
        let mut command = Command::new("nsenter");
        command.args(["--all", "--wd=/", "--target", &on.init.to_string()]);
        command.args(["env", "-i", PATH, "LC_ALL=C.UTF-8", "HOME=/root"]);
        command.args(args);
        command
    }

    /// Where one of its files is, for a test to look at while it is on.
    pub fn file(&self, path: &str) -> PathBuf {
        let on = self.on.as_ref().expect("it is on");
        let root = PathBuf::from(format!("/proc/{}/root", on.init));
        root.join(path.trim_start_matches('/'))
    }

    /// Writes a file, and the folders that it needs.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>, mode: u32) {
        let file = self.file(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Copies a file from this machine.
    pub fn copy(&self, from: &Path, to: &str, mode: u32) {
        self.write(to, fs::read(from).unwrap(), mode);
    }

    /// A property of a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        let show = ["systemctl", "show", "--value", "--property", name, unit];
        self.run(&show).ok().trim().to_owned()
    }

    /// Waits until a unit's property has this value.
    pub fn until(&self, unit: &str, name: &str, value: &str) {
        let what = format!("{name}={value} of {unit}");
        wait::until_true(&what, || self.property(unit, name) == value);
    }

    /// The process of a service that runs, as the machine itself numbers it.
    pub fn main_pid(&self, unit: &str) -> u32 {
        self.property(unit, "MainPID").parse().unwrap()
    }

    /// What a unit has logged since the machine was switched on.
    pub fn log(&self, unit: &str) -> String {
        let read = ["journalctl", "--no-pager", "--output=cat", "--boot"];
        self.run(&[&read[..], &["--unit", unit]].concat()).ok()
    }

    /// Waits until a unit has logged so many lines that hold `text`.
    pub fn until_logged(&self, unit: &str, text: &str, times: usize) {
        wait::until_true(&format!("{text:?} in the log of {unit}"), || {
            self.log(unit).matches(text).count() >= times
        });
    }

    /// The group outlives its processes.
    fn remove_group(&self) {
        let script = r#"
            mount -t cgroup2 cgroup2 "$1" || exit 1
            for try in 1 2 3 4 5 6 7 8 9 10; do
                find "$1/$2" -depth -type d -exec rmdir {} + 2>/dev/null
                [ -e "$1/$2" ] || exit 0
                sleep 0.1
            done"#;
        let (folder, name) = (self.dir.join("cgroup"), self.host.namespace());
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script]);
        command.args(["sh", folder.to_str().unwrap(), name]);
        // One that is left is empty, and in nobody's way.
        let _ = command.stderr(Stdio::null()).status();
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        if self.on.is_none() {
            return;
        }
        if std::thread::panicking() {
            let read = ["journalctl", "--no-pager", "--boot", "--lines=300"];
            let journal = self.run(&read);
            eprintln!("{journal}");
        }
        drop(self.on.take());
        self.remove_group();
    }
}
