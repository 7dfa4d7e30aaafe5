//! What an install sends, and what it does about a refusal.

use super::super::KernelError;
use super::super::guard::{Guard, OptionalPart};
use super::super::install::{InstallAttempt, flags};
use super::super::netlink::tests::messages;
use super::super::netlink::{RefusedBatch, Subject, kind};
use super::super::plan::Plan;
use super::super::ruleset::tests::{plain, sequence};
use super::super::ruleset::{BaseHook, HookPoint, ruleset};
use super::super::state::{TableState, table_flag};
use super::NOW;
use crate::engine::Desired;

/// What an install does about a refusal.
mod of_refusals {
    use super::*;
    use nix::errno::Errno::{self, EBUSY, EEXIST, EINVAL, ENOENT, ENOMEM, EOPNOTSUPP, EPERM};

    /// Of a message of this kind about this name; over a table that is there, or not. Gives
    /// what is tried next: whether to own the table, and what is skipped.
    fn next(
        attempt: &mut InstallAttempt,
        (kind, name): (u16, &str),
        errno: Errno,
        is_there: bool,
    ) -> Result<(bool, Vec<OptionalPart>), KernelError> {
        let before = is_there.then(|| TableState::of(0, &[], &[]));
        let guard = Guard {
            sequence: Some(sequence()),
            ..plain()
        };
        let plan = Plan::new(&guard, before, 0, [].into_iter(), None, false);
        let refused = RefusedBatch {
            subject: Some(Subject {
                kind,
                name: name.into(),
                rule: 2,
            }),
            error: errno.into(),
        };
        attempt.learn(&plan, refused)?;
        let skipped = attempt.skipped.iter().map(|(part, _)| *part);
        Ok((attempt.may_own, skipped.collect()))
    }

    fn first() -> InstallAttempt {
        InstallAttempt {
            may_own: true,
            skipped: Vec::new(),
            races: 0,
        }
    }

    #[test]
    fn kernel_that_cannot_own_tables_gets_monitored_one() {
        for errno in [EOPNOTSUPP, EINVAL] {
            let table = (kind::NEW_TABLE, "oneknock");
            let next = next(&mut first(), table, errno, false).unwrap();
            assert_eq!(next, (false, vec![]));
        }
    }

    #[test]
    fn part_that_kernel_lacks_is_skipped_and_guard_itself_is_not() {
        let mut attempt = first();
        let rule = (kind::NEW_RULE, "prefilter-verdict");
        let skipped = next(&mut attempt, rule, ENOENT, false).unwrap().1;
        assert_eq!(skipped, [OptionalPart::Prefilter]);
        let set = (kind::NEW_SET, "penalty_v4");
        let skipped = next(&mut attempt, set, EOPNOTSUPP, true).unwrap().1;
        assert_eq!(skipped, [OptionalPart::Prefilter, OptionalPart::Sequence]);
        let why = attempt.skipped[0].1.to_string();
        let want = "the kernel refused rule 2 of chain prefilter-verdict: ";
        assert!(why.starts_with(want), "{why}");
        for guard in [(kind::NEW_RULE, "guard"), (kind::NEW_SET, "ssh4")] {
            let failed = next(&mut first(), guard, EOPNOTSUPP, false);
            assert!(
                matches!(failed, Err(KernelError::Refused { .. })),
                "{failed:?}"
            );
        }
        // It may be there the next time.
        let failed = next(&mut first(), rule, ENOMEM, true);
        assert!(
            matches!(failed, Err(KernelError::Refused { .. })),
            "{failed:?}"
        );
    }

    #[test]
    fn race_with_another_program_is_tried_again_three_times() {
        let mut attempt = first();
        let chain = (kind::DELETE_CHAIN, "prefilter");
        for errno in [ENOENT, EEXIST, EBUSY] {
            let next = next(&mut attempt, chain, errno, true).unwrap();
            assert_eq!(next, (true, vec![]));
        }
        assert!(next(&mut attempt, chain, ENOENT, true).is_err());
        assert!(next(&mut first(), chain, ENOENT, false).is_err());
    }

    #[test]
    fn table_of_another_process_is_said() {
        let failed = next(&mut first(), (kind::NEW_TABLE, "oneknock"), EPERM, true);
        assert!(
            matches!(failed, Err(KernelError::OwnedByAnother)),
            "{failed:?}"
        );
    }
}

mod of_plans {
    use super::*;

    const GUARD_HOOK: BaseHook = BaseHook {
        at: HookPoint::Prerouting,
        priority: -150,
    };

    /// The messages of an install: without rules that are added, and without set details.
    fn sent(guard: &Guard, before: Option<TableState>, allow: Option<&Desired>) -> Vec<String> {
        let allow = allow.map(|desired| (desired, NOW));
        let plan = Plan::new(guard, before, 0, [].into_iter(), allow, false);
        let sent = messages(plan.batch()).into_iter();
        let sent = sent.filter(|message| !message.starts_with("6 "));
        sent.map(|m| {
            m.replace(" 1=\"oneknock\"", "")
                .split(" 3=0")
                .next()
                .unwrap()
                .to_owned()
        })
        .collect()
    }

