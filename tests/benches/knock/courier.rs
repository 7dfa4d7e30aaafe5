//! Who sends, where: the network's share of the machine, and the stopwatch's.

use crate::site::Measured;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Keeps this thread on one core.
fn stay_on(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core).unwrap();
    sched_setaffinity(Pid::from_raw(0), &cores).unwrap();
}

/// Keeps this thread on the last core, which has all that the network does to the server.
pub fn on_network_core() {
    stay_on(std::thread::available_parallelism().unwrap().get() - 1);
}

/// Sends packets beside the server from a thread of its own, and sleeps otherwise, as the
/// network does: the kernel can let the daemon run where the packet came. Whoever asks what
/// has become of it has another core, and takes nothing from either.
pub struct Courier {
    packets: SyncSender<Vec<u8>>,
    sent: Receiver<Instant>,
}

impl Courier {
    /// The time from the moment before the packet is sent until that which `seen` gives.
    pub fn time(
        &self,
        packet: Vec<u8>,
        seen: impl FnOnce() -> Option<Instant>,
    ) -> Option<Duration> {
        self.packets.send(packet).unwrap();
        let seen = seen();
        let sent = self.sent.recv().unwrap();
        // What was seen before it was sent was not its work.
        seen?.checked_duration_since(sent)
    }
}

/// Runs `what` in the host beside the server, with a courier of packets of that one's family.
pub fn with_courier<T: Send>(
    measured: &Measured,
    like: IpAddr,
    what: impl FnOnce(&Courier) -> T + Send,
) -> T {
    let (packets, wanted) = sync_channel::<Vec<u8>>(1);
    let (tell, sent) = sync_channel(1);
    measured.near.enter(|| {
        std::thread::scope(|scope| {
            // It is in the same host: a thread begins where its maker is.
            scope.spawn(move || {
                on_network_core();
                let sender = measured.sender_for(like);
                for packet in wanted {
                    let start = Instant::now();
                    sender.send(&packet).unwrap();
                    tell.send(start).unwrap();
                }
            });
            stay_on(0);
            let courier = Courier { packets, sent };
            what(&courier)
        })
    })
}
