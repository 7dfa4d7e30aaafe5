//! The laptop's side: to the packet, to the shell, and through the relay.

use crate::site::Measured;
use crate::stats::Samples;
use oneknock_tests::lab::SERVER_NAME;
use oneknock_tests::site::PORT;
use oneknock_tests::{Host, wait};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A command in the host, without a shell or `ip netns exec` around it.
fn command(host: &Host, program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).env_clear();
    command.env("HOME", &host.home).env("PATH", "/usr/bin:/bin");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// A door whose host is an address: what is looked up is another's work.
pub fn door(measured: &Measured) {
    let laptop = &measured.site.lab.laptop;
    measured.site.import(laptop, &measured.key, "home");
    let door = laptop.home.join(".config/oneknock/profiles/home.toml");
    let text = fs::read_to_string(&door).unwrap();
    let address = measured.server().to_string();
    fs::write(&door, text.replace(SERVER_NAME, &address)).unwrap();
}

/// From the start of `oneknock open` until its packet is read at the server, where no daemon
/// runs.
pub fn to_packet(measured: &Measured, oneknock: &str, trials: usize) -> Samples {
    let lab = &measured.site.lab;
    let socket = lab
        .server
        .enter(|| UdpSocket::bind((measured.server(), PORT)).unwrap());
    socket
        .set_read_timeout(Some(crate::probe::PATIENCE))
        .unwrap();
    let mut buffer = [0; 256];
    lab.laptop.enter(|| {
        let trial = |_| {
            let mut open = command(&lab.laptop, oneknock, &["open", "home", "--no-wait"]);
            let start = Instant::now();
            let mut child = open.spawn().unwrap();
            let got = socket.recv(&mut buffer).ok().map(|_| start.elapsed());
            child.wait().unwrap();
            // One for each way that the door may want to be signed.
            socket.set_nonblocking(true).unwrap();
            while socket.recv(&mut buffer).is_ok() {}
            socket.set_nonblocking(false).unwrap();
            got
        };
        (0..trials).map(trial).collect()
    })
}

/// A whole `ssh … true`, by turns with and without oneknock; the port is open for the bare
/// one.
pub fn ssh(measured: &Measured, oneknock: &str, trials: usize) -> (Samples, Samples) {
    let laptop = &measured.site.lab.laptop;
    let config = measured.site.sshd.config();
    let address = measured.server().to_string();
    let run = |program: &str, args: &[&str]| {
        laptop.enter(|| {
            let mut command = command(laptop, program, args);
            let start = Instant::now();
            let status = command.status().unwrap();
            status.success().then(|| start.elapsed())
        })
    };
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..trials {
        ours.push(run(oneknock, &["ssh", "home", "-F", config, "true"]));
        bare.push(run("/usr/bin/ssh", &["-F", config, &address, "true"]));
    }
    (ours.into_iter().collect(), bare.into_iter().collect())
}

/// What it took to bring bytes from the server to the laptop's standard output.
#[derive(Debug)]
pub struct Relay {
    pub took: Duration,
    /// Of the program on the laptop.
    pub used: Duration,
}

/// Fetches so many bytes from a port of the server by a program on the laptop.
pub fn relay(measured: &Measured, program: &str, args: &[&str], port: u16, bytes: usize) -> Relay {
    let lab = &measured.site.lab;
    let listener = lab
        .server
        .enter(|| TcpListener::bind((measured.server(), port)).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let block = vec![0x5a; 256 * 1024];
            let mut left = bytes;
            while left > 0 {
                let next = left.min(block.len());
                stream.write_all(&block[..next]).unwrap();
                left -= next;
            }
        });
        fetch(measured, program, args, bytes)
    })
}

/// Reads so many bytes that a program on the laptop writes to its standard output.
pub fn fetch(measured: &Measured, program: &str, args: &[&str], bytes: usize) -> Relay {
    let laptop = &measured.site.lab.laptop;
    laptop.enter(|| {
        let mut command = command(laptop, program, args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let start = Instant::now();
        let mut child = command.spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        let (mut buffer, mut got) = (vec![0; 256 * 1024], 0);
        while got < bytes {
            let more = out.read(&mut buffer).unwrap();
            assert!(more > 0, "{program} ended after {got} bytes");
            got += more;
        }
        let (took, used) = (start.elapsed(), processor(&child));
        child.kill().unwrap();
        child.wait().unwrap();
        Relay { took, used }
    })
}

/// What of a processor the program has used so far.
fn processor(child: &Child) -> Duration {
    let tasks = Path::new("/proc").join(child.id().to_string()).join("task");
    let one = |task: std::io::Result<fs::DirEntry>| -> Option<u64> {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok()
    };
    let tasks = wait::until("its threads", || fs::read_dir(&tasks).ok());
    Duration::from_nanos(tasks.filter_map(one).sum())
}
