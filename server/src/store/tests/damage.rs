//! A log that is torn, damaged or not complete.

use super::super::codec::RECORD_LEN;
use super::*;
use std::collections::BTreeMap;

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// The files of a state, without the lock and without what no segment needs.
fn copy(site: &Site) -> Files {
    let files = fs::read_dir(&site.path).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let files = files.filter(|path| path.extension().is_none_or(|e| e != "db" && e != "damaged"));
    let read = |path: PathBuf| {
        let mut bytes = fs::read(&path).unwrap();
        if path.extension().is_some_and(|e| e == "log") {
            let used = used(&bytes).saturating_sub(1);
            bytes.truncate((used / RECORD_LEN + 2) * RECORD_LEN);
        }
        (path, bytes)
    };
    files.map(read).collect()
}

fn restore(site: &Site, files: &Files) {
    for entry in fs::read_dir(&site.path).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (path, bytes) in files {
        fs::write(path, bytes).unwrap();
        permissions::set(path, 0o600);
    }
}

/// A state of which two segments are needed. The last batch is of three packets.
fn killed() -> (Site, Files, PathBuf) {
    let site = Site::in_memory();
    let (mut store, _) = site.start(after(0));
    assert!(spend_one(&mut store, &open(1, at(0)), after(0)));
    rotate(&mut store, &State::default(), after(1));
    assert!(spend_one(&mut store, &open(2, at(1_000)), after(1)));
    let batch = [3, 4, 5].map(|number| open(number, at(2_000)));
    store.spend(&batch, after(2)).unwrap();
    // What the journal has read of the first segment goes.
    assert_eq!(store.flush_journal().unwrap().recv().unwrap(), Ok(()));
    until(|| site.segments().iter().eq(&[2, 3]));
    drop(store);
    let (files, current) = (copy(&site), site.current());
    (site, files, current)
}

#[test]
fn batch_that_is_torn_at_any_byte_is_spent_up_to_there() {
    let (site, files, current) = killed();
    let end = used(&files[&current]);
    let start = end - 3 * RECORD_LEN;
    for cut in start..=end {
        for shorter in [false, true] {
            let mut torn = files.clone();
            let bytes = torn.get_mut(&current).unwrap();
            if shorter {
                bytes.truncate(cut);
            } else {
                bytes[cut..].fill(0);
            }
            restore(&site, &torn);
            let seen = site.state(after(3)).seen.len();
            assert_eq!(seen, 2 + (cut - start) / RECORD_LEN, "{cut}");
        }
    }
}

#[test]
fn log_goes_on_after_a_torn_record() {
    let (site, mut files, current) = killed();
    let bytes = files.get_mut(&current).unwrap();
    let end = used(bytes);
    bytes[end - 100..].fill(0);
    restore(&site, &files);
    for round in 0..3 {
        let (mut store, state) = site.start(after(3));
        assert_eq!(state.seen.len(), 4 + round);
        let number = 10 + round as u64;
        assert!(spend_one(&mut store, &open(number, at(3_000)), after(3)));
    }
}

#[test]
fn torn_record_after_a_clean_stop_is_damage() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    assert!(spend_one(&mut store, &open(1, at(0)), after(0)));
    store.close().unwrap();
    let current = site.current();
    let mut bytes = fs::read(&current).unwrap();
    bytes[start(&current) + 100..].fill(0);
    fs::write(&current, bytes).unwrap();
    let why = site.nothing(after(1));
    assert!(why.contains("the last record of the log is torn"), "{why}");
}

#[test]
fn flipped_bit_anywhere_is_never_taken_for_less() {
    let (site, files, _) = killed();
    let mut flipped = 0;
    for (path, bytes) in &files {
        let used = used(bytes).saturating_sub(1);
        // The mark's other page holds what the first said before.
        let is_log = path.extension().is_some();
        for at in (0..used).step_by(if is_log { 5 } else { used.max(1) }) {
            let mut harmed = files.clone();
            harmed.get_mut(path).unwrap()[at] ^= 1 << (at % 8);
            restore(&site, &harmed);
            let found = site.found(after(3));
            assert!(
                matches!(found, Recovery::Nothing(_)) || !is_log,
                "{path:?} {at}"
            );
            flipped += usize::from(is_log);
        }
    }
    assert!(flipped > 300, "{flipped}");
}

#[test]
fn bad_bytes_after_the_end_are_damage() {
    let (site, mut files, current) = killed();
    let bytes = files.get_mut(&current).unwrap();
    bytes.resize(100 * RECORD_LEN, 0);
    bytes[99 * RECORD_LEN] = 1;
    restore(&site, &files);
    let why = site.nothing(after(3));
    assert!(why.contains("is no end"), "{why}");
}

