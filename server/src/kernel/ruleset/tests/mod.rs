#[cfg(target_endian = "little")]
mod objects;
#[cfg(target_endian = "little")]
mod rules;

use super::super::guard::{Guard, GuardMode, GuardedService, SequenceGuard, SequenceSteps};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;

/// One service, nothing else.
pub fn plain() -> Guard {
    Guard {
        server: "AAECAwQFBgcICQoLDA0ODw==".parse().unwrap(),
        mode: GuardMode::Monitored,
        enforcing: true,
        trial: None,
        services: vec![service("ssh", &["tcp/22"])],
        trusted: Vec::new(),
        listen: vec!["0.0.0.0:45123".parse().unwrap()],
        sequence: None,
        prefilter_open: false,
        blocked_gateways: Vec::new(),
    }
}

fn service(name: &str, ports: &[&str]) -> GuardedService {
    GuardedService {
        name: name.parse().unwrap(),
        ports: ports.iter().map(|port| port.parse().unwrap()).collect(),
    }
}

pub fn sequence() -> SequenceGuard {
    let steps = ["tcp/7000", "udp/8000", "tcp/300", "udp/9000"];
    SequenceGuard {
        service: "ssh".parse().unwrap(),
        steps: SequenceSteps::Fixed(steps.map(|port| port.parse().unwrap()).into()),
        step_time: Duration::from_secs(10),
        open_for: Duration::from_secs(20),
        ignored: vec!["tcp/80".parse().unwrap()],
    }
}

fn everything() -> Guard {
    Guard {
        enforcing: false,
        services: vec![
            service("ssh", &["tcp/22", "tcp/2222-2230"]),
            service("mosh", &["udp/60000-61000"]),
        ],
        trusted: vec![
            ("10.0.0.0".parse().unwrap(), 8),
            ("192.0.2.7".parse().unwrap(), 32),
            ("fd00:1::".parse().unwrap(), 49),
        ],
        listen: ["0.0.0.0:45123", "[::]:45123", "192.0.2.1:53"]
            .map(|address| address.parse().unwrap())
            .into(),
        sequence: Some(sequence()),
        blocked_gateways: vec!["192.0.2.254".parse().unwrap(), "fe80::1".parse().unwrap()],
        ..plain()
    }
}

/// As text; where it is meant to be another, run the test with GOLDEN=write.
mod text {
    use super::*;

    fn check(name: &str, golden: &str, text: &str) {
        if std::env::var_os("GOLDEN").is_some_and(|what| what == "write") {
            let directory = concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/src/kernel/ruleset/tests/golden"
            );
            std::fs::write(format!("{directory}/{name}.nft"), text).unwrap();
            return;
        }
        assert_eq!(text, golden);
    }

    #[test]
    fn plain_guard_is_this_text() {
        let golden = include_str!("golden/plain.nft");
        check("plain", golden, &ruleset(&plain()).to_string());
    }

    #[test]
    fn guard_with_everything_is_this_text() {
        let golden = include_str!("golden/everything.nft");
        check("everything", golden, &ruleset(&everything()).to_string());
    }

    #[test]
    fn rolling_sequence_is_this_text() {
        let steps = SequenceSteps::Rolling;
        let sequence = Some(SequenceGuard {
            steps,
            ..sequence()
        });
        let guard = Guard {
            sequence,
            ..plain()
        };
        let golden = include_str!("golden/rolling.nft");
        check("rolling", golden, &ruleset(&guard).to_string());
    }

    #[test]
    fn standalone_sequence_is_this_text() {
        let golden = include_str!("golden/standalone.nft");
        let text = standalone_sequence_text(&everything()).unwrap();
        check("standalone", golden, &text);
    }
}

#[test]
fn tag_tells_sequences_apart_by_what_matters() {
    let tag = sequence_tag(&sequence());
    assert_eq!(
        tag,
        "sequence-of-ssh-10s-20s-tcp7000-udp8000-tcp300-udp9000"
    );
    let others = [
        SequenceGuard {
            steps: SequenceSteps::Rolling,
            ..sequence()
        },
        SequenceGuard {
            open_for: Duration::from_secs(21),
            ..sequence()
        },
        SequenceGuard {
            step_time: Duration::from_secs(11),
            ..sequence()
        },
        SequenceGuard {
            service: "web".parse().unwrap(),
            ..sequence()
        },
    ];
    for other in others {
        assert_ne!(sequence_tag(&other), tag);
    }
    let ignored = Vec::new();
    assert_eq!(
        sequence_tag(&SequenceGuard {
            ignored,
            ..sequence()
        }),
        tag
    );
}

#[test]
fn part_is_removed_with_its_sets_and_chains() {
    let mut all = ruleset(&everything());
    assert_eq!(all.part_of("selectors"), Some(OptionalPart::Prefilter));
    assert_eq!(all.part_of("sequence"), Some(OptionalPart::Sequence));
    assert_eq!(all.part_of("guard"), None);
    all.remove(OptionalPart::Prefilter);
    all.remove(OptionalPart::Sequence);
    let without = Guard {
        listen: Vec::new(),
        ..everything()
    };
    let text = all.to_string();
    // The guard reads what a sequence has opened, also where there is none.
    assert!(text.contains("ip saddr @seq_ssh4 accept"));
    assert!(!text.contains("prefilter") && !text.contains("sequence-"));
    assert!(ruleset(&without).to_string().contains("sequence-"));
}

/// A service's sets are its name with 4 or 6 behind it: one with the name of another set would
/// give one name two meanings, and no guard could be installed.
#[test]
fn no_service_can_have_the_name_of_another_set() {
    for steps in [SequenceSteps::Rolling, sequence().steps] {
        let sequence = Some(SequenceGuard {
            steps,
            ..sequence()
        });
        let guard = Guard {
            sequence,
            enforcing: false,
            ..plain()
        };
        let sets = ruleset(&guard).sets;
        let others = sets
            .iter()
            .filter(|set| !["ssh4", "ssh6"].contains(&set.name.as_str()));
        for set in others {
            let service = set.name.strip_suffix(['4', '6']);
            let service = service.map(str::parse::<oneknock_shared::name::ServiceName>);
            assert!(!matches!(service, Some(Ok(_))), "{}", set.name);
        }
    }
}

proptest! {
    /// Whatever the services are called, and whatever sequence there is.
    #[test]
    fn no_name_is_given_twice(names in prop::collection::btree_set("[a-z][a-z0-9-]{0,15}", 1..6), rolls: bool) {
        let names: BTreeSet<String> = names;
        let services: Vec<GuardedService> = names.iter().map(|name| service(name, &["tcp/22"])).collect();
        let steps = if rolls { SequenceSteps::Rolling } else { sequence().steps };
        let opens = services[0].name;
        let sequence = Some(SequenceGuard { service: opens, steps, ..sequence() });
        let all = ruleset(&Guard { services, sequence, enforcing: false, ..plain() });
        let sets: BTreeSet<&String> = all.sets.iter().map(|set| &set.name).collect();
        prop_assert_eq!(sets.len(), all.sets.len());
        let chains: BTreeSet<&String> = all.chains.iter().map(|chain| &chain.name).collect();
        prop_assert_eq!(chains.len(), all.chains.len());
    }
}
