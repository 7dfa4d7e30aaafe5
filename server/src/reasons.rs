//! Why a packet of a known key opened nothing, in words for people, and what to do: for
//! the daemon's `--help` and for whoever reads its log.

/// What became of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// Too old, too new, or seen before.
    Ignored,
    /// Refused.
    Refused,
    /// Accepted, and then not granted because this machine could not.
    Failed,
}

/// A reason as the log writes it, and what it means.
#[derive(Debug)]
pub struct Reason {
    /// What became of the packet.
    pub of: Of,
    /// The word after `reason=`.
    pub word: &'static str,
    /// What happened.
    pub means: &'static str,
    /// What to do about it.
    pub act: &'static str,
}

const fn ignored(word: &'static str, means: &'static str, act: &'static str) -> Reason {
    let of = Of::Ignored;
    Reason {
        of,
        word,
        means,
        act,
    }
}

const fn refused(word: &'static str, means: &'static str, act: &'static str) -> Reason {
    let of = Of::Refused;
    Reason {
        of,
        word,
        means,
        act,
    }
}

const fn failed(word: &'static str, means: &'static str, act: &'static str) -> Reason {
    let of = Of::Failed;
    Reason {
        of,
        word,
        means,
        act,
    }
}

/// All of them.
pub const ALL: &[Reason] = &[
    ignored(
        "stale",
        "the client's clock and this machine's are further apart than skew (behind= or ahead= says by how many seconds), or an old packet was sent again",
        "set the clock that is wrong",
    ),
    ignored(
        "below-floor",
        "the packet is not later than the time up to which this server takes everything for accepted: its machine stopped without warning a moment ago, its state was begun anew, or an old packet was sent again",
        "knock again; after a crash it takes up to 5 seconds, after a new state as long as skew in oneknockd.toml, and longer for a client whose clock is behind",
    ),
    ignored(
        "replayed",
        "these very bytes were judged before: the network doubled them, or somebody sent them again",
        "nothing; one packet is worth one knock",
    ),
    refused(
        "malformed",
        "the key is right, but the packet is not as the protocol wants it",
        "update the client",
    ),
    refused(
        "not-yet-valid",
        "the key's not_before is still to come",
        "wait, or change it in the key's file",
    ),
    refused(
        "expired",
        "this secret of the key has ended: its not_after has passed, or a newer one has taken its place",
        "import the key's newest invitation on the client (oneknockctl key invite), or rotate the key",
    ),
    refused(
        "too-many-knocks",
        "the key knocked more often in a minute than its knocks_per_minute",
        "wait a minute, or raise it in the key's file",
    ),
    refused(
        "no-such-service",
        "oneknockd.toml has no such service",
        "import a fresh invitation on the client (oneknockctl key invite)",
    ),
    refused(
        "service-not-allowed",
        "the key may not open this service",
        "add it to services in the key's file",
    ),
    refused(
        "address-not-signed",
        "the key has signed_address = true and the packet signs no address: the client is behind NAT, or its invitation is older than that line",
        "import a fresh invitation on the client, or set it to false",
    ),
    refused(
        "address-not-source",
        "the packet came from another address than the one that it signs: there is a NAT between, or somebody else sent it",
        "set signed_address = false and import a fresh invitation, or set admit_others = true, in the key's file",
    ),
    refused(
        "address-unusable",
        "a link-local, loopback or multicast address is no one host's",
        "knock from an address that is routed here",
    ),
    refused(
        "gateway",
        "the source is this machine's default gateway, behind which is everybody: the router rewrites the sources of what it passes on",
        "let the router keep them, or, knowing what that opens, set admit_gateway = true",
    ),
    refused(
        "closed-since",
        "the key closed this door with a later packet",
        "knock again",
    ),
    refused(
        "too-many-grants",
        "the key has as many live grants as its file allows",
        "wait until one ends, close one, or raise grants in the key's file",
    ),
    failed(
        "not-recorded",
        "the state could not be written, so nothing was opened",
        "look at the disk that holds the state",
    ),
    failed(
        "firewall",
        "the kernel did not take the change, so nothing was opened",
        "what follows in the log says why",
    ),
];

/// The reason of that word.
#[must_use]
pub fn of(word: &str) -> Option<&'static Reason> {
    ALL.iter().find(|reason| reason.word == word)
}

const WIDTH: usize = 78;
const INDENT: &str = "          ";

/// The table for `--help`: each word, and below it what it means and what to do.
#[must_use]
pub fn table() -> String {
    let mut text = "What reason=… in the log means, and what to do:\n".to_owned();
    for Reason {
        word, means, act, ..
    } in ALL
    {
        text.push_str("\n  ");
        text.push_str(word);
        wrap(&mut text, means);
        wrap(&mut text, &format!("do: {act}"));
    }
    text
}

fn wrap(text: &mut String, words: &str) {
    let mut column = WIDTH;
    for word in words.split(' ') {
        if column + 1 + word.len() > WIDTH {
            text.push('\n');
            text.push_str(INDENT);
            column = INDENT.len();
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::Refusal;
    use oneknock_shared::knock::Malformed;

    #[test]
    fn every_refusal_is_explained() {
        let malformed = Refusal::Malformed(Malformed::Slot);
        let all = [
            malformed,
            Refusal::NotYetValid,
            Refusal::Expired,
            Refusal::TooManyKnocks,
            Refusal::NoSuchService,
            Refusal::ServiceNotAllowed,
            Refusal::AddressNotSigned,
            Refusal::AddressNotSource,
            Refusal::AddressUnusable,
            Refusal::Gateway,
            Refusal::ClosedSince,
            Refusal::TooManyGrants,
        ];
        for refusal in all {
            // Another variant must be added above, and to the table.
            match refusal {
                Refusal::Malformed(_)
                | Refusal::NotYetValid
                | Refusal::Expired
                | Refusal::TooManyKnocks
                | Refusal::NoSuchService
                | Refusal::ServiceNotAllowed
                | Refusal::AddressNotSigned
                | Refusal::AddressNotSource
                | Refusal::AddressUnusable
                | Refusal::Gateway
                | Refusal::ClosedSince
                | Refusal::TooManyGrants => {}
            }
            assert!(of(refusal.word()).is_some(), "{refusal:?}");
        }
    }

    #[test]
    fn the_table_fits_a_terminal() {
        let table = table();
        assert!(table.lines().all(|line| line.chars().count() <= WIDTH));
        assert!(
            ALL.iter()
                .all(|r| table.contains(&format!("  {}\n", r.word)))
        );
    }
}
