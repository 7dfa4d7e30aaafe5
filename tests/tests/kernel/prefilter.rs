//! The prefilter lets knocks pass and drops junk.

use super::shapes::plain;
use super::{at, in_namespace};
use oneknock_shared::selector::Selector;
use oneknockd::kernel::{Guard, Kernel};
use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

const CURRENT: Selector = Selector([7; 8]);
const HOUR: Duration = Duration::from_secs(3600);

/// A listener at a port of loopback, behind the prefilter, and a kernel with it.
fn guarded() -> (UdpSocket, Kernel) {
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    assert!(up.unwrap().success());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let listen = vec![socket.local_addr().unwrap()];
    let mut kernel = Kernel::open().unwrap();
    let guard = Guard { listen, ..plain() };
    kernel.install(&guard, None, at(0), false).unwrap();
    (socket, kernel)
}

/// Sends a payload of so many bytes; whether the listener gets it. Over loopback it is there
/// when it was sent.
fn passes(listener: &UdpSocket, first: u8, length: usize) -> bool {
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    // What is dropped before it arrives is no error, or one of this socket's.
    let _ = sender.send_to(&vec![first; length], to);
    let mut buffer = [0; 2048];
    listener.recv(&mut buffer).is_ok_and(|got| got == length)
}

/// Uses up the few unknown ones that pass.
fn exhaust(listener: &UdpSocket) {
    while passes(listener, 9, 112) {}
}

#[test]
fn current_selectors_of_every_packets_length_pass() {
    in_namespace(|| {
        let (listener, mut kernel) = guarded();
        kernel.fill_prefilter(&[CURRENT], HOUR).unwrap();
        exhaust(&listener);
        for (length, pass) in [
            (0, false),
            (7, false),
            (8, false),
            (111, false),
            (112, true),
            (113, true),
            (300, true),
            (512, true),
            (513, false),
            (1400, false),
        ] {
            assert_eq!(passes(&listener, 7, length), pass, "{length}");
        }
        assert!(!passes(&listener, 8, 112));
        let dropped = kernel.prefilter_dropped().unwrap();
        assert!(!passes(&listener, 8, 112) && !passes(&listener, 7, 111));
        assert!(kernel.prefilter_dropped().unwrap() >= dropped + 2);
    });
}

#[test]
fn filling_again_renews_and_install_keeps() {
    in_namespace(|| {
        let (listener, mut kernel) = guarded();
        let many: Vec<Selector> = (0..3_000_u64)
            .map(|n| Selector((n << 8).to_be_bytes()))
            .collect();
        kernel.fill_prefilter(&many, HOUR).unwrap();
        kernel
            .fill_prefilter(&[&many[..], &[CURRENT]].concat(), 2 * HOUR)
            .unwrap();
        kernel.fill_prefilter(&[], HOUR).unwrap();
        let set = super::nft(&["list", "set", "inet", "oneknock", "selectors"], "").ok();
        assert_eq!(set.matches("timeout 2h").count(), many.len() + 1);
        let listen = vec![listener.local_addr().unwrap()];
        kernel
            .install(&Guard { listen, ..plain() }, None, at(0), false)
            .unwrap();
        exhaust(&listener);
        assert!(passes(&listener, 7, 112));
    });
}

#[test]
fn open_prefilter_lets_all_of_a_knocks_length_pass() {
    in_namespace(|| {
        let (listener, mut kernel) = guarded();
        exhaust(&listener);
        let guard = Guard {
            listen: vec![listener.local_addr().unwrap()],
            prefilter_open: true,
            ..plain()
        };
        kernel.install(&guard, None, at(0), false).unwrap();
        assert_eq!(kernel.check_tampering().unwrap(), None);
        for _ in 0..100 {
            assert!(passes(&listener, 8, 112));
        }
        assert!(!passes(&listener, 8, 111));
        let guard = Guard {
            prefilter_open: false,
            ..guard
        };
        kernel.install(&guard, None, at(0), false).unwrap();
        exhaust(&listener);
        assert!(!passes(&listener, 8, 112));
    });
}
