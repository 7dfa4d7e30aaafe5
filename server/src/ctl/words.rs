//! The daemon's answers in words, and as metrics. Pure.

use crate::config::Paths;
use crate::control::answers::{ListedGrant, Rejected, SequenceGrant, Status, TrialStatus};
use crate::control::watch::{Happened, WatchEvent};
use crate::kernel::STANDALONE_TABLE;
use crate::reasons;
use humantime::{format_duration, format_rfc3339_seconds};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

/// A point in time, UTC, to the second.
fn time(ms: u64) -> String {
    match UNIX_EPOCH.checked_add(Duration::from_millis(ms)) {
        // What comes after the year 9999 cannot be written so.
        Some(time) if ms < 253_402_300_800_000 => format_rfc3339_seconds(time).to_string(),
        _ => format!("{ms} ms"),
    }
}

fn span(seconds: u64) -> String {
    format_duration(Duration::from_secs(seconds)).to_string()
}

/// What is to be known; and done, while the daemon waits for the clock.
pub const WAITS: &str = "nothing is accepted yet, from any key: the state was lost, and until this machine's clock is synchronised no packet can be told from one that was accepted before; have the clock synchronised (timedatectl), or where it is right, stop oneknockd and vouch for it with \"oneknockctl new-state\"";

/// What is to be known and done while the daemon runs on the last good configuration.
const LAST_GOOD: &str = "warning: oneknockd.toml is invalid; running on the last good configuration (hint: oneknockctl check, then oneknockctl reload)";

/// What is to be known and done about keys that are not loaded.
#[must_use]
pub fn skipped(files: &[String]) -> String {
    format!(
        "error: keys are not loaded, since their files are invalid: {} (hint: oneknockctl check, then oneknockctl reload)",
        files.join(", ")
    )
}

/// What to know and do about a guard that was monitored before it was to be exclusive.
pub const EXCLUSIVE_PENDING: &str = "warning: guard = \"exclusive\" takes effect when the table is made again; when its ports may be open for a moment: oneknockctl teardown, then start oneknockd";

/// Several lines, without the last one's end.
#[must_use]
pub fn status(status: &Status, paths: &Paths) -> String {
    let state = State::of(status.enforcing, status.trial.as_ref());
    let mut text = format!(
        "{}\n\
         oneknockd {}, process {}, up {}\n\
         listens on {}; clients knock on udp/{}\n\
         clock {}, knocks may be {} off\n\
         keys {}, live grants {}, guard {}",
        state.text(paths),
        status.version,
        status.pid,
        span(status.up_seconds),
        status.listen.join(", "),
        status.port,
        time(status.clock_ms),
        span(status.skew_seconds),
        status.keys,
        status.grants,
        status.guard,
    );
    if status.exclusive_pending {
        text.push('\n');
        text.push_str(EXCLUSIVE_PENDING);
    }
    if let Some(error) = &status.sync_error {
        let _ = write!(
            text,
            "\nerror: the kernel does not hold every grant: {error}"
        );
    }
    if status.waits_for_clock {
        text.push('\n');
        text.push_str(WAITS);
    }
    if status.using_last_good_config {
        text.push('\n');
        text.push_str(LAST_GOOD);
    }
    if !status.skipped_keys.is_empty() {
        text.push('\n');
        text.push_str(&skipped(&status.skipped_keys));
    }
    // Writing to a String cannot fail.
    for service in &status.services {
        let ports = service.ports.join(", ");
        let _ = write!(
            text,
            "\nservice {}: {ports}, grants {}",
            service.name, service.grants
        );
    }
    let counters = &status.counters;
    let _ = write!(text, "\npackets accepted: {}", counters.accepted);
    let groups = [
        ("accepted and not granted", &counters.failed),
        ("refused", &counters.refused),
        ("ignored", &counters.ignored),
        ("that anybody can send", &counters.junk),
    ];
    for (name, counts) in groups {
        let counts = counts.iter().filter(|(_, count)| **count > 0);
        let counts: Vec<String> = counts.map(|(word, n)| format!("{word} {n}")).collect();
        if !counts.is_empty() {
            let _ = write!(text, "\npackets {name}: {}", counts.join(", "));
        }
    }
    if counters.waiting > 0 {
        let _ = write!(text, "\npackets not looked at: {}", counters.waiting);
    }
    text
}

/// The rules that need no daemon stand on this machine; with the command that ends them.
#[must_use]
pub fn sequence_alone() -> String {
    format!(
        "\"oneknockctl rules --sequence-only\" is in force, and lets in by the port sequence alone, whatever a packet has opened: \"nft delete table inet {STANDALONE_TABLE}\" takes it down"
    )
}

/// Of a key that may open what the port sequence opens, and does not have it.
pub const NO_SEQUENCE: &str = "has no port sequence: it is to sign its address, or may not open for as long as [sequence] does";

