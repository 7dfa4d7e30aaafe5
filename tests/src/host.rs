//! One host: a network namespace, a home folder, and the programs that run there.

use crate::wait;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What a program that has ended left behind.
#[must_use = "a program that failed in silence"]
#[derive(Debug)]
pub struct Done {
    /// How it was called, for messages.
    pub called: String,
    /// Its exit status; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Done {
    /// It must have succeeded; gives its standard output.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self}");
        self.out
    }

    /// What it printed, as JSON; it must have ended well.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// It must have failed with this status; gives its standard error.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self}");
        self.err
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { called, code, .. } = self;
        writeln!(f, "{called}: status {code:?}")?;
        write!(f, "--- out\n{}--- err\n{}---", self.out, self.err)
    }
}

/// A host of the lab.
#[derive(Debug)]
pub struct Host {
    namespace: String,
    /// Its home folder, inside the lab's.
    pub home: PathBuf,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    path: String,
}

impl Host {
    /// Makes the namespace, with loopback up and no waiting for duplicate addresses:
    /// every address of a lab is chosen by the lab.
    pub(crate) fn new(namespace: &str, home: &Path, path: &str, v4: &str, v6: &str) -> Self {
        let host = Self {
            namespace: namespace.into(),
            home: home.into(),
            v4: v4.parse().unwrap(),
            v6: v6.parse().unwrap(),
            path: path.into(),
        };
        fs::create_dir_all(home).unwrap();
        ip(&["netns", "add", namespace]);
        host.sysctl("ipv6/conf/default/accept_dad", "0");
        host.sysctl("ipv6/conf/default/accept_ra", "0");
        host.ip_batch("link set lo up\n");
        host
    }

    /// The namespace's name, as `ip netns` lists it.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its address of the family that `other` is of.
    pub fn address_like(&self, other: IpAddr) -> IpAddr {
        if other.is_ipv4() {
            self.v4.into()
        } else {
            self.v6.into()
        }
    }

    /// Its IPv4 and its IPv6 address.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// A command in this host, with the lab's own `PATH` and `HOME` and nothing else of
    /// the person's environment that steers what is tested.
    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new("/usr/bin/env");
        command.args(["ip", "netns", "exec", &self.namespace]);
        command.args(args);
        command.env("PATH", &self.path).env("HOME", &self.home);
        command
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_STATE_HOME");
        command.env("LC_ALL", "C");
        command.current_dir(&self.home);
        command
    }

    /// Runs a program to its end.
    pub fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Done {
        self.run_with(args, "")
    }

    /// Runs a program to its end, with `input` as its standard input.
    pub fn run_with<S: AsRef<OsStr>>(&self, args: &[S], input: &str) -> Done {
        let words = args.iter().map(|a| a.as_ref().to_string_lossy());
        let called = words.collect::<Vec<_>>().join(" ");
        finish(self.command(args), called, input)
    }

    /// Runs a program to its end that may take longer than others.
    pub fn run_within<S: AsRef<OsStr>>(&self, args: &[S], most: Duration) -> Done {
        let words = args.iter().map(|a| a.as_ref().to_string_lossy());
        let called = words.collect::<Vec<_>>().join(" ");
        finish_within(self.command(args), called, "", most)
    }

    /// Runs something of Rust's own inside this host: a thread that steps into the
    /// namespace. Sockets it makes and gives back stay there.
    pub fn enter<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        let namespace = fs::File::open(format!("/run/netns/{}", self.namespace)).unwrap();
        let inside = || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).expect("stepping into the namespace");
            what()
        };
        std::thread::scope(|scope| {
            let thread = scope.spawn(inside);
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Sets `/proc/sys/net/NAME` here.
    pub fn sysctl(&self, name: &str, value: &str) {
        let file = format!("/proc/sys/net/{name}");
        self.enter(|| fs::write(&file, value).unwrap_or_else(|e| panic!("{file}: {e}")));
    }

    /// Lets this host forward between its links.
    pub fn forward(&self) {
        self.sysctl("ipv4/ip_forward", "1");
        self.sysctl("ipv6/conf/all/forwarding", "1");
    }

    /// Runs lines of `ip` here.
    pub fn ip_batch(&self, lines: &str) {
        let mut command = Command::new("ip");
        command.args(["-n", &self.namespace, "-batch", "-"]);
        finish(
            command,
            format!("ip -n {} <<< {lines}", self.namespace),
            lines,
        )
        .ok();
    }

    /// Loads lines of nft's language here, besides what oneknock loads.
    pub fn nft(&self, rules: &str) {
        self.run_with(&["nft", "-f", "-"], rules).ok();
    }

    /// What names mean on this host: its `/etc/hosts`, as `ip netns exec` shows it.
    pub fn set_names(&self, lines: &str) {
        let folder = self.names_folder();
        fs::create_dir_all(&folder).unwrap();
        let loopback = "127.0.0.1 localhost\n::1 localhost\n";
        fs::write(folder.join("hosts"), format!("{loopback}{lines}")).unwrap();
    }

    fn names_folder(&self) -> PathBuf {
        Path::new("/etc/netns").join(&self.namespace)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        remove(&self.namespace);
    }
}

/// Ends what runs in a namespace (by process id), then removes it and its names. Goes
/// on where a part is gone already.
pub(crate) fn remove(namespace: &str) {
    let pids = Command::new("ip")
        .args(["netns", "pids", namespace])
        .output();
    if let Ok(pids) = pids {
        for pid in String::from_utf8_lossy(&pids.stdout).lines() {
            if let Ok(pid) = pid.trim().parse() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
    let _ = Command::new("ip")
        .args(["netns", "delete", namespace])
        .stderr(Stdio::null())
        .status();
    let _ = fs::remove_dir_all(Path::new("/etc/netns").join(namespace));
}

/// Runs `ip` outside of every lab.
fn ip(args: &[&str]) {
    let mut command = Command::new("ip");
    command.args(args);
    finish(command, format!("ip {}", args.join(" ")), "").ok();
}

/// Runs a program to its end, with `input` as its standard input.
pub(crate) fn finish(command: Command, called: String, input: &str) -> Done {
    finish_within(command, called, input, 4 * wait::DEADLINE)
}

fn finish_within(mut command: Command, called: String, input: &str, most: Duration) -> Done {
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{called}: {e}"));
    // A program that does not read its input is no failure.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let out = drain(child.stdout.take().unwrap());
    let err = drain(child.stderr.take().unwrap());
    let code = wait_or_kill(&mut child, &called, most);
    let text = |thread: std::thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&thread.join().unwrap()).into_owned()
    };
    Done {
        called,
        code,
        out: text(out),
        err: text(err),
    }
}

fn wait_or_kill(child: &mut Child, called: &str, most: Duration) -> Option<i32> {
    let start = std::time::Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if start.elapsed() > most {
            child.kill().unwrap();
            panic!("still running: {called}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn drain(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    })
}
