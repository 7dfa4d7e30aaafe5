//! The benchmark: daemon and client as they are built for use, in the lab, beside what
//! others offer. It prints what it measured; the reader judges.
//!
//! `tests/bench` runs it. Words after it choose parts: alone, whole, many, flood, keys,
//! client.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)] // Nothing depends on it.
#![allow(missing_docs)]

mod client;
mod courier;
mod flood;
mod junk;
mod latency;
mod load;
mod parts;
mod peers;
mod probe;
mod report;
mod site;
mod stages;
mod stats;

use report::{Report, said};
use std::path::{Path, PathBuf};

type Part = fn(&mut Report, &Path);

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&String> = wanted.iter().filter(|a| !a.starts_with('-')).collect();
    let folder = std::env::var_os("BENCH_OUT").map_or_else(std::env::temp_dir, PathBuf::from);
    let mut report = Report::default();
    machine(&mut report);
    let parts: [(&str, Part); 6] = [
        ("alone", parts::alone),
        ("whole", parts::whole),
        ("many", parts::many),
        ("flood", flood::flood),
        ("keys", parts::keys),
        ("client", parts::client),
    ];
    for (name, part) in parts {
        if wanted.is_empty() || wanted.iter().any(|w| *w == name) {
            let begun = std::time::Instant::now();
            part(&mut report, &folder);
            eprintln!("{name}: {} s", begun.elapsed().as_secs());
            report.write(&folder);
        }
    }
}

/// Where the lab keeps its files.
fn tmp() -> String {
    std::env::temp_dir().display().to_string()
}

/// On what, and with what, it is measured.
fn machine(report: &mut Report) {
    report.section("Machine", &["what", "which"]);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let cpu = cpu
        .unwrap_or("")
        .trim_start_matches([' ', '\t', ':'])
        .to_owned();
    let cores = std::thread::available_parallelism().unwrap();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    let version = |package| {
        let show = ["-W", "-f", "${Version}", package];
        said("dpkg-query", &show)
    };
    for (what, which) in [
        ("processor", format!("{cpu}, {cores} cores")),
        ("kernel", said("uname", &["-r"])),
        ("load before", load.trim().to_owned()),
        (
            "ledger on",
            said("findmnt", &["-no", "SOURCE,FSTYPE", "-T", &tmp()]),
        ),
        ("nft", said("nft", &["--version"])),
        ("rustc", said("rustc", &["--version"])),
        ("ssh", said("ssh", &["-V"])),
        ("fwknop-server, Debian", version("fwknop-server")),
        ("knockd, Debian", version("knockd")),
    ] {
        report.row(&[what, &which]);
    }
}
