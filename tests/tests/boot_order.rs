//! The order of the boot, without a boot: systemd's own tool looks for ordering cycles among our
//! units and those that order themselves around the network on a Debian machine.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

const GUARD: &str = "oneknock-guard.service";

/// What every machine has, as far as it orders anything.
const BASE: &[(&str, &str)] = &[
    ("local-fs.target", "DefaultDependencies=no"),
    ("shutdown.target", "DefaultDependencies=no"),
    (
        "sysinit.target",
        "Wants=local-fs.target\nAfter=local-fs.target",
    ),
    ("sockets.target", ""),
    (
        "basic.target",
        "Requires=sysinit.target\nWants=sockets.target\nAfter=sysinit.target sockets.target",
    ),
    ("network-pre.target", ""),
    ("network.target", "After=network-pre.target"),
    ("network-online.target", "After=network.target"),
    (
        "systemd-sysusers.service",
        "DefaultDependencies=no\nBefore=sysinit.target",
    ),
    (
        "systemd-modules-load.service",
        "DefaultDependencies=no\nBefore=sysinit.target",
    ),
    ("dbus.service", ""),
];

/// A firewall that is there before the network, by Debian's unit.
const EARLY: &str = "DefaultDependencies=no\nWants=network-pre.target\nBefore=network-pre.target\nAfter=local-fs.target";

const FIREWALLS: &[(&str, &[(&str, &str)])] = &[
    ("none", &[]),
    ("nftables", &[("nftables.service", EARLY)]),
    (
        "netfilter-persistent",
        &[("netfilter-persistent.service", EARLY)],
    ),
    ("ufw", &[("ufw.service", EARLY)]),
    (
        "firewalld of Debian",
        &[(
            "firewalld.service",
            "Wants=network-pre.target\nBefore=network-pre.target\nAfter=dbus.service\nConflicts=nftables.service",
        )],
    ),
    (
        "firewalld of upstream",
        &[(
            "firewalld.service",
            "Before=network.target\nAfter=dbus.service",
        )],
    ),
];

const CLOUDS: &[(&str, &[(&str, &str)])] = &[
    ("none", &[]),
    (
        "cloud-init",
        &[
            (
                "cloud-init-local.service",
                "DefaultDependencies=no\nWants=network-pre.target\nBefore=network-pre.target NetworkManager.service sysinit.target",
            ),
            (
                "cloud-init.service",
                "DefaultDependencies=no\nAfter=cloud-init-local.service systemd-networkd-wait-online.service networking.service\nBefore=network-online.target sysinit.target",
            ),
        ],
    ),
];

/// The first unit is the one that brings the network up.
const NETWORKS: &[(&str, &[(&str, &str)])] = &[
    (
        "networkd",
        &[
            (
                "systemd-networkd.service",
                "DefaultDependencies=no\nWants=network.target\nAfter=network-pre.target systemd-sysusers.service\nBefore=network.target multi-user.target",
            ),
            (
                "systemd-networkd-wait-online.service",
                "DefaultDependencies=no\nAfter=systemd-networkd.service\nBefore=network-online.target",
            ),
        ],
    ),
    (
        "ifupdown",
        &[(
            "networking.service",
            "DefaultDependencies=no\nWants=network.target\nAfter=local-fs.target network-pre.target systemd-modules-load.service\nBefore=network.target network-online.target",
        )],
    ),
    (
        "NetworkManager",
        &[
            (
                "NetworkManager.service",
                "Wants=network.target\nAfter=network-pre.target dbus.service\nBefore=network.target",
            ),
            (
                "NetworkManager-wait-online.service",
                "Requires=NetworkManager.service\nAfter=NetworkManager.service\nBefore=network-online.target",
            ),
        ],
    ),
];

type Units = [(&'static str, &'static str)];

/// The unit files of a machine, in a folder.
struct Machine {
    dir: tempfile::TempDir,
    name: String,
    /// What brings the network up.
    network: &'static str,
}

/// A file of the server's package.
fn dist(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("server/dist").join(name)
}

