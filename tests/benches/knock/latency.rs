//! How long a single knock takes.

use crate::courier::with_courier;
use crate::probe::{self, PATIENCE, Set};
use crate::site::{BULK, Measured, own};
use crate::stats::Samples;
use std::net::{IpAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::Mutex;
use std::sync::mpsc::sync_channel;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Between two trials: the daemon sleeps again, as it does at home.
pub const PAUSE: Duration = Duration::from_millis(3);
/// Longer than the lease of the ledger lasts: the next knock waits until one is on disk.
pub const LONG_PAUSE: Duration = Duration::from_secs(6);

/// From the moment before a packet is sent until a thread at the server that waits for it
/// has it: what any daemon must wait.
pub fn to_wake(measured: &Measured, trials: usize) -> Samples {
    const ELSEWHERE: u16 = 45_124;
    let server = measured.server();
    let socket = measured
        .site
        .lab
        .server
        .enter(|| UdpSocket::bind((server, ELSEWHERE)).unwrap());
    let (tell, came) = sync_channel::<Instant>(1);
    let came = Mutex::new(came);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut buffer = [0; 256];
            for _ in 0..trials {
                socket.recv(&mut buffer).unwrap();
                tell.send(Instant::now()).unwrap();
            }
        });
        measured.near.enter(|| {
            let from = UdpSocket::bind((measured.near.v4, 0)).unwrap();
            let trial = |_| {
                sleep(PAUSE);
                let start = Instant::now();
                from.send_to(&[0; 112], (server, ELSEWHERE)).unwrap();
                Some(came.lock().unwrap().recv().unwrap().duration_since(start))
            };
            (0..trials).map(trial).collect()
        })
    })
}

/// From the moment before the packet is sent, beside the server, until the address is in
/// the kernel's set; before it the daemon has slept for `pause`. `who` is another address
/// for each trial.
pub fn to_set(
    measured: &Measured,
    trials: usize,
    pause: Duration,
    who: impl Fn(usize) -> IpAddr + Sync,
) -> Samples {
    let keys = measured.subkeys();
    let mut set = Set::of(&measured.site.lab.server, "ssh", who(0));
    with_courier(measured, who(0), |courier| {
        let trial = |number: usize| {
            let from = who(number);
            sleep(pause);
            let packet = measured.knock(&keys, from, 600);
            courier.time(packet, || probe::until_in_set(&mut set, from))
        };
        (0..trials).map(trial).collect()
    })
}

/// From the same moment until a SYN is answered, with a new SYN every 20 µs; before it the
/// daemon has slept for `pause`. The kernel
/// answers it for a port that is listened on; sshd would be busy with the last trial yet.
pub fn to_answer(measured: &Measured, trials: usize, pause: Duration) -> Samples {
    let keys = measured.subkeys();
    let server = &measured.site.lab.server;
    let mut set = Set::of(server, "bulk", server.v4.into());
    let to = SocketAddrV4::new(measured.server(), BULK);
    let listener = server.enter(|| TcpListener::bind(to).unwrap());
    listener.set_nonblocking(true).unwrap();
    with_courier(measured, measured.server().into(), |courier| {
        let trial = |number: usize| {
            let from = own(number);
            while set.has(from.into()) {
                sleep(PAUSE);
            }
            // What nobody takes fills the queue.
            while listener.accept().is_ok() {}
            let packet = measured.knock_for("bulk", &keys, from.into(), 1);
            sleep(pause);
            courier.time(packet, || {
                probe::until_answered(from, to, Duration::from_micros(20), PATIENCE)
            })
        };
        (0..trials).map(trial).collect()
    })
}
