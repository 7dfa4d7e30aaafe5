//! A full disk: a small file system that only the test's thread sees.

use super::*;
use nix::sched::{CloneFlags, unshare};
use std::process::Command;

/// Runs a test with its state on a file system of so many bytes; not where this user may not
/// mount one.
fn on_a_small_disk(size: &str, test: impl FnOnce(&Path) + Send) {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let done = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let mount = |args: &[&str]| {
                let done = Command::new("mount").args(args).status().unwrap();
                assert!(done.success(), "{args:?}");
            };
            mount(&["--make-rprivate", "/"]);
            let options = format!("size={size},mode=0700");
            mount(&[
                "-t",
                "tmpfs",
                "-o",
                &options,
                "test",
                dir.path().to_str().unwrap(),
            ]);
            test(dir.path());
        });
        done.join().unwrap();
    });
}

/// Leaves no room for anything.
fn fill(dir: &Path) -> PathBuf {
    let path = dir.join("filler");
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .unwrap();
    while std::io::Write::write(&mut file, &[1; 4096]).is_ok_and(|written| written > 0) {}
    path
}

fn batch(from: u64) -> Vec<Spend> {
    (from..from + 64)
        .map(|number| open(number, at(0)))
        .collect()
}

#[test]
fn full_disk_refuses_packets_until_it_has_room() {
    on_a_small_disk("3m", |dir| {
        let path = dir.join("state");
        Store::create(&path, me()).unwrap();
        let site_open = |now| open_store(&path, now);
        let (mut store, _) = site_open(after(0));
        store.begin(&State::default(), NOWHERE, after(0)).unwrap();
        let filler = fill(dir);
        // There is room in the segment.
        let mut accepted = 0;
        let failed = loop {
            if store.is_full() {
                store.rotate(State::default(), after(1)).unwrap();
            }
            match store.spend(&batch(accepted), after(1)) {
                Ok(fresh) => accepted += fresh.len() as u64,
                Err(error) => break error,
            }
            assert!(accepted < 1_000_000);
        };
        assert!(accepted > 5_000, "{accepted}");
        assert!(failed.to_string().contains("No space left"), "{failed}");
        until(|| store.status().files.is_some());
        // Outcomes that cannot be written either are not forgotten.
        let mut live = Vec::new();
        for net in 0.. {
            fill(dir);
            let to = |host| to(&grant(after(0), 600), &format!("10.0.{net}.{host}"));
            let grants: Vec<Grant> = (0..64).map(to).collect();
            let events: Vec<Event> = grants.iter().map(|g| granted(g, after(1))).collect();
            live.extend(grants);
            if store.note(&events, after(1)).is_err() {
                break;
            }
        }
        fs::remove_file(filler).unwrap();
        let again = store.spend(&batch(accepted), after(2)).unwrap();
        // Some of the batch were written before there was no room: those stay spent.
        let fresh = again.iter().filter(|fresh| **fresh).count();
        assert!(fresh > 0, "{fresh}");
        assert!(again.iter().is_sorted(), "{again:?}");
        drop(store);
        let (_, found) = site_open(after(3));
        let Recovery::State { state, .. } = found else {
            panic!("{found:?}")
        };
        assert_eq!(state.seen.len() as u64, accepted + 64);
        live.sort_by_key(|grant| grant.target);
        assert_eq!(state.grants, live);
    });
}

#[test]
fn small_disk_gets_small_segments() {
    on_a_small_disk("1m", |dir| {
        let path = dir.join("state");
        Store::create(&path, me()).unwrap();
        let (mut store, _) = open_store(&path, after(0));
        store.begin(&State::default(), NOWHERE, after(0)).unwrap();
        assert_eq!(store.spend(&batch(0), after(0)).unwrap(), [true; 64]);
        store.close().unwrap();
        let (_, found) = open_store(&path, after(1));
        assert!(
            matches!(found, Recovery::State { floor: None, .. }),
            "{found:?}"
        );
    });
}

#[test]
fn run_begins_on_a_full_disk_only_when_it_has_room() {
    on_a_small_disk("1m", |dir| {
        let path = dir.join("state");
        Store::create(&path, me()).unwrap();
        let filler = fill(dir);
        let (mut store, _) = open_store(&path, after(0));
        let begun = store.begin(&State::default(), NOWHERE, after(0));
        assert!(matches!(begun, Err(StoreError::Log(_))), "{begun:?}");
        let spent = store.spend(&batch(0), after(0));
        assert!(matches!(spent, Err(StoreError::NotBegun)), "{spent:?}");
        fs::remove_file(filler).unwrap();
        store.begin(&State::default(), NOWHERE, after(0)).unwrap();
        assert_eq!(store.spend(&batch(0), after(0)).unwrap(), [true; 64]);
    });
}

#[test]
fn journal_on_a_full_disk_is_behind_and_delays_nothing() {
    on_a_small_disk("3m", |dir| {
        let path = dir.join("state");
        Store::create(&path, me()).unwrap();
        let (mut store, _) = open_store(&path, after(0));
        store.begin(&State::default(), NOWHERE, after(0)).unwrap();
        assert_eq!(store.flush_journal().unwrap().recv().unwrap(), Ok(()));
        let filler = fill(dir);
        // More rows than the database has pages for.
        for number in 0..400_u16 {
            let [high, low] = number.to_be_bytes();
            let mut live = grant(after(0), 600);
            live.target.source = Source::of([10, 0, high, low].into());
            store.note(&[granted(&live, after(1))], after(1)).unwrap();
        }
        let answer = store.flush_journal().unwrap().recv().unwrap();
        assert!(answer.unwrap_err().contains("full"));
        assert!(store.status().journal.is_some());
        assert_eq!(store.spend(&batch(0), after(1)).unwrap(), [true; 64]);
        fs::remove_file(filler).unwrap();
        assert_eq!(store.flush_journal().unwrap().recv().unwrap(), Ok(()));
        assert_eq!(store.status().journal, None);
        assert_eq!(history(&path, None, NOWHERE, after(0)).unwrap().len(), 400);
    });
}