/// Of a server without a key that opens.
pub const NO_KEY: &str = "there is no key, or none whose time is not over: nobody can get in";

/// What a guard does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its doors are shut, for good.
    Enforcing,
    /// Its doors are shut for so many more seconds.
    OnTrial(u64),
    /// Its doors are open.
    NotEnforcing,
}

impl State {
    /// That of a guard that enforces or not, with a trial where one goes on.
    #[must_use]
    pub fn of(enforcing: bool, trial: Option<&TrialStatus>) -> Self {
        match trial {
            _ if enforcing => Self::Enforcing,
            Some(trial) => Self::OnTrial(trial.left_seconds),
            None => Self::NotEnforcing,
        }
    }

    /// The exit status that says it.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Enforcing => 0,
            Self::OnTrial(_) => 6,
            Self::NotEnforcing => 7,
        }
    }

    /// One line.
    #[must_use]
    pub fn text(self, paths: &Paths) -> String {
        let ctl = paths.ctl();
        match self {
            Self::Enforcing => "enforcing".into(),
            Self::OnTrial(left) => format!(
                "on trial: the guard goes down in {} unless \"{ctl} confirm\" comes from a new session",
                span(left)
            ),
            Self::NotEnforcing => format!(
                "not enforcing: guarded ports are as open as without oneknock; \"{ctl} enable --confirm 10m\" shuts them, on trial at first"
            ),
        }
    }
}

/// The head of a table of grants.
pub const GRANTS_HEAD: &str =
    "KEY                      ADDRESS                                  SERVICE          LEFT";

/// A line of that table.
#[must_use]
pub fn grant(grant: &ListedGrant) -> String {
    let ListedGrant {
        key,
        address,
        service,
        seconds,
    } = grant;
    grant_line(key, *address, service, *seconds)
}

/// A line of that table for somebody whom the port sequence has admitted.
#[must_use]
pub fn sequence_grant(grant: &SequenceGrant) -> String {
    let SequenceGrant {
        address,
        service,
        seconds,
    } = grant;
    // No key has such a name.
    grant_line("(port sequence)", *address, service, *seconds)
}

fn grant_line(key: &str, address: IpAddr, service: &str, seconds: u64) -> String {
    // Padding looks at the width of a text, not of an address.
    let address = address.to_string();
    format!("{key:<24} {address:<40} {service:<16} {}", span(seconds))
}

/// What was the matter and what to do, in a sentence.
fn advice(event: &WatchEvent) -> String {
    let word = event.reason.as_deref().unwrap_or("");
    let Some(reason) = reasons::of(word) else {
        return word.into();
    };
    let means = match event.ahead_seconds {
        Some(ahead) => format!(
            "its clock is {} {} this machine's, or an old packet was sent again",
            span(ahead.unsigned_abs()),
            if ahead < 0 { "behind" } else { "ahead of" },
        ),
        None => reason.means.into(),
    };
    format!("{means}: {} [{word}]", reason.act)
}

fn source(event: &WatchEvent) -> String {
    let address = event
        .address
        .map_or("-".into(), |address| address.to_string());
    let service = event.service.as_ref().map(|name| format!(" for {name}"));
    let whose = if event.proven {
        ""
    } else {
        " (it may be forged)"
    };
    format!("{address}{whose}{}", service.unwrap_or_default())
}

/// One line.
#[must_use]
pub fn rejected(rejected: &Rejected) -> String {
    let event = &rejected.last;
    let times = match rejected.times {
        1 => String::new(),
        times => format!(", {times} times"),
    };
    let (at, key) = (time(event.at_ms), &event.key);
    format!(
        "{at} {key} from {}{times}: {}",
        source(event),
        advice(event)
    )
}

/// One line.
#[must_use]
pub fn event(event: &WatchEvent) -> String {
    let (at, key) = (time(event.at_ms), &event.key);
    let address = event
        .address
        .map_or("-".into(), |address| address.to_string());
    let service = event.service.as_deref().unwrap_or("all");
    match event.event {
        Happened::Granted => {
            let seconds = span(event.seconds.unwrap_or(0));
            format!("{at} granted {key} {address} {service} {seconds}")
        }
        Happened::Open => {
            let left = span(event.seconds.unwrap_or(0));
            format!("{at} open {key} {address} {service} {left}")
        }
        Happened::Closed => format!("{at} closed {key} {address} {service}"),
        Happened::Expired => format!("{at} expired {key} {address} {service}"),
        Happened::Retiring => format!(
            "{at} retiring {key} generation {}: it works for {} more, since a newer one was used",
            event.generation.unwrap_or(0),
            span(event.seconds.unwrap_or(0)),
        ),
        Happened::Revoked => format!("{at} revoked {key} {address} {service}"),
        Happened::Refused | Happened::Ignored | Happened::Failed => {
            let word = match event.event {
                Happened::Ignored => "ignored",
                Happened::Failed => "failed",
                _ => "refused",
            };
            format!(
                "{at} {word} {key} from {}: {}",
                source(event),
                advice(event)
            )
        }
    }
}

