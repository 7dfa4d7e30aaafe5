//! An engine under a stream of datagrams and times: it never panics, accepts nothing twice
//! and nothing that the key did not make, and junk leaves nothing behind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oneknock_fuzz::{forge, keys};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::packet::Packet;
use oneknock_shared::secret::Subkeys;
use oneknockd::engine::{
    Engine, Event, GenerationRules, KeyRules, Now, Reason, Rules, ServiceRules, Spend,
};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Live grants that the key may have.
const MAX_GRANTS: u32 = 3;

fn rules(subkeys: Subkeys) -> Rules {
    let service = |name: &str| ServiceRules {
        name: name.parse().expect("a name"),
        default_time: Duration::from_secs(30),
        max_time: Duration::from_secs(8 * 3600),
    };
    let key = KeyRules {
        name: Arc::new("laptop".parse().expect("a name")),
        services: vec!["ssh".parse().expect("a name")],
        max_time: None,
        require_signed_address: false,
        allow_other_address: false,
        max_grants: MAX_GRANTS,
        knocks_per_minute: 60,
        generations: vec![GenerationRules {
            number: 1,
            subkeys,
            not_before: None,
            not_after: None,
        }],
    };
    Rules {
        skew: Duration::from_secs(30),
        rotation_grace: Duration::from_secs(24 * 3600),
        allow_gateway: false,
        services: vec![service("ssh"), service("web")],
        keys: vec![key],
    }
}

/// Every allow entry is that of a live grant, and no grant lacks one.
fn check_desired(engine: &mut Engine, now: Now) {
    let grants = engine.snapshot(now).grants;
    assert!(grants.len() <= MAX_GRANTS as usize, "too many grants");
    let allow = engine.desired().allow();
    for grant in &grants {
        let entry = allow.get(&grant.target).expect("an entry");
        assert!(entry.until >= grant.until, "an entry that ends too soon");
    }
    let lasting = allow.iter().filter(|(_, entry)| entry.until > now.mono);
    for (target, entry) in lasting {
        let mut of_target = grants.iter().filter(|grant| grant.target == *target);
        assert!(of_target.any(|grant| grant.until == entry.until));
    }
}

/// What was judged is recorded and committed, or the store fails.
fn finish(engine: &mut Engine, batch: &mut Vec<Spend>, now: Now, is_recorded: bool) {
    let batch = std::mem::take(batch);
    if is_recorded {
        engine.commit(now, &batch);
    } else {
        engine.reject(&batch, Reason::StoreError);
    }
    let told = engine.drain_events().filter(|event| match event {
        Event::Granted { .. } | Event::Closed { .. } | Event::Rejected(_) => true,
        Event::Junk(_) => panic!("junk is queued"),
        _ => false,
    });
    assert_eq!(told.count(), batch.len(), "one service, one event each");
}

fuzz_target!(|data: &[u8]| {
    let (rules, keys) = (rules(keys()), keys());
    let mut wall: u64 = 1_800_000_000_000;
    let mut mono = Duration::from_secs(1000);
    let now = |wall, mono| Now {
        wall: Timestamp(wall),
        mono,
    };
    let mut engine = Engine::new(rules.clone(), now(wall, mono));
    let mut spent = HashSet::new();
    let mut sent: Vec<Vec<u8>> = Vec::new();
    let mut batch: Vec<Spend> = Vec::new();
    let mut rest = data;
    while let Some((&[what, a, b], after)) = rest.split_first_chunk::<3>() {
        rest = after;
        let amount = u64::from(u16::from_be_bytes([a, b]));
        let packet: Vec<u8> = match what % 8 {
            // Time goes on.
            0 => {
                wall = wall.saturating_add(amount);
                mono += Duration::from_millis(amount);
                engine.tick(now(wall, mono));
                continue;
            }
            // The wall clock jumps either way.
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
            // A start after a kill, a reload, a revocation, or what was judged so far.
            2 => {
                let at = now(wall, mono);
                match what >> 3 {
                    0..8 => {
                        // What was judged and not committed is recorded too.
                        batch.clear();
                        let state = engine.snapshot(at);
                        engine = Engine::new(rules.clone(), at);
                        engine.load(state, at);
                    }
                    8..16 => engine.reconfigure(rules.clone(), at),
                    16..20 => {
                        engine.revoke(at, |grant| grant.target.source.is_ipv6() == (b > 128));
                    }
                    20..22 => engine.raise_floors(Timestamp(wall.saturating_add(amount))),
                    which => finish(&mut engine, &mut batch, at, which > 24),
                }
                drop(engine.drain_events());
                check_desired(&mut engine, at);
                continue;
            }
            // Something that was sent before, perhaps changed.
            3 if !sent.is_empty() => sent[usize::from(a) % sent.len()].clone(),
            4 if !sent.is_empty() => {
                let mut changed = sent[usize::from(a) % sent.len()].clone();
                let at = usize::from(b) % changed.len();
                changed[at] ^= what | 1;
                changed
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
                let packet = forge(&plain, stamp / 60_000, nonce).to_vec();
                sent.push(packet.clone());
                packet
            }
        };
        let at = now(wall, mono);
        let source = [192, 0, 2, b].into();
        let before = engine.snapshot(at);
        let judged = engine.judge(at, source, &packet);
        let authentic = Packet::read(&packet).and_then(|p| p.verify(&keys));
        match judged {
            Ok(spend) => {
                let request = authentic.expect("authentic").open().expect("well-formed");
                assert!(spent.insert(packet), "accepted twice");
                assert!(request.timestamp().0.abs_diff(wall) <= 30_000, "too old");
                assert_eq!(spend.at, request.timestamp());
                batch.push(spend);
                // Mostly at once.
                if what & 0x40 == 0 {
                    finish(&mut engine, &mut batch, at, what & 0x20 == 0);
                }
            }
            Err(Event::Junk(_)) => {
                assert_eq!(engine.snapshot(at), before, "junk leaves something");
                // What the key has made is never junk while its minute is current.
                if let Some(Ok(request)) = authentic.map(|a| a.open()) {
                    assert!(request.timestamp().0.abs_diff(wall) > 30_000);
                }
            }
            Err(Event::Rejected(rejection)) => {
                assert!(authentic.is_some(), "named a key without proof");
                assert!(!rejection.authenticated, "nothing is spent by it");
                assert_eq!(engine.snapshot(at), before, "rejected, and yet spent");
            }
            Err(other) => panic!("{other:?}"),
        }
        check_desired(&mut engine, at);
    }
});
