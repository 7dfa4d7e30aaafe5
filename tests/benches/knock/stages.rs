//! Where the time of a lone knock goes: the kernel's own trace of what the daemon and the
//! sender ask of it, and of when the daemon is woken.

use crate::latency;
use crate::report::Report;
use crate::site::{Measured, other};
use crate::stats::{Samples, time};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The numbers that Linux gives to calls on this machine's architecture.
const SENDTO: &str = "NR 44 ";
const RECVMMSG: &str = "NR 299 ";
const FCNTL: &str = "NR 72 ";

const STAGES: [&str; 6] = [
    "the kernel carries the packet and wakes the daemon",
    "the daemon runs",
    "it has the packet: epoll, recvmmsg",
    "the gate: verify, decrypt, parse, policy; the lease",
    "the ledger: one commit",
    "netlink: the element is in the set when this ends",
];

/// A trace of its own, taken away when dropped.
struct Trace {
    mounted: PathBuf,
    instance: PathBuf,
}

impl Trace {
    fn begin(measured: &Measured, daemon: i32) -> Result<Self, String> {
        let mounted = measured.site.lab.dir().join("trace");
        let failed = |error: std::io::Error| error.to_string();
        fs::create_dir_all(&mounted).map_err(failed)?;
        let mount = ["-t", "tracefs", "none", mounted.to_str().unwrap()];
        let done = Command::new("mount").args(mount).status().map_err(failed)?;
        if !done.success() {
            return Err("this kernel has no tracefs".into());
        }
        let instance = mounted.join(format!("instances/oneknock-{daemon}"));
        let trace = Self { mounted, instance };
        fs::create_dir(&trace.instance).map_err(failed)?;
        let calls = format!("common_pid == {daemon} || id == 44");
        for (file, text) in [
            ("trace_clock", "mono"),
            ("buffer_size_kb", "8192"),
            ("events/raw_syscalls/sys_enter/filter", &calls),
            (
                "events/raw_syscalls/sys_exit/filter",
                &format!("common_pid == {daemon}"),
            ),
            (
                "events/sched/sched_wakeup/filter",
                &format!("pid == {daemon}"),
            ),
            (
                "events/sched/sched_switch/filter",
                &format!("next_pid == {daemon}"),
            ),
            ("events/raw_syscalls/enable", "1"),
            ("events/sched/sched_wakeup/enable", "1"),
            ("events/sched/sched_switch/enable", "1"),
        ] {
            let path = trace.instance.join(file);
            fs::write(&path, text).map_err(|error| format!("{file}: {error}"))?;
        }
        Ok(trace)
    }

    fn text(&self) -> String {
        let _ = fs::write(self.instance.join("tracing_on"), "0");
        fs::read_to_string(self.instance.join("trace")).unwrap_or_default()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.instance);
        let _ = Command::new("umount").arg(&self.mounted).status();
    }
}

/// A line's moment, in microseconds, and what it tells: `NAME-PID [CPU] FLAGS SECONDS: WHAT`.
fn event(line: &str) -> Option<(u64, &str)> {
    let (head, what) = line.split_once(": ")?;
    let (seconds, micros) = head.split_whitespace().last()?.split_once('.')?;
    let seconds: u64 = seconds.parse().ok()?;
    Some((seconds * 1_000_000 + micros.parse::<u64>().ok()?, what))
}

/// For each knock, how long each stage took.
fn stages(text: &str, daemon: i32) -> Vec<[Duration; 6]> {
    let of_daemon = format!("-{daemon} ");
    let (mut all, mut moments) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let Some((at, what)) = event(line) else {
            continue;
        };
        let own = line
            .split('[')
            .next()
            .is_some_and(|who| who.contains(&of_daemon));
        let is = |name: &str, call: &str| what.starts_with(name) && what.contains(call);
        let is_next = match moments.len() {
            0 => !own && line.contains("knock-") && is("sys_enter", SENDTO),
            1 => is("sched_wakeup", ""),
            2 => is("sched_switch", ""),
            3 => own && is("sys_exit", RECVMMSG) && !what.contains(" = -"),
            4 => own && is("sys_enter", FCNTL),
            5 => own && is("sys_enter", SENDTO),
            _ => own && is("sys_exit", SENDTO),
        };
        if is_next {
            moments.push(at);
        }
        if moments.len() == 7 {
            let between = |n: usize| Duration::from_micros(moments[n + 1] - moments[n]);
            all.push([0, 1, 2, 3, 4, 5].map(between));
            moments.clear();
        }
    }
    all
}

pub fn stages_of_a_knock(report: &mut Report, measured: &Measured) {
    report.section("Where its time goes", &["stage", "median", "p95"]);
    let daemon = measured.daemon.as_ref().unwrap().pid().as_raw();
    let trace = if cfg!(target_arch = "x86_64") {
        Trace::begin(measured, daemon)
    } else {
        Err("the calls' numbers are those of x86_64".into())
    };
    let trace = match trace {
        Ok(trace) => trace,
        Err(why) => return report.row(&[format!("not measured: {why}")]),
    };
    latency::to_set(measured, 500, latency::PAUSE, |n| other(3_000 + n));
    let all = stages(&trace.text(), daemon);
    for (at, name) in STAGES.into_iter().enumerate() {
        let of: Samples = all.iter().map(|stages| Some(stages[at])).collect();
        report.row(&[name.to_owned(), time(of.median()), time(of.percentile(95))]);
    }
    let whole: Samples = all.iter().map(|stages| Some(stages.iter().sum())).collect();
    let name = format!(
        "all of it, of {} knocks, with the trace's own price",
        all.len()
    );
    report.row(&[name, time(whole.median()), time(whole.percentile(95))]);
}
