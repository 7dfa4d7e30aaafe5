//! Ports as the configuration and the invitation write them: `tcp/22`,
//! `udp/60000-61000`.

use std::fmt;
use std::str::FromStr;

/// A transport protocol that has ports and that the guard can guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// TCP, RFC 9293.
    Tcp,
    /// UDP, RFC 768.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One or more neighbouring ports of one transport; 1 to 65535, first not above last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ports {
    transport: Transport,
    first: u16,
    last: u16,
}

/// The text is not `tcp/N`, `udp/N`, `tcp/N-M` or `udp/N-M` with 1 to 65535 and N not
/// above M.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a port: write tcp/22 or udp/60000-61000, ports 1 to 65535")]
pub struct BadPorts(String);

impl Ports {
    /// One port; none where it is 0.
    #[must_use]
    pub fn single(transport: Transport, port: u16) -> Option<Self> {
        (port > 0).then_some(Self {
            transport,
            first: port,
            last: port,
        })
    }

    /// The transport protocol.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The lowest port, 1 to 65535.
    #[must_use]
    pub fn first(&self) -> u16 {
        self.first
    }

    /// The highest port, not below [`Ports::first`].
    #[must_use]
    pub fn last(&self) -> u16 {
        self.last
    }

    /// Whether `port` of `transport` is among these.
    #[must_use]
    pub fn contains(&self, transport: Transport, port: u16) -> bool {
        self.transport == transport && (self.first..=self.last).contains(&port)
    }

    /// Whether the two have a port in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.transport == other.transport && self.first <= other.last && other.first <= self.last
    }
}

impl FromStr for Ports {
    type Err = BadPorts;

    fn from_str(text: &str) -> Result<Self, BadPorts> {
        let parse = || {
            let (transport, ports) = text.split_once('/')?;
            let transport = match transport {
                "tcp" => Transport::Tcp,
                "udp" => Transport::Udp,
                _ => return None,
            };
            let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
            let (first, last) = (port(first)?, port(last)?);
            (first <= last).then_some(Self {
                transport,
                first,
                last,
            })
        };
        parse().ok_or_else(|| BadPorts(text.into()))
    }
}

/// Digits only, no sign, no leading zero, so that each port has one spelling.
fn port(text: &str) -> Option<u16> {
    let plain = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.transport, self.first)?;
        if self.last != self.first {
            write!(f, "-{}", self.last)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_written_as_they_are_read() {
        for text in ["tcp/22", "udp/60000-61000", "tcp/1", "udp/65535"] {
            assert_eq!(text.parse::<Ports>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_not_a_port_is_refused() {
        for text in [
            "",
            "22",
            "tcp",
            "tcp/",
            "tcp/0",
            "tcp/65536",
            "tcp/+22",
            "tcp/022",
            "tcp/30-20",
            "tcp/1-2-3",
            "sctp/22",
            "TCP/22",
            "tcp/22 ",
            "tcp/-1",
            "tcp/1-",
            "tcp//1",
        ] {
            assert!(text.parse::<Ports>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn overlap_is_per_transport() {
        let ports = |text: &str| text.parse::<Ports>().unwrap();
        assert!(ports("tcp/20-30").overlaps(&ports("tcp/30-40")));
        assert!(!ports("tcp/20-30").overlaps(&ports("tcp/31")));
        assert!(!ports("tcp/22").overlaps(&ports("udp/22")));
    }
}
