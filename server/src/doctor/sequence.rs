//! Whether the port sequence can work: its steps are free, and no busy port costs a penalty.

use super::listeners::{self, Listeners};
use super::{Check, Finding, Subject};
use crate::config::{Config, Key, Sequence, Steps, ports_text, propose_sequence};
use crate::files::{self, Access, Owner};
use oneknock_shared::port::{Ports, Transport};
use oneknock_shared::rolling;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

/// See the module.
pub struct PortSequence;

impl Check for PortSequence {
    fn code(&self) -> &'static str {
        "E-SEQUENCE"
    }

    fn run(&self, subject: &Subject<'_>) -> Vec<Finding> {
        let mut found = Vec::new();
        // Errors of the file are those of the configuration's check.
        let is_of_sequence = |what: &str| what.starts_with("sequence.");
        let mut is_bad = subject.errors.iter().any(|e| is_of_sequence(&e.what));
        if let Some(settings) = subject.settings
            && let Some(sequence) = &settings.config.sequence
        {
            let config = &settings.config;
            let taken = taken_steps(sequence, subject.listeners);
            is_bad |= !taken.is_empty();
            found.extend(taken);
            found.extend(busy_ports(
                config,
                subject.listeners,
                &listeners::outgoing(),
            ));
            let may = |key: &&Key| key.policy.services.contains(&sequence.service);
            for key in settings.keys.iter().filter(may) {
                if !sequence.is_for(&key.policy) {
                    let what = format!(
                        "key {} has no port sequence: it must sign its address, or may not open for as long as [sequence] does",
                        key.name
                    );
                    found.push(Finding::warning(what));
                }
            }
        }
        if is_bad && let Some(ports) = proposal(subject) {
            found.push(Finding::note(format!(
                "a sequence that works, drawn at random: {ports}"
            )));
        }
        found
    }
}

/// Steps whose port something listens on: no connection there is a step.
fn taken_steps(sequence: &Sequence, listeners: &Listeners) -> Vec<Finding> {
    let (key, taken): (_, Vec<String>) = match &sequence.steps {
        Steps::Fixed(steps) => {
            let taken = steps.iter().filter(|step| is_taken(listeners, **step));
            ("ports", taken.map(ToString::to_string).collect())
        }
        Steps::Rolling => {
            let is_step = |(transport, port): &(Transport, u16)| {
                *transport == Transport::Tcp && rolling::PORTS.contains(port)
            };
            let taken = listeners.for_others().filter(is_step);
            (
                "rolling",
                taken.map(|(t, port)| format!("{t}/{port}")).collect(),
            )
        }
    };
    let finding = |step| {
        Finding::error(format!(
            "sequence.{key}: something on this machine listens on {step}, which the step would block"
        ))
    };
    taken.into_iter().map(finding).collect()
}

fn is_taken(listeners: &Listeners, step: Ports) -> bool {
    listeners.reachable(step.transport(), step.first()) == Some(true)
}

/// Ports that are neither guarded nor public: a connection there is an out-of-order probe.
/// `outgoing` are ports that the kernel hands out: a datagram's socket there may be a client's.
fn busy_ports(
    config: &Config,
    listeners: &Listeners,
    outgoing: &RangeInclusive<u16>,
) -> Option<Finding> {
    let sequence = config.sequence.as_ref()?;
    let guarded = config.services.iter().flat_map(|service| &service.ports);
    let open: Vec<&Ports> = guarded.chain(&sequence.public).collect();
    let knock = config.knock_ports();
    let is_fine = |transport, port| match transport {
        Transport::Udp if knock.contains(&port) || outgoing.contains(&port) => true,
        _ => open.iter().any(|ports| ports.contains(transport, port)),
    };
    let busy = listeners
        .for_others()
        .filter(|(t, port)| !is_fine(*t, *port));
    let busy: Vec<String> = busy.map(|(t, port)| format!("{t}/{port}")).collect();
    (!busy.is_empty()).then(|| {
        Finding::warning(format!(
            "sequence.ignored_ports: something listens on {}: a client that connects there cannot use the sequence for a while",
            busy.join(", ")
        ))
        .hint("add ports that are for everyone to ignored_ports")
    })
}

/// A sequence that works with the main file, as its line of `ports`, also where that is invalid.
fn proposal(subject: &Subject<'_>) -> Option<String> {
    let path = subject.paths.main_file();
    let text = files::read(&path, Access::WrittenOnlyBy(Owner::wanted())).ok()?;
    let table = text.parse::<toml::Table>().ok()?;
    let (knock, used) = (knock_ports(&table), used_ports(&table));
    let listens = |step: Ports| is_taken(subject.listeners, step);
    let steps = propose_sequence(&knock, &used, listens);
    Some(format!("ports = {}", ports_text(&steps.ok()??)))
}

/// The ports that the file has for something, as far as they can be read.
fn used_ports(file: &toml::Table) -> Vec<Ports> {
    let services = file.get("service").and_then(toml::Value::as_array);
    let services = services.into_iter().flatten().map(|s| s.get("ports"));
    let ignored = file.get("sequence").and_then(|s| s.get("ignored_ports"));
    let lists = services.chain([ignored]).flatten();
    let texts = lists.filter_map(toml::Value::as_array).flatten();
    texts.filter_map(|one| one.as_str()?.parse().ok()).collect()
}

fn knock_ports(file: &toml::Table) -> Vec<u16> {
    let port = file.get("port").and_then(toml::Value::as_integer);
    let port = port.and_then(|port| u16::try_from(port).ok());
    let listen = file.get("listen").and_then(toml::Value::as_array);
    let listen = listen.into_iter().flatten().filter_map(|address| {
        let address: SocketAddr = address.as_str()?.parse().ok()?;
        Some(address.port())
    });
    port.into_iter().chain(listen).collect()
}
