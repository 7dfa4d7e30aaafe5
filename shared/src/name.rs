//! The grammar of names: services, keys and doors, hosts.
//!
//! Names travel into file names, ssh's arguments and configuration, and nftables
//! sets. They are checked once, where they enter; a value of one of these types is
//! safe in all of those places.

use std::fmt;
use std::str::FromStr;

/// Why a text is not a name. The message says what the grammar wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// The text is not a service's name.
    #[error(
        "{0:?} is not a service name: a lower-case letter, then up to 15 of a-z, 0-9 and \"-\""
    )]
    Service(String),
    /// The text is not a key's or a door's name.
    #[error(
        "{0:?} is not a name: a letter or digit, then up to 63 of letters, digits, \".\", \"_\" and \"-\""
    )]
    Key(String),
    /// The text is not a host.
    #[error(
        "{0:?} is not a host: a DNS name or an IP address, of letters, digits, \".\", \":\" and \"-\", at most 253, not beginning with \"-\" or \".\""
    )]
    Host(String),
}

/// A service's name: `[a-z][a-z0-9-]{0,15}`, 1 to 16 bytes.
///
/// Kept as the 16 zero-padded bytes that the packet carries; needs no allocation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName([u8; Self::LEN]);

impl ServiceName {
    /// Bytes of the field in a request.
    pub const LEN: usize = 16;

    /// Reads the packet's field. `None` unless it is a well-formed name followed by
    /// zero bytes only; the all-zero field is not a name.
    #[must_use]
    pub fn from_field(field: [u8; Self::LEN]) -> Option<Self> {
        let end = field.iter().position(|&b| b == 0).unwrap_or(Self::LEN);
        let (text, padding) = field.split_at(end);
        let (first, rest) = text.split_first()?;
        let tail = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        let good =
            first.is_ascii_lowercase() && rest.iter().all(tail) && padding.iter().all(|&b| b == 0);
        good.then_some(Self(field))
    }

    /// The packet's field: the name, zero-padded to 16 bytes.
    #[must_use]
    pub fn field(&self) -> [u8; Self::LEN] {
        self.0
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|&b| b == 0).unwrap_or(Self::LEN);
        // The constructor lets ASCII only in, so the fallback is never taken.
        str::from_utf8(&self.0[..end]).unwrap_or_default()
    }
}

impl FromStr for ServiceName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = || BadName::Service(text.into());
        let mut field = [0; Self::LEN];
        field
            .get_mut(..text.len())
            .ok_or_else(bad)?
            .copy_from_slice(text.as_bytes());
        if text.contains('\0') {
            return Err(bad());
        }
        Self::from_field(field).ok_or_else(bad)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident, $bad:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(BadName::$bad(text.into()))
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    };
}

text_name!(
    /// The name of a key or a door: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
    ///
    /// Never `.`, `..`, an option, or a path: it can stand in a file name.
    KeyName,
    Key,
    |text| text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
);

text_name!(
    /// A host: a DNS name or an IP literal, `[A-Za-z0-9.:-]`, 1 to 253 bytes, beginning
    /// with a letter, a digit or a colon.
    ///
    /// Never an option, never two words: it can stand in `ssh_config` and in arguments.
    Host,
    Host,
    |text| text.len() <= 253
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == ':')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".:-".contains(&b))
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_names_follow_the_grammar() {
        for good in ["a", "ssh", "a-16-byte-name-x", "x--", "z9"] {
            assert_eq!(good.parse::<ServiceName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "SSH",
            "1a",
            "-a",
            "a_b",
            "a.b",
            "a b",
            "a\0",
            "a\0b",
            "seventeen-letters",
            "ä",
        ] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn key_names_are_safe_as_file_names_and_arguments() {
        for good in ["a", "9", "laptop", "my.laptop-2_x", &"a".repeat(64)] {
            assert!(good.parse::<KeyName>().is_ok(), "{good:?}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".x",
            "-x",
            "_x",
            "a/b",
            "a b",
            "a\n",
            "ä",
            &"a".repeat(65),
        ] {
            assert!(bad.parse::<KeyName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hosts_are_safe_in_ssh_config_and_arguments() {
        for good in ["home.example.org", "192.0.2.1", "2001:db8::7", "::1", "a-b"] {
            assert!(good.parse::<Host>().is_ok(), "{good:?}");
        }
        for bad in [
            "",
            "-oProxyCommand=x",
            ".x",
            "a b",
            "a\nb",
            "a%b",
            "a'b",
            "[::1]",
            &"a".repeat(254),
        ] {
            assert!(bad.parse::<Host>().is_err(), "{bad:?}");
        }
    }
}
