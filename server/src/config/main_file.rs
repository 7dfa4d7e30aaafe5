//! `oneknockd.toml`.

use super::ConfigError;
use super::reader::{Parsed, Reader, Section};
use super::sequence::{self, Sequence};
use super::service::{self, Service};
use super::trusted;
use crate::kernel::GuardMode;
use ipnet::IpNet;
use oneknock_shared::name::{Host, KeyName, ServiceName};
use oneknock_shared::port::{Ports, Transport};
use oneknock_shared::secret::ServerId;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// How far apart the clocks may be where the configuration does not say.
const SKEW: Duration = Duration::from_secs(30);
const MAX_SKEW: Duration = Duration::from_secs(600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long the history is kept where the configuration does not say.
const HISTORY: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long an older generation of a key works on after the first use of a newer one,
/// where the configuration does not say.
const ROTATION_GRACE: Duration = DAY;
const MAX_GRACE: Duration = Duration::from_secs(366 * 24 * 3600);
const MAX_HISTORY: Duration = Duration::from_secs(3660 * 24 * 3600);

/// The main configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What clients call this server, as in \"ssh home\".
    pub name: KeyName,
    /// The host that invitations name.
    pub host: Host,
    /// The UDP port that invitations name, 1 to 65535; a router may map it.
    pub port: u16,
    /// This server's id.
    pub server_id: ServerId,
    /// Where the daemon listens; at least one.
    pub listen: Vec<SocketAddr>,
    /// How far a packet's timestamp may be from this machine's clock, 1 s to 10 min.
    pub skew: Duration,
    /// How long the history of grants is kept, 1 day to 10 years.
    pub history: Duration,
    /// How long an older generation of a key works on after the first use of a newer one,
    /// 1 s to 366 days.
    pub rotation_grace: Duration,
    /// How the guard is kept from other programs.
    pub guard: GuardMode,
    /// The group whose members may ask the daemon, besides root.
    pub control_group: Option<String>,
    /// Whether this machine's own default gateway may be admitted.
    pub allow_gateway: bool,
    /// Trusted networks, which never need to knock; no two overlap.
    pub trusted: Vec<IpNet>,
    /// What is guarded; at least one, no name and no port twice.
    pub services: Vec<Service>,
    /// The port sequence, where that fallback is on.
    pub sequence: Option<Sequence>,
}

/// What stands for a guard that nobody can read.
#[derive(Debug, thiserror::Error)]
#[error("must be \"exclusive\" or \"monitored\"")]
pub struct BadGuard;

impl std::str::FromStr for GuardMode {
    type Err = BadGuard;

    fn from_str(text: &str) -> Result<Self, BadGuard> {
        match text {
            "exclusive" => Ok(Self::Exclusive),
            "monitored" => Ok(Self::Monitored),
            _ => Err(BadGuard),
        }
    }
}

impl std::fmt::Display for GuardMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Exclusive => "exclusive",
            Self::Monitored => "monitored",
        })
    }
}

impl Config {
    /// What is no error, but right only in special places: a line each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let listens = |port| self.listen.iter().any(|address| address.port() == port);
        if !listens(self.port) {
            let mut ports: Vec<u16> = self.listen.iter().map(SocketAddr::port).collect();
            ports.sort_unstable();
            ports.dedup();
            let ports: Vec<String> = ports.iter().map(|p| format!("udp/{p}")).collect();
            warnings.push(format!(
                "port: clients knock on udp/{}, and the daemon listens on {}: right only where a router translates the one into the other",
                self.port,
                ports.join(", ")
            ));
        }
        warnings
    }

    /// What clients know by their invitations and is otherwise than it was.
    #[must_use]
    pub fn changed_for_clients(&self, before: &Self) -> Vec<&'static str> {
        let is_moved = |was: &Service| self.service(was.name).is_some_and(|s| s.ports != was.ports);
        let steps = |of: &Self| of.sequence.as_ref().map(|s| (s.service, s.steps.clone()));
        let changed = [
            ("server_id", self.server_id != before.server_id),
            ("host", self.host != before.host),
            ("port", self.port != before.port),
            (
                "the ports of a service",
                before.services.iter().any(is_moved),
            ),
            ("the sequence", steps(self) != steps(before)),
        ];
        let changed = changed.iter().filter(|(_, is_changed)| *is_changed);
        changed.map(|(what, _)| *what).collect()
    }

    /// The UDP ports that knocks are sent to, before and behind a router.
    #[must_use]
    pub fn knock_ports(&self) -> Vec<u16> {
        knock_ports(Some(self.port.into()), &self.listen)
    }

    /// Whether an address never needs to knock.
    #[must_use]
    pub fn never_knocks(&self, address: IpAddr) -> bool {
        self.trusted
            .iter()
            .any(|network| network.contains(&address))
    }

    /// The service of that name.
    #[must_use]
    pub fn service(&self, name: ServiceName) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }
}

