//! The daemon is woken by what other programs do to the guard's table, and by nothing else.

use crate::nft::{self, NftSocket};
use oneknock_tests::host::Host;
use oneknock_tests::{Lab, binaries, figure, wait};
use oneknockd::kernel::{ForeignChange, Monitor, TableChange};
use std::fmt::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// The daemon's socket, the table, and what watches it.
fn watched(host: &Host) -> (NftSocket, Monitor) {
    host.enter(|| {
        let socket = NftSocket::open();
        let monitor = Monitor::start(socket.port).unwrap();
        socket.install();
        (socket, monitor)
    })
}

fn next(monitor: &Monitor) -> ForeignChange {
    wait::until("a change", || monitor.take())
}

/// Many elements in another program's table.
fn storm(count: u32) -> String {
    let mut text = String::from("add table ip other\nadd set ip other s { type ipv4_addr; }\n");
    for part in (0..count).collect::<Vec<_>>().chunks(1000) {
        let elements: Vec<_> = part
            .iter()
            .map(|n| Ipv4Addr::from(*n).to_string())
            .collect();
        writeln!(text, "add element ip other s {{ {} }}", elements.join(", ")).unwrap();
    }
    text
}

#[test]
fn change_of_another_program_is_told_with_its_name() {
    let lab = Lab::new(binaries!());
    let server = &lab.server;
    let (socket, monitor) = watched(server);
    for (line, want) in [
        ("flush ruleset", TableChange::Deleted),
        ("delete table inet oneknock", TableChange::Deleted),
        (
            "flush chain inet oneknock guard; delete chain inet oneknock guard",
            TableChange::Ruleset,
        ),
        ("add rule inet oneknock guard accept", TableChange::Ruleset),
        (
            "add table inet oneknock { flags dormant; }",
            TableChange::Ruleset,
        ),
        ("delete set inet oneknock ssh4", TableChange::Ruleset),
        (
            "add element inet oneknock ssh4 { 192.0.2.9 timeout 1m }",
            TableChange::Elements,
        ),
        ("flush set inet oneknock ssh4", TableChange::Elements),
    ] {
        socket.install();
        socket.add_element(Ipv4Addr::new(192, 0, 2, 7));
        server.run(&["nft", line]).ok();
        let told = next(&monitor);
        assert_eq!(told.change, want, "{line}");
        assert_eq!(told.failure, None);
        let (name, pid) = told.program.unwrap();
        assert_eq!(name, "nft");
        assert!(pid > 0);
    }
}

#[test]
fn own_changes_and_other_tables_do_not_wake_the_daemon() {
    let lab = Lab::new(binaries!());
    let server = &lab.server;
    let (socket, monitor) = watched(server);
    server.nft("add table ip oneknock; add set ip oneknock ssh4 { type ipv4_addr; }\n");
    server.nft("delete table ip oneknock; add table inet other; delete table inet other\n");
    for n in 0..100 {
        socket.install();
        socket.add_element(Ipv4Addr::from(n));
    }
    // Everything before would be worse, and come first.
    server.nft("add element inet oneknock ssh4 { 192.0.2.9 timeout 1m }\n");
    assert_eq!(next(&monitor).change, TableChange::Elements);
    assert_eq!(monitor.take(), None);
}

#[test]
fn storm_in_another_table_neither_stalls_nor_hides_a_change() {
    let lab = Lab::new(binaries!());
    let server = &lab.server;
    let (socket, monitor) = watched(server);
    let storm = storm(30_000);
    for rules in [
        format!("{storm}delete table inet oneknock\n"),
        format!("delete table inet oneknock\n{storm}"),
    ] {
        server.nft(&rules);
        assert!(next(&monitor).change >= TableChange::Deleted);
        // What is told twice is told for good.
        while monitor.take().is_some() {}
        server.nft("delete table ip other\n");
        socket.install();
        server.nft("delete table inet oneknock\n");
        assert!(next(&monitor).change >= TableChange::Deleted);
        socket.install();
    }
    // In a transaction of its own, right behind.
    server.nft(&storm);
    server.nft("delete table inet oneknock\n");
    wait::until_true("the deletion is seen", || {
        let table = ["nft", "list", "table", "inet", "oneknock"];
        monitor.take().is_some() && server.run(&table).code != Some(0)
    });
}

