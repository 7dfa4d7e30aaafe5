//! Kills in a stream of knocks, at arbitrary points.

use super::super::codec::RECORD_LEN;
use super::*;
use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;

/// Choices that a number repeats: xorshift.
struct Choices(u64);

impl Choices {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }
}

/// What a kill leaves of the last write: its beginning.
fn tear(site: &Site, bytes: usize) {
    let path = site.current();
    let end = used(&fs::read(&path).unwrap()) - bytes;
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&vec![0; bytes], end as u64).unwrap();
}

#[test]
fn two_hundred_kills_accept_no_packet_twice() {
    let site = Site::in_memory();
    let mut choices = Choices(0x6f6e_656b_6e6f_636b);
    let mut accepted = BTreeSet::new();
    // All that was ever sent: each may be sent again.
    let mut sent: Vec<Spend> = Vec::new();
    let mut number = 0;
    for kill in 0..200 {
        let now = after(kill);
        let (mut store, state) = site.start(now);
        let seen: BTreeSet<_> = state.seen.iter().map(|seen| seen.2).collect();
        assert!(accepted.is_subset(&seen), "{kill}");
        for _ in 0..choices.below(6) {
            let mut batch = Vec::new();
            for _ in 0..choices.below(8) {
                if choices.below(3) > 0 || sent.is_empty() {
                    number += 1;
                    sent.push(open(number, now.wall));
                }
                let again = choices.below(sent.len());
                batch.push(
                    [&sent[again], sent.last().unwrap()][usize::from(choices.below(2) == 0)]
                        .clone(),
                );
            }
            let fresh = store.spend(&batch, now).unwrap();
            for (spend, fresh) in batch.iter().zip(fresh) {
                assert_eq!(fresh, accepted.insert(spend.id), "{kill} {spend:?}");
            }
            if choices.below(10) == 0 {
                rotate(&mut store, &State::default(), now);
            }
        }
        // The last batch is not answered: any part of it may be there.
        let last: Vec<Spend> = (0..4)
            .map(|_| {
                number += 1;
                open(number, now.wall)
            })
            .collect();
        store.spend(&last, now).unwrap();
        drop(store);
        let torn = choices.below(4 * RECORD_LEN + 1);
        tear(&site, torn);
        let whole = 4 - torn.div_ceil(RECORD_LEN);
        accepted.extend(last[..whole].iter().map(|spend| spend.id));
    }
    assert!(accepted.len() > 500, "{}", accepted.len());
}

#[test]
fn power_cuts_accept_no_packet_twice() {
    let site = Site::in_memory();
    let mut choices = Choices(0x006d_6172_6b00_0001);
    let mut accepted = BTreeSet::new();
    let mut sent: Vec<Spend> = Vec::new();
    let mut number = 0;
    for cut in 0..40 {
        // Ten seconds between two of them: the mark is 5 s ahead.
        let now = after(cut * 10);
        let (mut store, state) = site.start(now);
        let floor = state.floors.first().map(|(_, floor)| *floor);
        for _ in 0..choices.below(20) {
            number += 1;
            sent.push(open(number, now.wall));
            // As the engine: what the floor refuses does not reach the store.
            let again = &sent[choices.below(sent.len())];
            let batch = [again, sent.last().unwrap()];
            let batch = batch.into_iter().filter(|spend| floor < Some(spend.at));
            let batch: Vec<Spend> = batch.cloned().collect();
            let fresh = store.spend(&batch, now).unwrap();
            for (spend, fresh) in batch.iter().zip(fresh) {
                assert!(!fresh || accepted.insert(spend.id), "{cut} {spend:?}");
            }
            if choices.below(10) == 0 {
                rotate(&mut store, &state, now);
            }
        }
        if choices.below(4) == 0 {
            store.close().unwrap();
            continue;
        }
        drop(store);
        site.reboot();
        // Each page of each segment was written to the disk or not, but for what was synced
        // before the segment got its name.
        for segment in site.segments() {
            let path = site.directory().segment(segment);
            let mut content = fs::read(&path).unwrap();
            for page in content[start(&path)..].chunks_mut(4096) {
                if choices.below(2) == 0 {
                    page.fill(0);
                }
            }
            fs::write(&path, content).unwrap();
        }
    }
    assert!(accepted.len() > 100, "{}", accepted.len());
}