    #[test]
    fn first_install_removes_nothing() {
        let sent = sent(&plain(), None, Some(&Desired::default()));
        assert_eq!(sent[0], "0 0x401 2=00000000");
        assert!(
            sent[1..]
                .iter()
                .all(|m| m.starts_with("9 ") || m.starts_with("3 "))
        );
    }

    #[test]
    fn rules_go_first_then_sets_then_chains_that_do_not_stay() {
        let all = ruleset(&plain());
        let of = |name: &str| all.sets.iter().find(|set| set.name == name).unwrap();
        let moved = BaseHook {
            at: HookPoint::Input,
            ..GUARD_HOOK
        };
        let before = TableState::of(
            0,
            &[
                ("guard", Some(GUARD_HOOK)),
                ("prefilter", Some(moved)),
                ("service-old", None),
                ("service-ssh", None),
            ],
            &[
                ("ssh4", of("ssh4")),
                ("ssh6", of("ssh4")),
                ("old4", of("ssh4")),
            ],
        );
        let sent = sent(&plain(), Some(before), Some(&Desired::default()));
        let want = [
            "0 0x401 2=00000000",
            "8 0x1",
            "11 0x1 2=\"old4\"",
            "11 0x1 2=\"ssh6\"",
            "5 0x1 3=\"prefilter\"",
            "5 0x1 3=\"service-old\"",
            "14 0x1 2=\"ssh4\"",
            "9 0x401 2=\"grace\"",
        ];
        assert_eq!(sent[..want.len()], want);
        assert!(sent.iter().all(|m| !m.starts_with("9 0x401 2=\"ssh4\"")));
        assert!(sent.iter().any(|m| m.starts_with("9 0x401 2=\"ssh6\"")));
    }

    #[test]
    fn elements_stay_without_desired_state_and_with_same_sequence() {
        let guard = Guard {
            sequence: Some(sequence()),
            ..plain()
        };
        let all = ruleset(&guard);
        let sets: Vec<_> = all
            .sets
            .iter()
            .map(|set| (set.name.as_str(), set))
            .collect();
        let chains: Vec<_> = all
            .chains
            .iter()
            .map(|chain| (chain.name.as_str(), chain.hook))
            .collect();
        let flushed = |chains: &[_], allow: Option<&Desired>| -> Vec<String> {
            let sent = sent(&guard, Some(TableState::of(0, chains, &sets)), allow);
            let flushes = sent
                .into_iter()
                .filter_map(|m| m.strip_prefix("14 0x1 2=").map(str::to_owned));
            flushes
                .map(|name| name.trim_matches('"').to_owned())
                .collect()
        };
        let gateways = ["gateway_v4", "gateway_v6"];
        assert_eq!(flushed(&chains, None), gateways);
        let allow = [&["ssh4", "ssh6"], &gateways[..]].concat();
        assert_eq!(flushed(&chains, Some(&Desired::default())), allow);
        // Another sequence's tag.
        let of_another = &chains[..chains.len() - 1];
        let all = flushed(of_another, None);
        assert!(
            ["penalty_v4", "step1_v6", "done_v4"]
                .iter()
                .all(|set| all.contains(&(*set).to_owned()))
        );
        assert!(!all.contains(&"seq_ssh4".to_owned()) && !all.contains(&"ssh4".to_owned()));
    }

    #[test]
    fn skipped_part_is_not_sent() {
        let skipped = [OptionalPart::Prefilter].into_iter();
        let plan = Plan::new(&plain(), None, 0, skipped, None, false);
        let sent = messages(plan.batch());
        assert!(
            sent.iter()
                .all(|m| !m.contains("prefilter") && !m.contains("selectors"))
        );
    }

    #[test]
    fn flags_change_in_a_batch_of_their_own() {
        let batch = |before: u32, flags| {
            let before = Some(TableState::of(before, &[], &[]));
            Plan::new(&plain(), before, flags, [].into_iter(), None, false).flags_batch()
        };
        assert!(batch(0, 0).is_none() && batch(6, 6).is_none());
        for (before, flags) in [(1, 0), (4, 6), (5, 4)] {
            let sent = messages(batch(before, flags).unwrap());
            assert_eq!(sent, [format!("0 0x405 1=\"oneknock\" 2=0000000{flags}")]);
        }
    }

    #[test]
    fn table_is_owned_where_it_can_be_and_stays_what_it_was() {
        let of = |flags| TableState::of(flags, &[], &[]);
        let (owner, persist) = (table_flag::OWNER, table_flag::PERSIST);
        let both = owner | persist;
        assert_eq!(flags(None, true, false), both);
        assert_eq!(flags(None, false, false), 0);
        for dormant in [0, table_flag::DORMANT] {
            assert_eq!(flags(Some(&of(dormant)), true, false), 0);
            assert_eq!(flags(Some(&of(persist | dormant)), true, false), both);
            assert_eq!(flags(Some(&of(persist | dormant)), false, false), persist);
            assert_eq!(flags(Some(&of(both)), false, true), both);
        }
    }
}