#[test]
fn monitor_ends_when_it_is_dropped() {
    let lab = Lab::new(binaries!());
    let (_socket, monitor) = watched(&lab.server);
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.flat_map(|task| std::fs::read_to_string(task.path().join("comm")));
        names.filter(|name| name == "nftables\n").count()
    };
    let before = threads();
    drop(monitor);
    wait::until_true("its thread is gone", || threads() < before);
}

/// Runs a future on this thread, which sleeps meanwhile.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn distribution(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    figure(format_args!(
        "{what}: min {:?} median {:?} p90 {:?} p99 {:?} max {:?} of {}",
        at(0),
        at(50),
        at(90),
        at(99),
        at(100),
        times.len()
    ));
}

/// From another program's flush to the table that is there again: by datagrams that say
/// when they were sent, ten in a millisecond, and pass while it is not there.
#[test]
fn gap_after_a_flush_is_measured() {
    let lab = Lab::new(binaries!());
    let (server, stranger) = (&lab.server, &lab.stranger);
    let (socket, monitor) = watched(server);
    let port = 4000;
    let receiver = server.enter(|| UdpSocket::bind((server.v4, port)).unwrap());
    receiver.set_nonblocking(true).unwrap();
    let sender = stranger.enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let start = Instant::now();
    let sending = |stop: &AtomicBool| {
        while !stop.load(Ordering::Relaxed) {
            let now = u64::try_from(start.elapsed().as_nanos()).unwrap();
            let _ = sender.send_to(&now.to_ne_bytes(), (server.v4, port));
            std::thread::sleep(Duration::from_micros(100));
        }
    };
    let passed = || {
        let one = || {
            let mut bytes = [0; 8];
            receiver.recv(&mut bytes).ok()?;
            Some(Duration::from_nanos(u64::from_ne_bytes(bytes)))
        };
        std::iter::from_fn(one).collect::<Vec<_>>()
    };
    let (mut woken, mut repaired, mut gaps) = (Vec::new(), Vec::new(), Vec::new());
    let runs = || {
        for _ in 0..100 {
            std::thread::scope(|scope| {
                let flush = scope.spawn(|| server.run(&["nft", "flush", "ruleset"]).ok());
                assert_eq!(block_on(monitor.wait()).change, TableChange::Deleted);
                let at = start.elapsed();
                socket.install();
                let done = start.elapsed();
                flush.join().unwrap();
                // What has passed is delivered by now.
                std::thread::sleep(Duration::from_millis(5));
                let passed = passed();
                let first = passed.first().copied().unwrap_or(at);
                woken.push(at.saturating_sub(first));
                repaired.push(done.saturating_sub(at));
                gaps.push(
                    passed
                        .last()
                        .map_or(Duration::ZERO, |last| last.saturating_sub(first)),
                );
            });
        }
    };
    wait::meanwhile(sending, runs);
    distribution(
        "from the first datagram that passes, the daemon is woken",
        woken,
    );
    distribution("the table is written again", repaired);
    distribution("from the first datagram that passes to the last", gaps);
}

/// What one change of the daemon's own costs more where the monitor listens: the three in
/// turn, since a machine is not always as fast.
#[test]
fn price_of_listening_is_measured() {
    let lab = Lab::new(binaries!());
    let server = &lab.server;
    let socket = server.enter(NftSocket::open);
    let add = |listener: Option<u32>| {
        let monitor = listener.map(|port| server.enter(|| Monitor::start(port).unwrap()));
        socket.install();
        let count = 2_000;
        let batches: Vec<_> = (0..count).map(|n| nft::addition(n.into())).collect();
        let start = Instant::now();
        for batch in &batches {
            socket.commit(batch);
        }
        let each = start.elapsed() / count;
        drop(monitor);
        each
    };
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..15 {
        // The second: as if the kernel could not keep our own from the thread.
        for (at, listener) in [None, Some(0), Some(socket.port)].into_iter().enumerate() {
            times[at].push(add(listener));
        }
    }
    let [quiet, woken, kept] = times;
    distribution("one element, no monitor", quiet);
    distribution("one element, a monitor that is woken each time", woken);
    distribution("one element, the monitor listens", kept);
}
