//! The ruleset as nft text: one `table` block, laid out as nft lists it.

use super::super::names::AddressFamily;
use super::{
    Chain, Compare, CtState, DataType, ElementKey, Field, HookPoint, InitialElement, Rule,
};
use super::{Ruleset, Set, Statement};
use std::fmt;
use std::net::IpAddr;

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.table)?;
        for set in &self.sets {
            writeln!(f, "{set}")?;
        }
        for (at, chain) in self.chains.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            chain.fmt(f)?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.data.is_some() { "map" } else { "set" };
        writeln!(f, "\t{kind} {} {{", self.name)?;
        // nft has no name for the type of raw payload.
        let is_raw = self.key == [DataType::Selector];
        let key: Vec<&str> = self.key.iter().map(|part| part.text()).collect();
        let word = if is_raw { "typeof" } else { "type" };
        write!(f, "\t\t{word} {}", key.join(" . "))?;
        if let Some(data) = self.data {
            write!(f, " : {}", data.text())?;
        }
        writeln!(f)?;
        if let Some(size) = self.size {
            writeln!(f, "\t\tsize {size}")?;
        }
        match (self.is_dynamic, self.has_timeouts) {
            (true, _) => writeln!(f, "\t\tflags dynamic,timeout")?,
            (false, true) => writeln!(f, "\t\tflags timeout")?,
            (false, false) => {}
        }
        if !self.elements.is_empty() {
            let elements: Vec<String> = self
                .elements
                .iter()
                .map(InitialElement::to_string)
                .collect();
            writeln!(f, "\t\telements = {{ {} }}", elements.join(", "))?;
        }
        writeln!(f, "\t}}")
    }
}

impl DataType {
    fn text(self) -> &'static str {
        match self {
            Self::Ipv4Address => "ipv4_addr",
            Self::Ipv6Address => "ipv6_addr",
            Self::Protocol => "inet_proto",
            Self::Port => "inet_service",
            Self::Family => "nf_proto",
            Self::Mark => "mark",
            Self::Selector => "@th,64,64",
        }
    }
}

impl fmt::Display for InitialElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key {
            ElementKey::Address(address) => address.fmt(f)?,
            ElementKey::Protocol(transport) => transport.fmt(f)?,
        }
        match self.timeout {
            Some(timeout) => write!(f, " timeout {}s", timeout.as_secs()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain {} {{", self.name)?;
        if let Some(hook) = self.hook {
            let (at, priority) = (hook.at.text(), hook.priority);
            writeln!(
                f,
                "\t\ttype filter hook {at} priority {priority}; policy accept;"
            )?;
        }
        for rule in &self.rules {
            writeln!(f, "\t\t{}", text(rule))?;
        }
        writeln!(f, "\t}}")
    }
}

impl HookPoint {
    fn text(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
        }
    }
}

fn text(rule: &Rule) -> String {
    let parts: Vec<String> = rule.iter().map(Statement::to_string).collect();
    parts.join(" ")
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::If(field, compare) => write!(f, "{}{compare}", field.text()),
            Self::In(key, set) => write!(f, "{} @{set}", fields(key)),
            Self::NotIn(key, set) => write!(f, "{} != @{set}", fields(key)),
            Self::State(CtState::Established) => f.write_str("ct state established"),
            Self::State(CtState::New) => f.write_str("ct state new"),
            Self::State(CtState::NotNew) => f.write_str("ct state != new"),
            Self::Update { set, key, timeout } => {
                let (key, timeout) = (fields(key), timeout.as_secs());
                write!(f, "update @{set} {{ {key} timeout {timeout}s }}")
            }
            Self::MarkByPort(map) => write!(f, "meta mark set tcp dport map @{map}"),
            Self::Counter => f.write_str("counter"),
            Self::Limit { per_second, burst } => {
                write!(f, "limit rate {per_second}/second burst {burst} packets")
            }
            Self::Notrack => f.write_str("notrack"),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

/// Behind the field.
impl fmt::Display for Compare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal(value) => write!(f, " {value}"),
            Self::Unequal(value) => write!(f, " != {value}"),
            Self::Between(first, last) => write!(f, " {first}-{last}"),
            Self::Network(IpAddr::V4(address), 32) => write!(f, " {address}"),
            Self::Network(IpAddr::V6(address), 128) => write!(f, " {address}"),
            Self::Network(address, bits) => write!(f, " {address}/{bits}"),
            Self::FlagsEqual(of, set) => write!(f, " & ({}) == {}", flags(*of), flags(*set)),
            Self::FlagsUnequal(of, set) => write!(f, " & ({}) != {}", flags(*of), flags(*set)),
        }
    }
}

fn flags(set: u8) -> String {
    const NAMES: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"];
    let named = NAMES.iter().enumerate();
    let named = named.filter(|(bit, _)| set >> bit & 1 == 1);
    let named: Vec<&str> = named.map(|(_, name)| *name).collect();
    if named.is_empty() {
        return "0".into();
    }
    named.join(" | ")
}

fn fields(key: &[Field]) -> String {
    let parts: Vec<&str> = key.iter().map(|field| field.text()).collect();
    parts.join(" . ")
}

impl Field {
    fn text(self) -> &'static str {
        use oneknock_shared::port::Transport::{Tcp, Udp};
        match self {
            Self::InputInterface => "iifname",
            Self::NetworkFamily => "meta nfproto",
            Self::TransportProtocol => "meta l4proto",
            Self::Mark => "meta mark",
            Self::DestinationType => "fib daddr type",
            Self::Source(AddressFamily::V4) => "ip saddr",
            Self::Source(AddressFamily::V6) => "ip6 saddr",
            Self::SourceNetwork64 => "ip6 saddr & ffff:ffff:ffff:ffff::",
            Self::Destination(AddressFamily::V4) => "ip daddr",
            Self::Destination(AddressFamily::V6) => "ip6 daddr",
            Self::NextHeader => "ip6 nexthdr",
            Self::SourcePort => "th sport",
            Self::AnyPort => "th dport",
            Self::Port(Tcp) => "tcp dport",
            Self::Port(Udp) => "udp dport",
            Self::UdpLength => "udp length",
            Self::TcpFlags => "tcp flags",
            Self::Selector => "@th,64,64",
        }
    }
}
