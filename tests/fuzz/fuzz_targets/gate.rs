//! A gate under a stream of datagrams and times: it never panics, accepts nothing twice
//! and nothing that the key did not make, and junk leaves nothing behind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oneknock_fuzz::{SECRET, forge, keys, server};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::packet::Packet;
use oneknockd::config::{Config, Generation, Key, Policy, Service, Settings};
use oneknockd::gate::{Gate, Now, Verdict};
use std::collections::HashSet;
use std::time::Duration;

fn settings() -> Settings {
    let mut config = Config::new(
        "home".parse().expect("a name"),
        "home.test".parse().expect("a host"),
        45123,
        server(),
        "/nowhere".into(),
    );
    for (name, port) in [("ssh", "tcp/22"), ("web", "tcp/443")] {
        let ports = vec![port.parse().expect("a port")];
        config
            .services
            .push(Service::new(name.parse().expect("a name"), ports));
    }
    let mut policy = Policy::new(vec!["ssh".parse().expect("a name")]);
    policy.grants = 3;
    let key = Key {
        name: "laptop".parse().expect("a name"),
        policy,
        generations: vec![Generation {
            number: 1,
            secret: SECRET.parse().expect("a secret"),
            made: None,
            not_before: None,
            not_after: None,
            overlap_until: None,
        }],
    };
    Settings {
        config,
        keys: vec![key],
    }
}

fuzz_target!(|data: &[u8]| {
    let (settings, keys) = (settings(), keys());
    let mut wall: u64 = 1_800_000_000_000;
    let mut mono = Duration::from_secs(1000);
    let now = |wall, mono| Now {
        wall: Timestamp(wall),
        mono,
    };
    let mut gate = Gate::new(&settings, now(wall, mono));
    let mut accepted = HashSet::new();
    let mut sent: Vec<[u8; 112]> = Vec::new();
    let mut rest = data;
    while let Some((&[what, a, b], after)) = rest.split_first_chunk::<3>() {
        rest = after;
        let amount = u64::from(u16::from_be_bytes([a, b]));
        let packet: Vec<u8> = match what % 8 {
            // Time goes on; the wall clock jumps either way.
            0 => {
                wall = wall.saturating_add(amount);
                mono += Duration::from_millis(amount);
                gate.tick(now(wall, mono));
                continue;
            }
            1 => {
                let far = amount
                    .saturating_mul(amount)
                    .saturating_mul(1 + u64::from(what));
                wall = if what & 8 == 0 {
                    wall.saturating_add(far)
                } else {
                    wall.saturating_sub(far)
                };
                continue;
            }
            // A start after a kill.
            2 => {
                let memory = gate.memory();
                gate = Gate::new(&settings, now(wall, mono));
                gate.restore(&memory);
                gate.resume(now(wall, mono), &memory.claims);
                continue;
            }
            // Something that was sent before, perhaps changed.
            3 if !sent.is_empty() => sent[usize::from(a) % sent.len()].to_vec(),
            4 if !sent.is_empty() => {
                let mut changed = sent[usize::from(a) % sent.len()];
                changed[usize::from(b) % 112] ^= what | 1;
                changed.to_vec()
            }
            // Junk of any length.
            5 => {
                let end = usize::from(b).min(rest.len());
                let (junk, after) = rest.split_at(end);
                rest = after;
                junk.to_vec()
            }
            // Something that the key's holder has sealed, well or not.
            _ => {
                let stamp = wall.saturating_add(amount).saturating_sub(32_768);
                let mut plain = [0; 44];
                plain[0] = 1;
                plain[1] = (what >> 4) & 1;
                plain[4..12].copy_from_slice(&stamp.to_be_bytes());
                plain[28..31].copy_from_slice(b"ssh");
                let end = rest.len().min(2);
                let (edit, after) = rest.split_at(end);
                rest = after;
                if let &[at, value] = edit {
                    plain[usize::from(at) % 44] ^= value;
                }
                let nonce = std::array::from_fn(|i| [a, b, what][i % 3]);
                let packet = forge(&plain, stamp / 60_000, nonce);
                sent.push(packet);
                packet.to_vec()
            }
        };
        let source = [192, 0, 2, b].into();
        let before = gate.memory();
        match gate.handle(now(wall, mono), source, &packet) {
            Verdict::Accepted(done) => {
                let authentic = Packet::read(&packet).and_then(|p| p.verify(&keys));
                let request = authentic.expect("authentic").open().expect("well-formed");
                assert!(accepted.insert(packet), "accepted twice");
                assert!(request.timestamp().0.abs_diff(wall) <= 30_000, "stale");
                assert_eq!(done.at, request.timestamp());
            }
            Verdict::Junk(_) => {
                let authentic = Packet::read(&packet).and_then(|p| p.verify(&keys));
                let after = gate.memory();
                assert_eq!(before.seen.len().max(after.seen.len()), before.seen.len());
                assert_eq!(
                    before.claims.len().max(after.claims.len()),
                    before.claims.len()
                );
                // What the key has made is never junk while its minute is in force.
                if let Some(Ok(request)) = authentic.map(|a| a.open()) {
                    assert!(request.timestamp().0.abs_diff(wall) > 30_000);
                }
            }
            Verdict::Ignored { .. } | Verdict::Refused(_) => {
                let authentic = Packet::read(&packet).and_then(|p| p.verify(&keys));
                assert!(authentic.is_some(), "named a key without proof");
            }
        }
        assert!(
            gate.memory().claims.len() <= 3,
            "more grants than the key may have"
        );
    }
});
