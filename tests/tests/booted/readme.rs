//! The README's five minutes, as it has them, on two machines as Debian left them.

use crate::packages;
use oneknock_tests::boot::Machine;
use oneknock_tests::wire::{self, Probe};
use oneknock_tests::{Lab, binaries, wait};
use std::fs;
use std::path::Path;

/// On which machine a command is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    Build,
    Server,
    Laptop,
}

/// The commands of the section, in their order.
fn commands() -> Vec<(On, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("README.md")).unwrap();
    let (_, text) = text.split_once("## Five minutes").unwrap();
    let (text, _) = text.split_once("\n## ").unwrap();
    let mut on = On::Build;
    let mut commands = Vec::new();
    for line in text.lines() {
        on = match line.split_once("**").map(|(_, rest)| rest) {
            Some(rest) if rest.starts_with("Build") => On::Build,
            Some(rest) if rest.starts_with("Server") => On::Server,
            Some(rest) if rest.starts_with("Laptop") => On::Laptop,
            Some(rest) if rest.starts_with("See it") => On::Laptop,
            _ => on,
        };
        let Some(line) = line.strip_prefix("    ") else {
            continue;
        };
        let (command, comment) = line.split_once(" # ").unwrap_or((line, ""));
        let on = match comment.trim() {
            "on the server" => On::Server,
            c if c.starts_with("on the laptop") => On::Laptop,
            _ => on,
        };
        commands.push((on, command.trim().to_owned()));
    }
    commands
}

/// As a person's shell does it; a program that asks something gets `answers`.
fn typed(machine: &Machine, command: &str, answers: &str) -> oneknock_tests::Done {
    let script = format!("cd ~ && {command}");
    machine.run_with(&["bash", "-c", &script], answers)
}

/// What a person has before: a login at the server with a key, a name for it, sudo, and a
/// clock that is right.
fn prepare(server: &Machine, laptop: &Machine) {
    for machine in [server, laptop] {
        machine.run(&["rm", "-rf", "/root/.ssh"]).ok();
    }
    for (machine, name) in [(server, "oneknockd"), (laptop, "oneknock")] {
        let file = packages::package(name, "1.0-1");
        let to = format!("/root/{}", file.file_name().unwrap().to_string_lossy());
        machine.copy(&file, &to, 0o644);
    }
    server.run(&["ssh-keygen", "-A"]).ok();
    let timedatectl = "/usr/local/sbin/timedatectl";
    server.write(timedatectl, "#!/bin/sh\necho yes\n", 0o755);
    let key = "mkdir -m 700 .ssh && ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519";
    typed(laptop, key, "").ok();
    let read = |machine: &Machine, path| fs::read_to_string(machine.file(path)).unwrap();
    let public = read(laptop, "/root/.ssh/id_ed25519.pub");
    server.write("/root/.ssh/authorized_keys", public, 0o600);
    server.run(&["chmod", "700", "/root/.ssh"]).ok();
    let known = read(server, "/etc/ssh/ssh_host_ed25519_key.pub");
    let known = format!("home.example.org {known}");
    laptop.write("/root/.ssh/known_hosts", known, 0o600);
    let hosts = "127.0.0.1 localhost\n192.0.2.10 home.example.org\n";
    laptop.write("/etc/hosts", hosts, 0o644);
    server.run(&["systemctl", "enable", "--now", "ssh"]).ok();
}

#[test]
fn the_readmes_five_minutes_lead_from_nothing_to_ssh_home() {
    let lab = Lab::new(binaries!());
    let mut server = Machine::new(&lab, &lab.server);
    let mut laptop = Machine::new(&lab, &lab.laptop);
    for machine in [&mut server, &mut laptop] {
        // The real one, which takes from a session what says that it is one.
        machine.install(&["sudo"]);
        machine.boot();
    }
    prepare(&server, &laptop);
    let commands = commands();
    assert!(commands.len() >= 10, "{commands:?}");
    let mut commands = commands.into_iter();
    while let Some((on, command)) = commands.next() {
        let machine = match on {
            // What it makes is there: the programs that are tested, packaged by it.
            On::Build => {
                assert_eq!(command, "server/dist/build-debs");
                continue;
            }
            On::Server => &server,
            On::Laptop => &laptop,
        };
        if command.starts_with("ssh -o ProxyCommand=none") {
            let said = typed(machine, &command, "echo in\n").fails(255);
            assert!(said.contains("timed out"), "{said}");
        } else if command == "ssh home" {
            // What follows is typed in the session.
            let (_, within) = commands.next().unwrap();
            let done = typed(machine, &command, &format!("{within} && echo in\n"));
            assert!(done.out.ends_with("in\n"), "{done}");
        } else {
            typed(machine, &command, "").ok();
        }
        if command.contains("> invitation") {
            // By a way that nobody reads.
            let line = fs::read(server.file("/root/invitation")).unwrap();
            laptop.write("/root/invitation", line, 0o600);
        }
    }
    let v4 = lab.server.v4.into();
    assert_eq!(wire::probe(&lab.stranger, v4, 22), Probe::Silent);

    // And from the next start on, without another word.
    server.switch_off();
    server.boot();
    assert_eq!(wire::probe(&lab.stranger, v4, 22), Probe::Silent);
    wait::until_true("ssh home after a reboot", || {
        typed(&laptop, "ssh home", "echo in\n")
            .out
            .ends_with("in\n")
    });
}