/// A main file that was read.
#[derive(Debug)]
pub struct MainFile {
    /// What it says.
    pub config: Config,
    /// Names in it that have no meaning.
    pub unknown: Vec<ConfigError>,
    /// Its text.
    pub text: String,
}

/// Reads the file's text; a name without a meaning in it is an error.
pub fn parse(path: &Path, text: &str) -> Result<Config, Vec<ConfigError>> {
    parsed(path, text)?.strict()
}

/// Reads the file's text.
pub fn read(path: &Path, text: &str) -> Result<MainFile, Vec<ConfigError>> {
    let parsed = parsed(path, text)?;
    Ok(MainFile {
        config: parsed.value,
        unknown: parsed.unknown,
        text: text.to_owned(),
    })
}

fn parsed(path: &Path, text: &str) -> Result<Parsed<Config>, Vec<ConfigError>> {
    Reader::read(path, text, |file| {
        // Every key is read before the first `?`, so that every error is found.
        let name = file.text("name", "\"home\"");
        let host = file.text("host", "\"home.example.org\"");
        let port = file.number("port", 1..=65535, "45123");
        let server_id = file.text("server_id", "\"(what oneknockctl init wrote)\"");
        let listen = file.list("listen", "[\"0.0.0.0:45123\", \"[::]:45123\"]");
        let skew = file.duration_or("skew", SECOND..=MAX_SKEW, SKEW);
        let history = file.duration_or("history", DAY..=MAX_HISTORY, HISTORY);
        let grace = file.duration_or("rotation_grace", SECOND..=MAX_GRACE, ROTATION_GRACE);
        let guard = file.text_or("guard", GuardMode::default());
        let control_group = file.text_if::<GroupName>("control_group");
        let allow_gateway = file.flag("allow_gateway");
        let trusted = trusted::read(file);
        let services = file.tables("service", service::read);
        let knock = knock_ports(port, listen.as_deref().unwrap_or_default());
        let sequence = file.table_if("sequence", "sequence.", |section| {
            sequence::read(section, services.as_deref(), &knock)
        });
        if let (Some(listen), Some(services)) = (&listen, &services) {
            check_listen(file, listen, services);
        }
        if let Some(services) = &services {
            service::check(file, services);
        }
        Some(Config {
            name: name?,
            host: host?,
            port: u16::try_from(port?).ok()?,
            server_id: server_id?,
            listen: listen?,
            skew: skew?,
            history: history?,
            rotation_grace: grace?,
            guard: guard?,
            control_group: control_group?.map(|group| group.0),
            allow_gateway: allow_gateway?,
            trusted: trusted?,
            services: services?,
            sequence: sequence?,
        })
    })
}

/// The UDP ports that knocks are sent to, before and behind a router.
fn knock_ports(port: Option<u32>, listen: &[SocketAddr]) -> Vec<u16> {
    let outside = port.and_then(|port| u16::try_from(port).ok());
    let inside = listen.iter().map(SocketAddr::port);
    let mut ports: Vec<u16> = outside.into_iter().chain(inside).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// A group's name; whether there is such a group is another question.
struct GroupName(String);

impl std::str::FromStr for GroupName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if (1..=32).contains(&text.len()) && text.chars().all(is_name) {
            Ok(Self(text.into()))
        } else {
            Err("is not a group's name")
        }
    }
}