/// The Prometheus text format, without the last line's end; of no daemon, that there is
/// none.
#[must_use]
pub fn metrics(status: Option<&Status>) -> String {
    let mut lines = head("up", "gauge", "Whether the daemon answers.");
    lines.push(format!("oneknock_up {}", u8::from(status.is_some())));
    let Some(status) = status else {
        return lines.join("\n");
    };
    let help = "Whether the guarded ports are shut for good.";
    lines.extend(head("enforcing", "gauge", help));
    lines.push(format!("oneknock_enforcing {}", u8::from(status.enforcing)));
    let help = "For how long a trial shuts the guarded ports still.";
    lines.extend(head("trial_seconds", "gauge", help));
    let left = status.trial.as_ref().map_or(0, |t| t.left_seconds);
    lines.push(format!("oneknock_trial_seconds {left}"));
    lines.extend(head(
        "uptime_seconds",
        "gauge",
        "How long the daemon has run.",
    ));
    lines.push(format!("oneknock_uptime_seconds {}", status.up_seconds));
    lines.extend(head("keys", "gauge", "Keys that are loaded."));
    lines.push(format!("oneknock_keys {}", status.keys));
    let help = "Keys that are not loaded, since their files are invalid.";
    lines.extend(head("keys_skipped", "gauge", help));
    lines.push(format!(
        "oneknock_keys_skipped {}",
        status.skipped_keys.len()
    ));
    lines.extend(head("grants", "gauge", "Live grants."));
    for service in &status.services {
        let (name, grants) = (&service.name, service.grants);
        lines.push(format!("oneknock_grants{{service=\"{name}\"}} {grants}"));
    }
    let help = "Datagrams by what became of them, and why.";
    lines.extend(head("packets_total", "counter", help));
    let counters = &status.counters;
    let accepted = BTreeMap::from([(String::new(), counters.accepted)]);
    let groups = [
        ("accepted", &accepted),
        ("failed", &counters.failed),
        ("refused", &counters.refused),
        ("ignored", &counters.ignored),
        ("junk", &counters.junk),
    ];
    for (outcome, counts) in groups {
        let line = |(reason, count): (&String, &u64)| {
            let labels = format!("outcome=\"{outcome}\",reason=\"{reason}\"");
            format!("oneknock_packets_total{{{labels}}} {count}")
        };
        lines.extend(counts.iter().map(line));
    }
    let waiting = counters.waiting;
    lines.push(format!(
        "oneknock_packets_total{{outcome=\"waiting\",reason=\"\"}} {waiting}"
    ));
    lines.join("\n")
}

fn head(name: &str, kind: &str, help: &str) -> Vec<String> {
    vec![
        format!("# HELP oneknock_{name} {help}"),
        format!("# TYPE oneknock_{name} {kind}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::answers::{CounterValues, ServiceStatus};

    fn skewed(ahead: i64) -> WatchEvent {
        let address = Some([192, 0, 2, 7].into());
        WatchEvent {
            reason: Some("clock-skew".into()),
            ahead_seconds: Some(ahead),
            ..WatchEvent::new(1_800_000_000_000, Happened::Ignored, "laptop", address)
        }
    }

    #[test]
    fn a_wrong_clock_is_told_with_how_wrong_it_is() {
        let rejected = Rejected {
            last: skewed(-14_520),
            times: 3,
        };
        let text = super::rejected(&rejected);
        assert!(
            text.starts_with("2027-01-15T08:00:00Z laptop from 192.0.2.7"),
            "{text}"
        );
        for part in [
            "3 times",
            "clock is 4h 2m behind",
            "set the clock",
            "[clock-skew]",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let ahead = event(&skewed(61));
        assert!(ahead.contains("1m 1s ahead of"), "{ahead}");
    }

    #[test]
    fn what_a_newer_daemon_says_is_passed_on() {
        let mut newer = skewed(0);
        newer.reason = Some("moon-phase".into());
        assert!(event(&newer).ends_with(": moon-phase"));
        newer.at_ms = u64::MAX;
        assert!(event(&newer).contains("moon-phase"));
    }

    #[test]
    fn metrics_are_in_the_text_format() {
        assert!(metrics(None).ends_with("\noneknock_up 0"));
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
        let text = metrics(Some(&status));
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
        assert!(
            names
                .clone()
                .all(|l| l.starts_with("oneknock_") || l.starts_with("# TYPE "))
        );
    }
}