impl Machine {
    /// One that starts the units of these parts, and none of ours.
    fn new(parts: [(&str, &'static Units); 3]) -> Self {
        let machine = Self {
            dir: tempfile::tempdir().unwrap(),
            name: parts.map(|(name, _)| name).join(", "),
            network: parts[2].1[0].0,
        };
        let of_parts = parts.iter().flat_map(|(_, units)| units.iter());
        let wanted: Vec<&str> = of_parts.clone().map(|(name, _)| *name).collect();
        for (name, lines) in BASE.iter().chain(of_parts) {
            machine.write(name, lines);
        }
        let wants = format!(
            "Requires=basic.target\nAfter=basic.target\nWants=network-online.target {}",
            wanted.join(" ")
        );
        machine.write("multi-user.target", &wants);
        machine
    }

    fn write(&self, name: &str, lines: &str) {
        let does = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n";
        let does = if name.ends_with(".service") { does } else { "" };
        let text = format!("[Unit]\n{lines}\n{does}");
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    /// Installs our units, and enables them as they say.
    fn install(&self) {
        let drop_in = fs::read_to_string(dist("nftables-drop-in.conf")).unwrap();
        self.drop_in("nftables.service", "oneknock", &drop_in);
        for unit in [GUARD, "oneknockd.service"] {
            let text = fs::read_to_string(dist(unit)).unwrap();
            fs::write(self.dir.path().join(unit), &text).unwrap();
            let wanted_by = text.lines().find_map(|line| line.strip_prefix("WantedBy="));
            for by in wanted_by.unwrap().split_whitespace() {
                let wants = self.dir.path().join(format!("{by}.wants"));
                fs::create_dir_all(&wants).unwrap();
                symlink(format!("../{unit}"), wants.join(unit)).unwrap();
            }
        }
    }

    fn drop_in(&self, unit: &str, name: &str, text: &str) {
        let folder = self.dir.path().join(format!("{unit}.d"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{name}.conf")), text).unwrap();
    }

    /// The lines in which systemd tells of ordering cycles.
    fn cycles(&self) -> String {
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no", "multi-user.target"]);
        command.env("SYSTEMD_UNIT_PATH", self.dir.path());
        let done = command.output().unwrap();
        let said = String::from_utf8(done.stderr).unwrap();
        let is_of_cycle = |line: &&str| {
            ["ordering cycle", "Found dependency on"]
                .iter()
                .any(|what| line.contains(what))
        };
        let lines: Vec<&str> = said.lines().filter(is_of_cycle).collect();
        lines.join("\n")
    }

    /// Whether systemd starts the guard before, or after, a unit: told the contrary, it finds a
    /// cycle through the guard.
    fn is_ordered(&self, contrary: &str) -> bool {
        self.drop_in(GUARD, "contrary", &format!("[Unit]\n{contrary}\n"));
        let found = self.cycles();
        self.drop_in(GUARD, "contrary", "");
        found.contains(GUARD)
    }

    fn is_before_network(&self) -> bool {
        self.is_ordered(&format!("After={}", self.network))
    }
}

/// A machine with this network and nothing else.
fn plain(network: &(&str, &'static Units)) -> Machine {
    Machine::new([FIREWALLS[0], CLOUDS[0], *network])
}

/// Every machine, one of each part.
fn machines() -> impl Iterator<Item = Machine> {
    FIREWALLS.iter().flat_map(|firewall| {
        CLOUDS.iter().flat_map(move |cloud| {
            let with = move |network: &(_, _)| Machine::new([*firewall, *cloud, *network]);
            NETWORKS.iter().map(with)
        })
    })
}

#[test]
fn no_machine_has_an_ordering_cycle_because_of_us_and_its_guard_is_before_the_network() {
    let wrong: Vec<String> = machines().filter_map(|machine| wrong(&machine)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What our units do wrong to a machine that has none of them yet.
fn wrong(machine: &Machine) -> Option<String> {
    let name = &machine.name;
    // Debian's own firewalld and cloud-init make a cycle between them.
    let is_own =
        name.starts_with("firewalld of Debian, cloud-init") && !machine.cycles().is_empty();
    machine.install();
    let found = machine.cycles();
    if found.contains("oneknock") || !(is_own || found.is_empty()) {
        return Some(format!("{name}: {found}"));
    }
    // Which jobs systemd drops for it, and with them their order, is chance.
    if is_own {
        return None;
    }
    if !machine.is_before_network() {
        return Some(format!("{name}: the guard is not before the network"));
    }
    let early = |unit: &&&str| machine.dir.path().join(unit).exists();
    let units = [
        "nftables.service",
        "netfilter-persistent.service",
        "ufw.service",
    ];
    let not_after = units.iter().filter(early).find(|unit| {
        let before = format!("Before={unit}");
        !machine.is_ordered(&before)
    });
    not_after.map(|unit| format!("{name}: the guard is not after {unit}"))
}

#[test]
fn the_guard_is_before_the_network_also_when_systemd_drops_the_target_between_them() {
    for machine in NETWORKS.iter().map(plain) {
        machine.install();
        let target = machine.dir.path().join("network-pre.target");
        fs::remove_file(&target).unwrap();
        symlink("/dev/null", &target).unwrap();
        assert_eq!(machine.cycles(), "");
        assert!(machine.is_before_network(), "{}", machine.name);
    }
}

#[test]
fn guard_that_comes_after_firewalld_would_be_found() {
    let is_found = |machine: &Machine| {
        machine.install();
        machine.is_ordered("After=firewalld.service")
    };
    let found: Vec<String> = machines()
        .filter(|machine| {
            machine
                .name
                .starts_with("firewalld of upstream, cloud-init")
        })
        .filter(is_found)
        .map(|machine| machine.name)
        .collect();
    let circle = "firewalld of upstream, cloud-init";
    assert_eq!(
        found,
        [format!("{circle}, networkd"), format!("{circle}, ifupdown")]
    );
}