fn check_listen(file: &Section<'_, '_>, listen: &[SocketAddr], services: &[Service]) {
    for (at, address) in listen.iter().enumerate() {
        if address.port() == 0 {
            file.note("listen", format!("{address}: the port must be 1 to 65535"));
        }
        if listen[..at].contains(address) {
            file.note("listen", format!("{address} is there twice"));
        }
        let guards = |p: &&Ports| p.contains(Transport::Udp, address.port());
        for service in services {
            if let Some(ports) = service.ports.iter().find(guards) {
                let name = service.name;
                let what = format!(
                    "{address}: {ports} is guarded by service {name}, so no knock could reach it"
                );
                file.note("listen", what);
            }
        }
    }
}

/// Whole days as such: months and years of a round number of days are hard to read.
fn days(time: Duration) -> String {
    if time.subsec_nanos() == 0 && time.as_secs().is_multiple_of(DAY.as_secs()) {
        format!("{}days", time.as_secs() / DAY.as_secs())
    } else {
        humantime::format_duration(time).to_string()
    }
}

/// The text of a new main file, which [`parse`] reads back as it is.
#[must_use]
pub fn main_text(config: &Config) -> String {
    let listen: Vec<String> = config.listen.iter().map(|a| format!("\"{a}\"")).collect();
    let mut text = format!(
        "\
# oneknockd: what the daemon guards and where it listens.
# After a change: oneknockctl reload, which names every error, and then changes nothing.

# What clients call this server, as in \"ssh home\", and where clients find this machine.
name = \"{name}\"
host = \"{host}\"
# The UDP port that clients knock on. A router in front must pass it on; where it does
# not translate the port, `listen` below must have the same one.
port = {port}
# Random; every packet is bound to it. Changing it makes all invitations void.
server_id = \"{id}\"

# Where the daemon listens.
listen = [{listen}]
# How far a client's clock may be off, 1s to 10min.
skew = \"{skew}\"
# How far oneknockctl log looks back.
history = \"{history}\"
# Once a key's new secret is used, its old one works for no longer than this.
rotation_grace = \"{grace}\"
# \"exclusive\": while the daemon runs, the kernel keeps other programs off the guard (Linux
# 6.9 and later; before, as \"monitored\"). \"monitored\": the daemon repairs what other
# programs change. A guard that was made as \"monitored\" stays so until it is removed.
guard = \"{guard}\"
# The group whose members may ask the daemon by oneknockctl, besides root; they can also end
# grants, and take the guard down.
{control_group}
# A router that rewrites the sources of what it passes on shows every visitor under
# its own address; admitting that one, by a knock or a port sequence, would admit
# everybody. Leave this false then.
allow_gateway = {gateway}
",
        name = config.name,
        host = config.host,
        port = config.port,
        id = config.server_id,
        listen = listen.join(", "),
        skew = humantime::format_duration(config.skew),
        history = days(config.history),
        grace = humantime::format_duration(config.rotation_grace),
        guard = config.guard,
        control_group = match &config.control_group {
            Some(group) => format!("control_group = \"{group}\""),
            None => "#control_group = \"adm\"".into(),
        },
        gateway = config.allow_gateway,
    );
    text.push_str(&trusted::text(&config.trusted));
    config
        .services
        .iter()
        .for_each(|one| text.push_str(&service::text(one)));
    text.push_str(&sequence::text(config.sequence.as_ref()));
    text
}

impl Config {
    /// A configuration with the values that hold where nothing else is said.
    #[must_use]
    pub fn new(name: KeyName, host: Host, port: u16, server_id: ServerId) -> Self {
        let any = |ip: &str| ip.parse().ok().map(|ip| SocketAddr::new(ip, port));
        Self {
            name,
            host,
            port,
            server_id,
            listen: ["0.0.0.0", "::"].into_iter().filter_map(any).collect(),
            skew: SKEW,
            control_group: None,
            history: HISTORY,
            rotation_grace: ROTATION_GRACE,
            guard: GuardMode::default(),
            allow_gateway: false,
            trusted: Vec::new(),
            services: Vec::new(),
            sequence: None,
        }
    }
}