#[test]
fn missing_swapped_or_additional_file_is_damage() {
    let (site, files, current) = killed();
    let directory = site.directory();
    let (older, next) = (directory.segment(2), directory.segment(4));
    assert_eq!(current, directory.segment(3));
    let without = |path: &PathBuf| {
        let mut files = files.clone();
        files.remove(path).unwrap();
        files
    };
    let with = |path: PathBuf, bytes: &[u8]| {
        let mut files = files.clone();
        files.insert(path, bytes.to_vec());
        files
    };
    let mut swapped = files.clone();
    swapped.insert(older.clone(), files[&current].clone());
    swapped.insert(current.clone(), files[&older].clone());
    let mut none = without(&older);
    none.remove(&current).unwrap();
    let mut first = none.clone();
    let other = copy(&Site::new());
    let begun = other
        .iter()
        .find(|(path, _)| path.ends_with("00000001.log"));
    first.insert(directory.segment(1), begun.unwrap().1.clone());
    for (harmed, says) in [
        (without(&older), "00000002.log: it is missing"),
        (
            without(&current),
            "00000002.log: the segment after it is missing",
        ),
        (none, "the log is missing"),
        // What is left is older than the run of the mark.
        (
            first,
            "00000001.log: it is not of the run that wrote the mark",
        ),
        (swapped, "00000003.log: it is another file of the log"),
        (
            with(next.clone(), &files[&current]),
            "00000004.log: it is another file",
        ),
        (
            with(directory.segment(9), b"scribble"),
            "00000009.log: its header is damaged",
        ),
        (
            with(current.clone(), b""),
            "00000003.log: its header is damaged",
        ),
        (
            with(current.clone(), &[0; 4096]),
            "00000003.log: its header is damaged",
        ),
        (
            with(current.clone(), b"SQLite format 3\0"),
            "00000003.log: its header is damaged",
        ),
    ] {
        restore(&site, &harmed);
        let why = site.nothing(after(3));
        assert!(why.contains(says), "{says}: {why}");
        assert!(why.starts_with("the log is "), "{why}");
        // Nor by the next start, after a stop before anything was begun.
        let (store, found) = site.open(after(3));
        assert_eq!(
            found,
            Recovery::Nothing("the log is missing".into()),
            "{says}"
        );
        store.close().unwrap();
    }
    // The row ends with a segment that has no end: none after it is missed.
    restore(&site, &files);
    assert_eq!(site.state(after(3)).seen.len(), 5);
}

#[test]
fn file_of_another_run_is_damage() {
    let (site, files, current) = killed();
    // As a backup that was brought back in part: the same numbers, other runs.
    let mut mixed = files.clone();
    let other = Site::new();
    drop(other.start(after(0)));
    drop(other.start(after(0)));
    let foreign = copy(&other);
    let foreign = &foreign[&other.directory().segment(3)];
    mixed.insert(current, foreign.clone());
    restore(&site, &mixed);
    let why = site.nothing(after(3));
    assert!(why.contains("not of the run that wrote the mark"), "{why}");
    // Nor is an older one of another run.
    let mut mixed = files.clone();
    let foreign = copy(&other);
    let older = other.directory().segment(2);
    mixed.insert(site.directory().segment(2), foreign[&older].clone());
    restore(&site, &mixed);
    let why = site.nothing(after(3));
    assert!(why.contains("it is of another run"), "{why}");
}

#[test]
fn missing_or_damaged_mark_is_no_state() {
    let (site, files, _) = killed();
    let mark = site.path.join("mark");
    for (content, says, aside) in [
        (None, "mark is missing", false),
        (
            Some("oneknock mark 1\n12"),
            "mark is damaged (it cannot be read)",
            true,
        ),
        (Some(""), "mark is damaged", true),
    ] {
        let mut harmed = files.clone();
        match content {
            None => drop(harmed.remove(&mark)),
            Some(text) => drop(harmed.insert(mark.clone(), text.into())),
        }
        restore(&site, &harmed);
        let why = site.nothing(after(3));
        assert!(why.starts_with(says), "{says}: {why}");
        assert_eq!(site.path.join("mark.damaged").exists(), aside, "{says}");
        // Nor by the next start, before a run has begun.
        assert_eq!(site.nothing(after(3)), "mark is missing");
    }
}

#[test]
fn new_run_after_a_loss_has_its_own_state() {
    let (site, mut files, current) = killed();
    files.get_mut(&current).unwrap()[RECORD_LEN + 7] ^= 1;
    for round in 0..2 {
        restore(&site, &files);
        let (mut store, found) = site.open(after(3));
        assert!(matches!(found, Recovery::Nothing(_)), "{found:?}");
        let floor = at(33_000);
        let state = State {
            default_floor: Some(floor),
            ..State::default()
        };
        store.begin(&state, floor, after(3)).unwrap();
        assert!(spend_one(&mut store, &open(9, at(40_000)), after(40)));
        drop(store);
        let found = site.state(after(41));
        assert_eq!(found.default_floor, Some(floor));
        assert_eq!(found.seen.len(), 1, "{round}");
        // What was moved aside is kept, of the last time alone.
        let aside = fs::read_dir(&site.path).unwrap();
        let aside = aside
            .filter(|e| e.as_ref().unwrap().path().extension().unwrap_or_default() == "damaged");
        assert_eq!(aside.count(), 2, "{round}");
    }
}

#[test]
fn begin_that_was_cut_short_leaves_the_state_of_before() {
    let (site, files, _) = killed();
    let (store, _) = site.start(after(3));
    drop(store);
    // Of the new run all is there but the mark.
    let mut whole = copy(&site);
    let mark = site.path.join("mark");
    whole.insert(mark.clone(), files[&mark].clone());
    restore(&site, &whole);
    assert_eq!(site.state(after(3)).seen.len(), 5);
}
