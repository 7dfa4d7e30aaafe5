//! The parts of the benchmark, but for the flood.

use crate::peers::{self, Peer};
use crate::report::{Axis, Picture, Report};
use crate::site::{Measured, other, other_ipv6};
use crate::stages::stages_of_a_knock;
use crate::stats::{Samples, ratio, time};
use crate::{client as laptop, latency, load};
use oneknock_tests::binaries;
use std::fs;
use std::path::Path;
use std::time::Duration;

const TIMES: [&str; 7] = [
    "what",
    "median",
    "p95",
    "p99",
    "slowest",
    "never",
    "times ours",
];

pub fn started(keys: usize) -> Measured {
    let mut measured = Measured::new(binaries!(), keys);
    measured.start();
    measured
}

type Start = fn(&Measured) -> Peer;

/// Every peer that is installed, each in a lab of its own.
pub fn each_peer(report: &mut Report, mut what: impl FnMut(&mut Report, &Measured, &Peer)) {
    let all: [(&str, Start); 3] = [
        ("fwknopd", peers::fwknop),
        ("fwknopd", peers::fwknop_by_socket),
        ("knockd", peers::knockd),
    ];
    for (program, start) in all {
        if let Some(why) = peers::missing(program) {
            report.row(&[format!("not measured: {why}")]);
            continue;
        }
        let measured = Measured::new(binaries!(), 1);
        let peer = start(&measured);
        what(report, &measured, &peer);
    }
}

pub fn alone(report: &mut Report, folder: &Path) {
    report.section("A knock alone", &TIMES);
    let measured = started(1);
    let woken = latency::to_wake(&measured, 1_000);
    report.times("a bare recvfrom is woken: the floor", &woken, "");
    let set = latency::to_set(&measured, 2_000, latency::PAUSE, other);
    report.times("packet sent to address in the set", &set, "");
    let ipv6 = latency::to_set(&measured, 1_000, latency::PAUSE, other_ipv6);
    report.times("the same, over IPv6", &ipv6, "");
    let late = |number| other(2_000 + number);
    let late = latency::to_set(&measured, 10, latency::LONG_PAUSE, late);
    report.times("the same, 6 s after the last one", &late, "");
    let answer = latency::to_answer(&measured, 300, latency::PAUSE);
    report.times("packet sent to SYN-ACK", &answer, "1");
    let late = latency::to_answer(&measured, 10, latency::LONG_PAUSE);
    let of_late = ratio(answer.median(), late.median());
    report.times("the same, 6 s after the last one", &late, &of_late);
    let mut curves = vec![curve("in the set", &set), curve("SYN-ACK", &answer)];
    each_peer(report, |report, measured, peer| {
        let samples = peer.to_answer(measured, 20);
        let what = format!("{}: packet arrived to SYN-ACK", peer.name);
        let [of, of_late] = [&answer, &late].map(|ours| ratio(ours.median(), samples.median()));
        report.times(&what, &samples, &format!("{of}; {of_late} after 6 s"));
        curves.push(curve(&format!("{} SYN-ACK", peer.name), &samples));
    });
    stages_of_a_knock(report, &measured);
    let picture = Picture {
        title: "A knock alone: how many are through after which time",
        x: Axis {
            name: "time",
            from: 2e-5,
            to: 1.0,
            is_log: true,
            marks: vec![
                (1e-4, "100 µs"),
                (1e-3, "1 ms"),
                (1e-2, "10 ms"),
                (1e-1, "100 ms"),
                (1.0, "1 s"),
            ],
        },
        y: Axis {
            name: "share",
            from: 0.0,
            to: 1.0,
            is_log: false,
            marks: vec![(0.0, "0 %"), (0.5, "50 %"), (0.95, "95 %")],
        },
        curves,
    };
    picture.write(&folder.join("bench-latency.svg"));
}

fn curve(name: &str, samples: &Samples) -> (String, Vec<(f64, f64)>) {
    let count = samples.len() as f64;
    let points = samples.sorted().iter().enumerate();
    let points = points.map(|(n, time)| (time.as_secs_f64(), (n + 1) as f64 / count));
    (name.to_owned(), points.collect())
}

pub fn whole(report: &mut Report, _: &Path) {
    report.section(
        "The whole: from the command to the end of ssh host true",
        &TIMES,
    );
    let oneknock = binaries!().oneknock;
    let measured = started(1);
    laptop::door(&measured);
    let (ours, bare) = laptop::ssh(&measured, oneknock, 20);
    report.times(
        "ssh host true, the port open",
        &bare,
        &ratio(ours.median(), bare.median()),
    );
    report.times("oneknock ssh home true", &ours, "1");
    each_peer(report, |report, measured, peer| {
        let samples = peer.whole(measured, 10);
        let what = format!("{} && ssh host true", peer.name);
        report.times(&what, &samples, &ratio(ours.median(), samples.median()));
    });
}

