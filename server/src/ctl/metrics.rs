//! `oneknockctl metrics`: the daemon's counters, for Prometheus.

use super::ask::{NoAnswer, ask};
use super::{Failure, print};
use crate::config::Paths;
use crate::control::answers::Status;
use crate::control::protocol::Command;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};

pub fn metrics(paths: &Paths) -> Result<(), Failure> {
    let status: Option<Status> = match ask(paths, &Command::Status) {
        Ok(status) => Some(status),
        Err(NoAnswer::NoDaemon(_)) => None,
        Err(no) => return Err(no.into()),
    };
    print(text(status.as_ref()).trim_end())
}

/// The Prometheus text format, as it is written.
#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP oneknock_{name} {help}"));
        self.line(format_args!("# TYPE oneknock_{name} {kind}"));
    }

    fn value(&mut self, name: &str, labels: &str, value: impl Display) {
        self.line(format_args!("oneknock_{name}{labels} {value}"));
    }

    fn line(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{text}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.value(name, "", value);
    }
}

/// Of no daemon, that there is none.
fn text(status: Option<&Status>) -> String {
    let mut text = Text::default();
    text.gauge(
        "up",
        "Whether the daemon answers.",
        u8::from(status.is_some()),
    );
    let Some(status) = status else {
        return text.0;
    };
    let trial = status.trial.as_ref().map_or(0, |trial| trial.left_seconds);
    for (name, help, value) in [
        (
            "enforcing",
            "Whether the guard enforces for good.",
            u64::from(status.enforcing),
        ),
        ("trial_seconds", "Seconds until a trial ends.", trial),
        (
            "uptime_seconds",
            "For how long the daemon has run.",
            status.up_seconds,
        ),
        ("keys", "Keys that are loaded.", status.keys as u64),
        (
            "keys_skipped",
            "Keys whose files are invalid.",
            status.skipped_keys.len() as u64,
        ),
        (
            "last_good_config",
            "Whether the daemon runs on the last good configuration.",
            u64::from(status.using_last_good_config),
        ),
    ] {
        text.gauge(name, help, value);
    }
    text.head("grants", "gauge", "Active grants.");
    for service in &status.services {
        let labels = format!("{{service=\"{}\"}}", service.name);
        text.value("grants", &labels, service.grants);
    }
    let counters = &status.counters;
    text.head(
        "packets_total",
        "counter",
        "Datagrams by outcome and reason.",
    );
    let single = |count| BTreeMap::from([(String::new(), count)]);
    for (outcome, counts) in [
        ("accepted", &single(counters.accepted)),
        ("failed", &counters.failed),
        ("refused", &counters.refused),
        ("ignored", &counters.ignored),
        ("junk", &counters.junk),
        ("waiting", &single(counters.waiting)),
    ] {
        for (reason, count) in counts {
            let labels = format!("{{outcome=\"{outcome}\",reason=\"{reason}\"}}");
            text.value("packets_total", &labels, count);
        }
    }
    text.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::answers::{CounterValues, ServiceStatus};

    #[test]
    fn metrics_are_in_the_text_format() {
        assert!(text(None).ends_with("\noneknock_up 0\n"));
        let status = Status {
            version: "1".into(),
            pid: 1,
            up_seconds: 60,
            clock_ms: 0,
            skew_seconds: 30,
            port: 45123,
            listen: vec![],
            guard: "exclusive".into(),
            exclusive_pending: false,
            sync_error: None,
            enforcing: true,
            trial: None,
            services: vec![ServiceStatus {
                name: "ssh".into(),
                ports: vec!["tcp/22".into()],
                grants: 2,
            }],
            keys: 3,
            grants: 2,
            waits_for_clock: false,
            using_last_good_config: false,
            skipped_keys: vec!["phone.toml".into()],
            counters: CounterValues {
                accepted: 7,
                ignored: BTreeMap::from([("clock-skew".into(), 1)]),
                ..CounterValues::default()
            },
        };
        let text = text(Some(&status));
        for line in [
            "oneknock_up 1",
            "oneknock_enforcing 1",
            "oneknock_trial_seconds 0",
            "oneknock_keys 3",
            "oneknock_keys_skipped 1",
            "oneknock_grants{service=\"ssh\"} 2",
            "oneknock_packets_total{outcome=\"accepted\",reason=\"\"} 7",
            "oneknock_packets_total{outcome=\"ignored\",reason=\"clock-skew\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        let names = text.lines().map(|l| l.trim_start_matches("# HELP "));
        let is_named = |l: &str| l.starts_with("oneknock_") || l.starts_with("# TYPE ");
        assert!(names.into_iter().all(is_named));
    }
}
