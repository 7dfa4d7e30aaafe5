//! What each reason means, and what to do: for the daemon's `--help` and `oneknockctl log`.

use crate::engine::{Reason, ReasonKind};
use oneknock_shared::knock::{Malformed, Timestamp};

/// A reason, and what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explained {
    /// What became of the packet.
    pub kind: ReasonKind,
    /// The word after `reason=` in the log.
    pub name: &'static str,
    /// What happened.
    pub means: &'static str,
    /// What to do about it.
    pub act: &'static str,
}

/// Every reason; [`explain`] does not compile where one has no explanation.
const REASONS: [Reason; 16] = [
    Reason::ClockSkew {
        at: Timestamp(0),
        now: Timestamp(0),
    },
    Reason::ReplayFloor,
    Reason::Replayed,
    Reason::Malformed(Malformed::Slot),
    Reason::NotYetValid,
    Reason::Expired,
    Reason::RateLimited,
    Reason::NoSuchService,
    Reason::ServiceNotAllowed,
    Reason::AddressNotSigned,
    Reason::AddressNotSource,
    Reason::AddressUnusable,
    Reason::SourceIsGateway,
    Reason::SupersededByClose,
    Reason::GrantLimit,
    Reason::StoreError,
];

/// Every reason with its explanation, in the order of the checks.
pub fn all() -> impl Iterator<Item = Explained> {
    REASONS.into_iter().map(explain)
}

/// The reason of that name.
#[must_use]
pub fn of(name: &str) -> Option<Explained> {
    all().find(|reason| reason.name == name)
}

/// What a reason means, and what to do.
#[must_use]
pub fn explain(reason: Reason) -> Explained {
    let (means, act) = match reason {
        Reason::ClockSkew { .. } => (
            "the client's clock and this machine's are further apart than skew (behind= or ahead= says by how many seconds), or an old packet was sent again",
            "set the clock that is wrong",
        ),
        Reason::ReplayFloor => (
            "the packet is older than the replay floor: the server crashed a moment ago, its state was reset, or an old packet was sent again",
            "knock again; after a crash it takes up to 5 seconds, after a new state as long as skew in oneknockd.toml, and longer for a client whose clock is behind",
        ),
        Reason::Replayed => (
            "this packet was accepted or refused before: the network duplicated it, or it was captured and sent again",
            "nothing; a packet is accepted once",
        ),
        Reason::Malformed(_) => (
            "the packet is authentic, and violates the protocol",
            "update the client",
        ),
        Reason::NotYetValid => (
            "the key's not_before has not passed yet",
            "wait, or change it in the key's file",
        ),
        Reason::Expired => (
            "this generation of the key has expired: its not_after has passed, or a newer one has replaced it",
            "import the key's newest invitation on the client (oneknockctl key invite), or rotate the key",
        ),
        Reason::RateLimited => (
            "the key knocked more often in a minute than its knocks_per_minute",
            "wait a minute, or raise it in the key's file",
        ),
        Reason::NoSuchService => (
            "oneknockd.toml has no such service",
            "import a new invitation on the client (oneknockctl key invite)",
        ),
        Reason::ServiceNotAllowed => (
            "the key may not open this service",
            "add it to services in the key's file",
        ),
        Reason::AddressNotSigned => (
            "the key has require_signed_address = true and the packet signs no address: the client is behind NAT, or its invitation is older than that line",
            "import a new invitation on the client, or set it to false",
        ),
        Reason::AddressNotSource => (
            "the packet came from another address than the one that it signs: there is a NAT between, or another host sent it",
            "set require_signed_address = false and import a new invitation, or set allow_other_addresses = true, in the key's file",
        ),
        Reason::AddressUnusable => (
            "a link-local, loopback or multicast address identifies no host",
            "knock from an address that is routed here",
        ),
        Reason::SourceIsGateway => (
            "the source is this machine's default gateway, whose grant would be everyone's: the router rewrites the sources of what it forwards",
            "let the router keep them, or set allow_gateway = true if the grant may be everyone's",
        ),
        Reason::SupersededByClose => (
            "the key closed this service for this address with a later packet",
            "knock again",
        ),
        Reason::GrantLimit => (
            "the key has as many live grants as its file allows",
            "wait until one expires, close one, or raise max_grants in the key's file",
        ),
        Reason::StoreError => (
            "the state could not be written, so nothing was opened",
            "look at the disk that holds the state",
        ),
    };
    Explained {
        kind: reason.kind(),
        name: reason.name(),
        means,
        act,
    }
}

/// The width of the table, in columns.
const WIDTH: usize = 78;

/// The table for `--help`: each name, and below it what it means and what to do.
#[must_use]
pub fn table() -> String {
    let options = textwrap::Options::new(WIDTH)
        .initial_indent("          ")
        .subsequent_indent("          ");
    let mut text = "Reasons of denied knocks, and what to do:\n".to_owned();
    for reason in all() {
        let what = textwrap::fill(reason.means, &options);
        let act = textwrap::fill(&format!("hint: {}", reason.act), &options);
        text = format!("{text}\n  {}\n{what}\n{act}", reason.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_is_found_by_its_name() {
        for reason in all() {
            assert_eq!(of(reason.name), Some(reason));
        }
        assert_eq!(of("nothing"), None);
    }

    #[test]
    fn table_fits_a_terminal() {
        assert!(table().lines().all(|line| line.chars().count() <= WIDTH));
    }
}