pub fn many(report: &mut Report, _: &Path) {
    let head = [
        "knocks a second, each from another address",
        "sent",
        "a second",
        "granted",
        "in the set",
        "in the ledger",
        "processor for each",
    ];
    report.section("Many knocks", &head);
    let measured = started(1);
    let mut first = 0;
    for rate in [1_000, 10_000, 20_000, 30_000, 40_000, 50_000] {
        let done = load::knocks(&measured, first, rate, 3);
        first += done.offered;
        let each = done.used / u32::try_from(done.offered).unwrap();
        let counts = [done.offered, done.granted, done.in_set, done.recorded];
        let mut cells = vec![rate.to_string()];
        cells.extend(counts.map(|count| count.to_string()));
        cells.insert(2, format!("{:.0}", done.rate));
        cells.push(time(Some(each)));
        report.row(&cells);
        if done.granted < done.offered {
            break;
        }
    }
    let head = [
        "knocks a second, each open for 5 s, a minute long",
        "sent",
        "a second",
        "granted",
        "no room in the socket",
        "processor for each",
    ];
    report.section("Many knocks for long", &head);
    let mut measured = Measured::new(binaries!(), 1);
    // As it is without being set: what was accepted is forgotten all the while.
    measured
        .site
        .set(&measured.site.config(), "skew", "\"30s\"");
    measured.start();
    for rate in [10_000, 20_000] {
        let done = load::for_long(&measured, rate, 60);
        let each = time(Some(done.used / u32::try_from(done.sent).unwrap()));
        report.row(&[
            rate.to_string(),
            done.sent.to_string(),
            format!("{:.0}", done.rate),
            done.granted.to_string(),
            done.dropped.to_string(),
            each,
        ]);
    }
    report.section("A knock beside 1,000 others a second", &TIMES);
    let measured = started(1);
    let keys = measured.subkeys();
    let others = (0..60_000).map(|n| measured.knock(&keys, other(5_000_000 + n), 600));
    let others: Vec<_> = others.collect();
    let from = &measured.site.lab.stranger;
    let (_, set) = load::during(&measured, from, &others, 1_000, || {
        latency::to_set(&measured, 1_000, latency::PAUSE, other)
    });
    report.times("packet sent to address in the set", &set, "");
}

/// A server with so many keys, and what its knocks take.
struct Counted {
    count: usize,
    measured: Measured,
    /// The processor's time for a knock, by round.
    used: Samples,
    set: Samples,
}

pub fn keys(report: &mut Report, _: &Path) {
    const KNOCKS: usize = 500;
    let head = [
        "keys",
        "ready after",
        "memory",
        "packet to set, median",
        "p99",
        "processor for each",
        "junk that goes, a second",
    ];
    report.section("Many keys", &head);
    let mut all = [1, 100, 10_000].map(|count| Counted {
        count,
        measured: Measured::new(binaries!(), count),
        used: Samples::default(),
        set: Samples::default(),
    });
    let starts: Vec<Samples> = (all.iter_mut())
        .map(|one| (0..7).map(|_| Some(one.measured.start())).collect())
        .collect();
    // What the start needed once is given back, or not, after a while.
    std::thread::sleep(Duration::from_secs(2));
    let memory = |one: &Counted| one.measured.daemon.as_ref().unwrap().memory();
    let memory: Vec<_> = all.iter().map(memory).collect();
    // In turn, since the machine is not alike from minute to minute.
    for round in 0..5 {
        let who = |number| other(KNOCKS * round + number);
        for one in &mut all {
            let (used, _, set) = (one.measured)
                .processor(|| latency::to_set(&one.measured, KNOCKS, latency::PAUSE, who));
            one.used.extend([Some(used.div_f64(KNOCKS as f64))]);
            one.set.extend(set.all());
        }
    }
    for ((one, starts), memory) in all.iter().zip(starts).zip(memory) {
        let junk = crate::junk::packets(&one.measured, crate::junk::Kind::Junk, 50_000);
        let from = &one.measured.site.lab.stranger;
        let (rate, ()) = load::during(&one.measured, from, &junk, 0, || {
            std::thread::sleep(Duration::from_secs(2));
        });
        report.row(&[
            one.count.to_string(),
            time(starts.median()),
            format!("{:.1} MiB", memory as f64 / 1024.0),
            time(one.set.median()),
            time(one.set.percentile(99)),
            time(one.used.median()),
            format!("{rate:.0}"),
        ]);
    }
    let head = ["program", "size"];
    report.section("Size", &head);
    let all = binaries!();
    for (name, path) in [
        ("oneknockd", all.oneknockd),
        ("oneknockctl", all.oneknockctl),
        ("oneknock", all.oneknock),
    ] {
        let size = fs::metadata(path).unwrap().len() as f64 / f64::from(1 << 20);
        report.row(&[name, &format!("{size:.1} MiB")]);
    }
}

const BYTES: usize = 1 << 30;

pub fn client(report: &mut Report, _: &Path) {
    report.section("The client", &TIMES);
    let oneknock = binaries!().oneknock;
    let mut measured = Measured::new(binaries!(), 1);
    laptop::door(&measured);
    let packet = laptop::to_packet(&measured, oneknock, 200);
    report.times(
        "start of oneknock open to its packet at the server",
        &packet,
        "",
    );
    measured.start();
    report.section(
        "A GiB from the server",
        &["through", "time", "processor on the laptop"],
    );
    let address = measured.server().to_string();
    let config = measured.site.sshd.config();
    for round in 1..=3 {
        let bare = laptop::relay(&measured, "/usr/bin/nc", &[&address, "4445"], 4445, BYTES);
        let args = ["proxy", "home", &address, "4444"];
        let ours = laptop::relay(&measured, oneknock, &args, 4444, BYTES);
        let fetch = format!("head -c {BYTES} /dev/zero");
        let args = ["ssh", "home", "-F", config, &fetch];
        let ssh = laptop::fetch(&measured, oneknock, &args, BYTES);
        for (what, done) in [
            ("nc", bare),
            ("oneknock proxy", ours),
            ("oneknock ssh (ssh's own processor time)", ssh),
        ] {
            let what = format!("{what}, {round}");
            report.row(&[what, time(Some(done.took)), time(Some(done.used))]);
        }
    }
}
