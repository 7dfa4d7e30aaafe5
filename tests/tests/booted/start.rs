//! The machine's start, cold: what comes first, the guard or the network.

use crate::home::{CONFIG, DAEMON, GUARD, Home};
use oneknock_tests::ssh::UNGUARDED;
use oneknock_tests::wire::{self, Probe};
use oneknock_tests::{Lab, binaries, wait};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Brings up the network as such services do, and no earlier than they.
const NETWORK: &str = "[Unit]
DefaultDependencies=no
Wants=network-pre.target network.target
After=network-pre.target local-fs.target
Before=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=ip link set eth0 up
ExecStart=ip route replace default via 192.0.2.1
ExecStart=ip -6 route replace default via 2001:db8:0:1::1
[Install]
WantedBy=sysinit.target
";

/// Knocks at the port like a stranger, over both families, without a pause. Returns how
/// often he got in.
fn rattle(lab: &Lab, end: &AtomicBool) -> usize {
    let to = lab.server.addresses().map(|to| SocketAddr::new(to, 22));
    lab.stranger.enter(|| {
        let mut in_by = 0;
        while !end.load(Ordering::Relaxed) {
            for to in &to {
                let tried = TcpStream::connect_timeout(to, Duration::from_millis(5));
                in_by += usize::from(tried.is_ok());
            }
        }
        in_by
    })
}

/// Switches the machine off, and on again with its network down until it brings it up.
/// Returns how often a stranger got in meanwhile.
fn start_anew(home: &mut Home) -> usize {
    let lab = home.lab;
    home.machine.switch_off();
    lab.server.sysctl("ipv6/conf/eth0/keep_addr_on_down", "1");
    lab.server.ip_batch("link set eth0 down\n");
    let stranger = |end: &AtomicBool| rattle(lab, end);
    let (in_by, then_in_by) = wait::meanwhile(stranger, || {
        home.machine.boot();
        assert_eq!(home.machine.property("lab-network", "Result"), "success");
        let mut in_by = 0;
        for to in lab.server.addresses() {
            wire::until_open(&lab.stranger, to, UNGUARDED);
            in_by += usize::from(wire::probe(&lab.stranger, to, 22) == Probe::Open);
        }
        in_by
    });
    in_by + then_in_by
}

#[test]
fn the_guard_is_up_before_the_network_without_the_daemon() {
    let lab = Lab::new(binaries!());
    let mut home = Home::new(&lab);
    let network = "/etc/systemd/system/lab-network.service";
    home.machine.write(network, NETWORK, 0o644);
    home.systemctl(&["enable", "--now", "lab-network", "nftables"]);
    home.enable();
    home.gets_in();
    home.systemctl(&["disable", "oneknockd"]);
    home.systemctl(&["enable", "oneknock-guard"]);
    home.systemctl(&["mask", DAEMON]);

    assert_eq!(start_anew(&mut home), 0);
    assert_eq!(home.machine.property(DAEMON, "ActiveState"), "inactive");
    let at = |unit: &str, what: &str| -> u64 {
        let at = home.machine.property(unit, &format!("{what}Monotonic"));
        at.parse().unwrap()
    };
    let is_up = at(GUARD, "ActiveEnterTimestamp");
    assert!(at("nftables", "ActiveEnterTimestamp") <= at(GUARD, "InactiveExitTimestamp"));
    assert!(is_up > 0 && is_up <= at("network-pre.target", "ActiveEnterTimestamp"));
    home.is_shut();

    // With the daemon the way in is back.
    home.systemctl(&["unmask", DAEMON]);
    home.enable();
    assert_eq!(start_anew(&mut home), 0);
    home.gets_in();

    // Not by chance: without the unit a stranger would have got in.
    home.systemctl(&["mask", DAEMON, GUARD]);
    assert_ne!(start_anew(&mut home), 0);
}

#[test]
fn what_the_daemons_user_cannot_read_is_found_and_the_guard_is_up_without_it() {
    let lab = Lab::new(binaries!());
    let mut home = Home::new(&lab);
    home.machine.run(&["oneknockctl", "enable"]).ok();
    let check = || home.machine.run(&["oneknockctl", "check"]);
    check().ok();
    home.machine.run(&["chmod", "0600", CONFIG]).ok();
    let said = check();
    assert_eq!(said.code, Some(1), "{said}");
    let said = said.out;
    assert!(said.contains("the daemon's user cannot read it"), "{said}");
    let doctor = home.machine.run(&["oneknockctl", "doctor"]);
    assert!(doctor.out.contains("cannot read it"), "{doctor}");
    home.machine.switch_off();
    home.machine.boot();
    home.is_shut();
    home.machine
        .until_logged(GUARD, "that of the last good configuration", 1);
    home.gets_in();
    // As it is said.
    let (_, mend) = said.split_once("mend it with: ").unwrap();
    let mend = mend.lines().next().unwrap();
    home.machine.run(&["sh", "-c", mend]).ok();
    home.machine.run(&["oneknockctl", "check"]).ok();
    // The keys alone are nothing to the guard.
    let keys = "/etc/oneknock/keys";
    home.machine.run(&["chmod", "0700", keys]).ok();
    home.machine
        .run(&["oneknockctl", "disable", "--until-reboot"])
        .ok();
    home.systemctl(&["restart", GUARD]);
    home.is_shut();
}

#[test]
fn a_start_with_a_mistake_in_the_configuration_has_the_guard_and_the_way_in_as_before() {
    let lab = Lab::new(binaries!());
    let mut home = Home::new(&lab);
    home.machine.run(&["oneknockctl", "enable"]).ok();
    home.gets_in();
    let text = fs::read_to_string(home.machine.file(CONFIG)).unwrap();
    let typo = text.replacen("listen = [", "listen = ", 1);
    assert_ne!(text, typo);
    home.machine.write(CONFIG, typo, 0o640);
    home.machine.switch_off();
    home.machine.boot();
    home.is_shut();
    home.machine
        .until_logged(GUARD, "that of the last good configuration", 1);
    home.machine.until_logged(DAEMON, "oneknockd.toml:", 1);
    home.gets_in();
    // The guard alone is there too.
    home.systemctl(&["mask", DAEMON]);
    home.machine.switch_off();
    home.machine.boot();
    home.is_shut();
}
