//! A key file: who holds the key, what it may do, and its generations.

use super::ConfigError;
use super::reader::{Parsed, Reader, Section};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_shared::secret::{NoRandomness, Secret};
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};
use zeroize::Zeroizing;

const SECOND: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// Live grants that a key may have where its file does not say.
const GRANTS: u32 = 16;
/// Knocks a minute that are accepted from a key where its file does not say.
const KNOCKS_PER_MINUTE: u32 = 60;

/// A key: one client's right to open services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its name: its file's, without `.toml`.
    pub name: KeyName,
    /// What it may do.
    pub policy: Policy,
    /// Its secrets; one or two, no number twice.
    pub generations: Vec<Generation>,
}

impl Key {
    /// Tells what a key's file says from what another one, or an earlier one, says: the same for
    /// the same policy and generations. Nothing of the secrets can be told from it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let text = key_text(&self.policy, &self.generations);
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        let first = digest.as_ref().iter().take(12);
        first.fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// What a key may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The services it may open; at least one.
    pub services: Vec<ServiceName>,
    /// The longest time it may open any of them; the service's own limit holds too.
    pub max_duration: Option<Duration>,
    /// Whether the address to admit must be signed into the packet.
    pub require_signed_address: bool,
    /// Whether it may admit an address other than the packet's source.
    pub allow_other_addresses: bool,
    /// Live grants at once, 1 to 1,000,000: one for each service and address.
    pub max_grants: u32,
    /// Knocks a minute that are accepted, 1 to 10,000,000.
    pub knocks_per_minute: u32,
}

impl Policy {
    /// The policy of a new key for these services.
    #[must_use]
    pub fn new(services: Vec<ServiceName>) -> Self {
        Self {
            services,
            max_duration: None,
            require_signed_address: false,
            allow_other_addresses: false,
            max_grants: GRANTS,
            knocks_per_minute: KNOCKS_PER_MINUTE,
        }
    }
}

/// One secret of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Counted from 1.
    pub number: u32,
    /// The secret.
    pub secret: Secret,
    /// Valid from then on; always, where there is none.
    pub not_before: Option<Timestamp>,
    /// Valid up to and including then; for ever, where there is none.
    pub not_after: Option<Timestamp>,
    /// Valid up to and including then, since a rotation has put a newer one beside it.
    pub overlap_until: Option<Timestamp>,
    /// When it was made, where its maker noted it.
    pub made: Option<Timestamp>,
}

impl Generation {
    /// A new one that is valid from now on without end.
    pub fn generate(number: u32, now: Timestamp) -> Result<Self, NoRandomness> {
        Ok(Self {
            number,
            secret: Secret::generate()?,
            not_before: None,
            not_after: None,
            overlap_until: None,
            made: Some(now),
        })
    }

    /// Up to when it is valid: its own end or its rotation's, whichever comes first.
    #[must_use]
    pub fn end(&self) -> Option<Timestamp> {
        let ends = self.not_after.into_iter().chain(self.overlap_until);
        ends.min()
    }
}

/// Reads the file's text; a name without a meaning in it is an error.
pub fn parse(file: &Path, name: KeyName, text: &str) -> Result<Key, Vec<ConfigError>> {
    read(file, name, text)?.strict()
}

/// Reads the file's text.
pub fn read(file: &Path, name: KeyName, text: &str) -> Result<Parsed<Key>, Vec<ConfigError>> {
    Reader::read(file, text, |file| {
        let services = file.list("services", "[\"ssh\"]");
        // Where the key is not there, the service's limit alone holds.
        let max_duration = file.duration_or("max_duration", SECOND..=LONGEST, LONGEST);
        let require_signed_address = file.flag("require_signed_address");
        let allow_other_addresses = file.flag("allow_other_addresses");
        let grants = file.number_or("max_grants", 1..=1_000_000, GRANTS);
        let knocks = file.number_or("knocks_per_minute", 1..=10_000_000, KNOCKS_PER_MINUTE);
        let generations = file.tables("generation", generation);
        if let Some(generations) = &generations {
            check_numbers(file, generations);
        }
        Some(Key {
            name,
            policy: Policy {
                services: services?,
                max_duration: Some(max_duration?).filter(|&max| max < LONGEST),
                require_signed_address: require_signed_address?,
                allow_other_addresses: allow_other_addresses?,
                max_grants: grants?,
                knocks_per_minute: knocks?,
            },
            generations: generations?,
        })
    })
}

fn generation(section: &mut Section<'_, '_>) -> Option<Generation> {
    let number = section.number("number", 1..=u32::MAX, "1");
    let secret = section.text("secret", "\"(what oneknockctl key add wrote)\"");
    let not_before = section.time("not_before");
    let not_after = section.time("not_after");
    let overlap_until = section.time("overlap_until");
    let made = section.time("made");
    if let (Some(Some(first)), Some(Some(last))) = (not_before, not_after)
        && first > last
    {
        section.note("not_after", "must not be before not_before");
    }
    Some(Generation {
        number: number?,
        secret: secret?,
        not_before: not_before?,
        not_after: not_after?,
        overlap_until: overlap_until?,
        made: made?,
    })
}

/// How many generations a key can have: the current one and the previous one.
const MOST_GENERATIONS: usize = 2;

fn check_numbers(file: &Section<'_, '_>, generations: &[Generation]) {
    let count = generations.len();
    if count > MOST_GENERATIONS {
        let what = format!(
            "there are {count}, and at most {MOST_GENERATIONS} are possible: remove all [[generation]] but the two with the highest numbers"
        );
        file.note("generation", what);
    }
    for (at, generation) in generations.iter().enumerate() {
        if generations[..at]
            .iter()
            .any(|g| g.number == generation.number)
        {
            file.note(
                "generation",
                format!("number {} is there twice", generation.number),
            );
        }
    }
}

/// The text of a key's file, which [`parse`] reads back as it is. Wiped when dropped.
#[must_use]
pub fn key_text(policy: &Policy, generations: &[Generation]) -> Zeroizing<String> {
    let services: Vec<String> = policy.services.iter().map(|s| format!("\"{s}\"")).collect();
    let longest = policy.max_duration.map_or(String::new(), |longest| {
        let longest = humantime::format_duration(longest);
        format!("max_duration = \"{longest}\"\n")
    });
    let mut text = Zeroizing::new(String::with_capacity(1024 + 256 * generations.len()));
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "\
# What this key may open, and for how long at most.
services = [{}]
{longest}# Demand that the address to admit is signed into the packet.
require_signed_address = {}
# Let it admit an address other than the one that it knocks from.
allow_other_addresses = {}
# Live grants at once, and accepted knocks a minute.
max_grants = {}
knocks_per_minute = {}
",
        services.join(", "),
        policy.require_signed_address,
        policy.allow_other_addresses,
        policy.max_grants,
        policy.knocks_per_minute,
    );
    for generation in generations {
        let secret = generation.secret.to_base64();
        text.push_str("\n[[generation]]\n");
        let _ = writeln!(text, "number = {}", generation.number);
        text.push_str("secret = \"");
        text.push_str(&secret);
        text.push_str("\"\n");
        for (name, time) in [
            ("not_before", generation.not_before),
            ("not_after", generation.not_after),
            ("overlap_until", generation.overlap_until),
            ("made", generation.made),
        ] {
            if let Some(time) = time {
                let time = UNIX_EPOCH + Duration::from_millis(time.0);
                let time = humantime::format_rfc3339_millis(time);
                let _ = writeln!(text, "{name} = {time}");
            }
        }
    }
    text
}
