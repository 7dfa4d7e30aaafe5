//! `[[service]]` of `oneknockd.toml`: what is guarded.

use super::reader::Section;
use oneknock_shared::name::ServiceName;
use oneknock_shared::port::Ports;
use std::time::Duration;

/// The longest time that a configuration may keep a door open for one knock.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
const SECOND: Duration = Duration::from_secs(1);
/// How long a door stays open where neither knock nor configuration says.
const OPEN_FOR: Duration = Duration::from_secs(30);
/// How long a knock may ask for where the configuration does not say.
const MAX_OPEN_FOR: Duration = Duration::from_secs(8 * 3600);

/// The sets of a service are called as it is, with 4 or 6 at the end. nft reads `ip6` and
/// `icmpv6` as words of its own, so that a listing of such a set could not be loaded again.
const RESERVED: [&str; 2] = ["ip", "icmpv"];

/// A guarded service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Its ports; at least one.
    pub ports: Vec<Ports>,
    /// How long a knock that asks for no time opens it: whole seconds, at least one.
    pub default_duration: Duration,
    /// The longest time that a knock can open it.
    pub max_duration: Duration,
}

impl Service {
    /// A service with the times that hold where nothing else is said.
    #[must_use]
    pub fn new(name: ServiceName, ports: Vec<Ports>) -> Self {
        Self {
            name,
            ports,
            default_duration: OPEN_FOR,
            max_duration: MAX_OPEN_FOR,
        }
    }
}

/// Reads a section.
pub fn read(section: &mut Section<'_, '_>) -> Option<Service> {
    let name: Option<ServiceName> = section.text("name", "\"ssh\"");
    let ports = section.list("ports", "[\"tcp/22\"]");
    let default_duration = section.duration_or("default_duration", SECOND..=LONGEST, OPEN_FOR);
    let max = section.duration_or("max_duration", SECOND..=LONGEST, MAX_OPEN_FOR);
    if let Some(reserved) = name.filter(|n| RESERVED.contains(&n.as_str())) {
        section.note(
            "name",
            format!("{reserved} is taken by nft; choose another"),
        );
    }
    if let (Some(default_duration), Some(max)) = (default_duration, max)
        && default_duration > max
    {
        section.note("default_duration", "must not be longer than max_duration");
    }
    Some(Service {
        name: name?,
        ports: ports?,
        default_duration: default_duration?,
        max_duration: max?,
    })
}

/// A port belongs to one service, and a name to one.
pub fn check(file: &Section<'_, '_>, services: &[Service]) {
    for (at, service) in services.iter().enumerate() {
        if services[..at].iter().any(|s| s.name == service.name) {
            file.note("service", format!("{} is there twice", service.name));
        }
        for (n, ports) in service.ports.iter().enumerate() {
            if service.ports[..n].iter().any(|p| p.overlaps(ports)) {
                file.note(
                    "service",
                    format!("{}: {ports} is there twice", service.name),
                );
            }
            let other = |s: &&Service| s.ports.iter().any(|p| p.overlaps(ports));
            if let Some(other) = services[..at].iter().find(other) {
                let what = format!("{ports} belongs to {} and to {}", other.name, service.name);
                file.note("service", what);
            }
        }
    }
}

/// The section's text.
pub fn text(service: &Service) -> String {
    let ports: Vec<String> = service.ports.iter().map(|p| format!("\"{p}\"")).collect();
    format!(
        "
# A guarded service. A port range is written \"udp/60000-61000\".
[[service]]
name = \"{}\"
ports = [{}]
# How long a knock opens it, and the longest time that a knock may ask for.
default_duration = \"{}\"
max_duration = \"{}\"
",
        service.name,
        ports.join(", "),
        humantime::format_duration(service.default_duration),
        humantime::format_duration(service.max_duration),
    )
}
