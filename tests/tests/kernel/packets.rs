//! What becomes of packets: the guard that the room installs on the lab's server.

use super::shapes::{fixed, plain, rolling, service};
use super::{at, desired, target};
use oneknock_tests::host::Host;
use oneknock_tests::packets::{self, flags};
use oneknock_tests::sequence::{self, STEPS, somebody};
use oneknock_tests::wire::{Probe, probe};
use oneknock_tests::{Lab, binaries, wait};
use oneknockd::engine::Desired;
use oneknockd::kernel::{Guard, Kernel, RollingStep};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// A kernel with this guard on the lab's server, and a listener behind it.
fn guarded(lab: &Lab, guard: &Guard) -> (Kernel, TcpListener) {
    lab.server.enter(|| {
        let listener = TcpListener::bind("[::]:22").unwrap();
        let mut kernel = Kernel::open().unwrap();
        kernel.install(guard, None, at(0), false).unwrap();
        (kernel, listener)
    })
}

fn ssh(lab: &Lab, from: &Host) -> [Probe; 2] {
    lab.server.addresses().map(|to| probe(from, to, 22))
}

const OPEN: [Probe; 2] = [Probe::Open; 2];
const SILENT: [Probe; 2] = [Probe::Silent; 2];

#[test]
fn allowed_source_connects_and_others_do_not() {
    let lab = Lab::new(binaries!());
    let (mut kernel, listener) = guarded(&lab, &plain());
    assert_eq!(
        [ssh(&lab, &lab.laptop), ssh(&lab, &lab.stranger)],
        [SILENT; 2]
    );
    let [v4, v6] = lab.laptop.addresses().map(|ip| ip.to_string());
    let mut state = desired(&[(&v4, 5), (&v6, 5)]);
    kernel.sync(&mut state, at(0)).unwrap();
    assert_eq!(
        [ssh(&lab, &lab.laptop), ssh(&lab, &lab.stranger)],
        [OPEN, SILENT]
    );
    // A session lives on when its entry has ended; a new one is not made.
    for to in lab.server.addresses() {
        while listener.set_nonblocking(true).is_ok() && listener.accept().is_ok() {}
        listener.set_nonblocking(false).unwrap();
        let mut client = lab
            .laptop
            .enter(|| TcpStream::connect(SocketAddr::new(to, 22)).unwrap());
        let (mut session, _) = listener.accept().unwrap();
        for ip in [&v4, &v6] {
            state.set(target("ssh", ip), None);
        }
        kernel.sync(&mut state, at(0)).unwrap();
        assert_eq!(ssh(&lab, &lab.laptop), SILENT);
        client.write_all(b"still here").unwrap();
        let mut bytes = [0; 10];
        session.set_read_timeout(Some(wait::DEADLINE)).unwrap();
        session.read_exact(&mut bytes).unwrap();
        state = desired(&[(&v4, 5), (&v6, 5)]);
        kernel.sync(&mut state, at(0)).unwrap();
    }
}

#[test]
fn trusted_networks_and_other_ports_are_not_guarded() {
    let lab = Lab::new(binaries!());
    let networks = [("198.51.100.0", 24), ("2001:db8:0:2::", 63)];
    let trusted = networks
        .map(|(ip, bits)| (ip.parse().unwrap(), bits))
        .into();
    let guard = Guard { trusted, ..plain() };
    let (mut kernel, _listener) = guarded(&lab, &guard);
    // 63 bits hold the laptop's network, and the stranger's too.
    assert_eq!(ssh(&lab, &lab.laptop), OPEN);
    assert_eq!(ssh(&lab, &lab.stranger), [Probe::Silent, Probe::Open]);
    let to = lab.server.v4.into();
    assert_eq!(probe(&lab.stranger, to, 23), Probe::Refused);
    let ranges = vec![service("range", &["tcp/20-23"])];
    let guard = Guard {
        services: ranges,
        ..plain()
    };
    kernel
        .install(&guard, Some(&mut Desired::default()), at(0), false)
        .unwrap();
    let ports = [19, 20, 23, 24].map(|port| probe(&lab.stranger, to, port));
    let [open, shut] = [Probe::Refused, Probe::Silent];
    assert_eq!(ports, [open, shut, shut, open]);
}

#[test]
fn guard_in_form_of_trial_guards_while_it_lasts() {
    let lab = Lab::new(binaries!());
    let guard = Guard {
        enforcing: false,
        ..plain()
    };
    let (mut kernel, _listener) = guarded(&lab, &guard);
    assert_eq!(ssh(&lab, &lab.stranger), OPEN);
    kernel.begin_trial(Duration::from_secs(600)).unwrap();
    assert_eq!(ssh(&lab, &lab.stranger), SILENT);
    kernel.end_trial().unwrap();
    assert_eq!(ssh(&lab, &lab.stranger), OPEN);
    kernel.begin_trial(Duration::from_secs(600)).unwrap();
    kernel.install(&plain(), None, at(0), false).unwrap();
    assert_eq!(ssh(&lab, &lab.stranger), SILENT);
}

