//! Rules as expressions.

use super::super::*;
use super::{everything, plain, sequence};
use crate::kernel::guard::{Guard, SequenceGuard, SequenceSteps};
use crate::kernel::netlink::{Batch, tests::messages};

const TO_TCP: [&str; 2] = [
    r#""meta" 2[1=00000008 2=00000010]"#,
    r#""cmp" 2[1=00000008 2=00000000 3[1=06]]"#,
];
const OF_V4: [&str; 2] = [
    r#""meta" 2[1=00000008 2=0000000f]"#,
    r#""cmp" 2[1=00000008 2=00000000 3[1=02]]"#,
];

#[test]
fn verdicts_are_immediate() {
    let verdicts = [
        ("drop", "1=00000000"),
        ("accept", "1=00000001"),
        ("return", "1=fffffffb"),
        ("jump there", "1=fffffffd 2=\"there\""),
        ("goto there", "1=fffffffc 2=\"there\""),
    ];
    for (verdict, code) in verdicts {
        let want = format!("\"immediate\" 2[1=00000000 2[2[{code}]]]");
        assert_eq!(expressions(verdict), [want]);
    }
}

#[test]
fn statements_without_fields_are_one_expression() {
    let statements = [
        (
            "counter",
            r#""counter" 2[1=0000000000000000 2=0000000000000000]"#,
        ),
        ("notrack", r#""notrack""#),
        (
            "limit rate 10/second burst 20 packets",
            r#""limit" 2[1=000000000000000a 2=0000000000000001 3=00000014 4=00000000 5=00000000]"#,
        ),
    ];
    for (statement, want) in statements {
        assert_eq!(expressions(statement), [want]);
    }
}

#[test]
fn port_requires_its_transport_once() {
    let load = r#""payload" 2[1=00000008 2=00000002 3=00000002 4=00000002]"#;
    let want = [
        &TO_TCP[..],
        &[load, r#""cmp" 2[1=00000008 2=00000000 3[1=0016]]"#],
        &[load, r#""cmp" 2[1=00000008 2=00000005 3[1=001e]]"#],
        &[r#""cmp" 2[1=00000008 2=00000003 3[1=0028]]"#],
    ];
    assert_eq!(expressions("tcp dport 22 tcp dport 30-40"), want.concat());
    for (rule, count) in [
        ("tcp dport 22 udp dport 53", 8),
        ("meta l4proto tcp tcp dport 22", 4),
        ("meta l4proto != udp tcp dport 22", 6),
    ] {
        assert_eq!(expressions(rule).len(), count, "{rule}");
    }
}

#[test]
fn network_is_whole_bytes_or_mask() {
    let network = |of: &str| expressions(of)[2..].to_vec();
    let whole = [
        r#""payload" 2[1=00000008 2=00000001 3=0000000c 4=00000002]"#,
        r#""cmp" 2[1=00000008 2=00000000 3[1=c0a8]]"#,
    ];
    assert_eq!(network("ip saddr 192.168.0.0/16"), whole);
    let masked = [
        r#""payload" 2[1=00000008 2=00000001 3=0000000c 4=00000004]"#,
        r#""bitwise" 2[1=00000008 2=00000008 3=00000004 4[1=ffc00000] 5[1=00000000]]"#,
        r#""cmp" 2[1=00000008 2=00000000 3[1=64400000]]"#,
    ];
    assert_eq!(network("ip saddr 100.64.0.0/10"), masked);
    let one = network("ip6 saddr 2001:db8::1");
    assert_eq!(one.len(), 2);
    assert!(one[0].ends_with("3=00000008 4=00000010]"), "{}", one[0]);
}

#[test]
fn flags_and_states_are_masked() {
    let flags = "tcp flags & (syn | ack) != syn";
    let want = [
        r#""payload" 2[1=00000008 2=00000002 3=0000000d 4=00000001]"#,
        r#""bitwise" 2[1=00000008 2=00000008 3=00000001 4[1=12] 5[1=00]]"#,
        r#""cmp" 2[1=00000008 2=00000001 3[1=02]]"#,
    ];
    assert_eq!(expressions(flags), [&TO_TCP[..], &want].concat());
    let load = r#""ct" 2[1=00000008 2=00000000]"#;
    let established = [
        load,
        r#""bitwise" 2[1=00000008 2=00000008 3=00000004 4[1=02000000] 5[1=00000000]]"#,
        r#""cmp" 2[1=00000008 2=00000001 3[1=00000000]]"#,
    ];
    assert_eq!(expressions("ct state established"), established);
    let not_new = [load, r#""cmp" 2[1=00000008 2=00000001 3[1=08000000]]"#];
    assert_eq!(expressions("ct state != new"), not_new);
}

#[test]
fn other_fields_load_from_where_they_are() {
    let local = "fib daddr type != local";
    let want = [
        r#""fib" 2[1=00000008 2=00000003 3=00000002]"#,
        r#""cmp" 2[1=00000008 2=00000001 3[1=02000000]]"#,
    ];
    assert_eq!(expressions(local), want);
    let lo = "iifname \"lo\"";
    let want = [
        r#""meta" 2[1=00000008 2=00000006]"#,
        r#""cmp" 2[1=00000008 2=00000000 3[1=6c6f0000000000000000000000000000]]"#,
    ];
    assert_eq!(expressions(lo), want);
}

#[test]
fn key_of_several_fields_takes_registers_in_a_row() {
    let v4 = [
        r#""payload" 2[1=00000008 2=00000001 3=0000000c 4=00000004]"#,
        r#""meta" 2[1=00000009 2=00000010]"#,
        r#""payload" 2[1=0000000a 2=00000002 3=00000000 4=00000002]"#,
        r#""payload" 2[1=0000000b 2=00000002 3=00000002 4=00000002]"#,
        r#""lookup" 2[1="set" 2=00000008]"#,
    ];
    let found = expressions("ip saddr . meta l4proto . th sport . th dport @set");
    assert_eq!(found, [&OF_V4[..], &v4].concat());
    let v6 = expressions("ip6 saddr . meta l4proto . th sport . th dport != @set");
    let registers: Vec<&str> = v6[2..6]
        .iter()
        .map(|e| e.split("2[1=").nth(1).unwrap())
        .collect();
    assert!(registers[0].starts_with("00000008"));
    assert!(registers[1].starts_with("0000000c"));
    assert!(registers[3].starts_with("0000000e"));
    assert_eq!(v6[6], r#""lookup" 2[1="set" 2=00000008 5=00000001]"#);
}

#[test]
fn updates_and_marks_use_their_sets() {
    let network = "ip6 saddr & ffff:ffff:ffff:ffff::";
    let found = expressions(&format!("update @set {{ {network} timeout 40s }}"));
    let mask = r#""bitwise" 2[1=00000008 2=00000008 3=00000010 4[1=ffffffffffffffff0000000000000000] 5[1=00000000000000000000000000000000]]"#;
    assert_eq!(found[3], mask);
    let dynset = r#""dynset" 2[1="set" 3=00000001 4=00000008 6=0000000000009c40]"#;
    assert_eq!(found[4], dynset);
    let by_port = expressions("meta mark set tcp dport map @map");
    let want = [
        r#""lookup" 2[1="map" 2=00000008 3=00000008]"#,
        r#""meta" 2[2=00000003 3=00000008]"#,
    ];
    assert_eq!(by_port[3..], want);
}

#[test]
fn rule_with_a_word_that_is_not_known_is_one_that_no_kernel_knows() {
    for rule in [
        "log",
        "ip saddr",
        "ip saddr nobody accept",
        "ip daddr . th dport 22 accept",
        "tcp dport 22 acept",
        "tcp dport 1-x drop",
        "ip saddr 192.0.2.0/x accept",
        "tcp flags & (syn | none) == 0 accept",
        "tcp flags & (syn) = 0 accept",
        "ct state untracked",
        "update set { ip saddr timeout 1s }",
        "update @set { ip saddr timeout 1m }",
        "limit rate 10/minute burst 20 packets",
        "jump",
    ] {
        assert!(is_refused(rule), "{rule}");
    }
}

/// Whether the last expression is one whose name is the whole rule.
fn is_refused(rule: &str) -> bool {
    let name = if rule.contains(' ') {
        let bytes = rule.bytes().map(|byte| format!("{byte:02x}"));
        format!("{}00", bytes.collect::<String>())
    } else {
        format!("{rule:?}")
    };
    expressions(rule).pop() == Some(format!("{name} 2[]"))
}

/// Whatever the guard is, its rules are translated.
#[test]
fn rules_of_every_guard_are_known() {
    let rolling = SequenceGuard {
        steps: SequenceSteps::Rolling,
        ..sequence()
    };
    let rolling = Guard {
        sequence: Some(rolling),
        ..everything()
    };
    let open = Guard {
        prefilter_open: true,
        ..plain()
    };
    for guard in [plain(), everything(), rolling, open] {
        for rule in ruleset(&guard).chains.iter().flat_map(|chain| &chain.rules) {
            assert!(!is_refused(rule), "{rule}");
        }
    }
}

/// A rule's expressions: each with its name and its attributes by number.
fn expressions(rule: &str) -> Vec<String> {
    let mut batch = Batch::new();
    add_rule(&mut batch, "one", "two", rule);
    let message = messages(batch).remove(0);
    let (head, list) = message.split_once(" 4[").unwrap();
    // Request, acknowledge, create, append.
    assert_eq!(head, "6 0xc05 1=\"one\" 2=\"two\"");
    let list = list.strip_suffix("]").unwrap();
    let each = list.split("1[1=").filter(|one| !one.is_empty());
    each.map(|one| one.trim_end().strip_suffix("]").unwrap().to_owned())
        .collect()
}