/// Sends the first packets of connections to these ports.
fn send_steps(lab: &Lab, from: IpAddr, steps: &[String]) {
    let to = lab.server.address_like(from);
    let packets = steps
        .iter()
        .map(|step| sequence::packet(from, to, step, flags::SYN));
    packets::send(&lab.laptop, to, &packets.collect::<Vec<_>>());
}

fn admitted(kernel: &mut Kernel) -> Vec<IpAddr> {
    let grants = kernel.sequence_grants("ssh".parse().unwrap()).unwrap();
    let mut admitted: Vec<IpAddr> = grants.into_iter().map(|(ip, _)| ip).collect();
    admitted.sort();
    admitted
}

/// In order it admits; out of order, with a wrong port before or between, not.
#[test]
fn fixed_sequence_admits_in_order_only() {
    let lab = Lab::new(binaries!());
    let guard = Guard {
        sequence: Some(fixed()),
        ..plain()
    };
    let (mut kernel, _listener) = guarded(&lab, &guard);
    let right = STEPS.map(String::from);
    let mut swapped = right.clone();
    swapped.swap(1, 2);
    let probed = [&right[..2], &["tcp/7001".into()], &right[2..]].concat();
    let ignored = [
        &right[..2],
        &["tcp/80".into(), "tcp/22".into(), "udp/45123".into()],
        &right[2..],
    ]
    .concat();
    let mut number = 0;
    let mut want = Vec::new();
    for (steps, opens) in [
        (&right[..], true),
        (&swapped, false),
        (&probed, false),
        (&ignored, true),
        (&right[1..], false),
    ] {
        for is_ipv6 in [false, true] {
            number += 1;
            let from = somebody(number, is_ipv6);
            send_steps(&lab, from, steps);
            want.extend(opens.then_some(from));
        }
    }
    want.sort();
    wait::until_true("the right ones are admitted", || {
        admitted(&mut kernel) == want
    });
    // With a penalty the right steps do nothing.
    send_steps(&lab, somebody(3, false), &right);
    // A gateway never, whatever it sends.
    let gateway = somebody(100, false);
    kernel.block_gateways(&[gateway]).unwrap();
    send_steps(&lab, gateway, &right);
    let last = somebody(101, false);
    send_steps(&lab, last, &right);
    want.push(last);
    want.sort();
    wait::until_true("the last is admitted", || {
        admitted(&mut kernel).contains(&last)
    });
    assert_eq!(admitted(&mut kernel), want);
}

#[test]
fn rolling_sequence_admits_by_steps_of_one_key() {
    let lab = Lab::new(binaries!());
    let guard = Guard {
        sequence: Some(rolling()),
        ..plain()
    };
    let (mut kernel, _listener) = guarded(&lab, &guard);
    let ports = |first: u16| (0..6).map(move |n| first + 100 * n);
    let steps = |first, id| {
        let steps = ports(first).zip(1..);
        steps.map(move |(port, at)| RollingStep {
            at,
            port,
            id,
            time: Duration::from_secs(600),
        })
    };
    let both: Vec<RollingStep> = steps(10_000, 1).chain(steps(12_000, 2)).collect();
    kernel.roll(&both).unwrap();
    let text =
        |ports: Vec<u16>| -> Vec<String> { ports.iter().map(|p| format!("tcp/{p}")).collect() };
    let [one, two] = [10_000, 12_000].map(|first| text(ports(first).collect()));
    let mixed = [&one[..3], &two[3..]].concat();
    let mut want = Vec::new();
    for (number, steps, opens) in [(1, &one, true), (2, &two, true), (3, &mixed, false)] {
        for is_ipv6 in [false, true] {
            let from = somebody(number, is_ipv6);
            send_steps(&lab, from, steps);
            want.extend(opens.then_some(from));
        }
    }
    want.sort();
    wait::until_true("whole sequences are admitted", || {
        admitted(&mut kernel) == want
    });
    // A key's steps are taken back, and the other's stay.
    kernel.roll(&steps(12_000, 2).collect::<Vec<_>>()).unwrap();
    kernel
        .revoke_sequence_grants("ssh".parse().unwrap(), None)
        .unwrap();
    send_steps(&lab, somebody(4, false), &one);
    send_steps(&lab, somebody(5, false), &two);
    let want = [somebody(5, false)];
    wait::until_true("the other is admitted", || admitted(&mut kernel) == want);
}
