//! The high-water mark's notes.

use super::super::directory::MARK;
use super::super::mark::{AHEAD_MS, PAGE, create, page, read};
use super::*;

const NOTE: MarkNote = MarkNote {
    number: 7,
    until: Timestamp(T0),
    run: [3; 16],
    boot: BootId([1; 16]),
    is_clean: true,
};

#[test]
fn boot_is_current_only_where_it_is_known() {
    assert!(BootId::current().is_current());
    assert!(!BootId([1; 16]).is_current());
    assert!(!BootId::default().is_current());
}

#[test]
fn cut_or_edited_note_is_no_note() {
    let whole = page(NOTE);
    assert_eq!(read(&whole), Some(NOTE));
    assert_eq!(read(&whole[..RECORD_LEN]), Some(NOTE));
    for end in 0..RECORD_LEN {
        assert_eq!(read(&whole[..end]), None, "{end}");
        let mut other = whole.clone();
        other[end] ^= 0x10;
        assert_eq!(read(&other), None, "{end}");
    }
}

fn until(directory: &StateDirectory) -> Option<(Timestamp, bool)> {
    let note = read(&fs::read(directory.file(MARK)).unwrap());
    note.map(|note| (note.until, note.is_clean))
}

/// A mark that was begun at the beginning.
fn begun() -> (tempfile::TempDir, StateDirectory, HighWaterMark) {
    let temporary = tempfile::tempdir().unwrap();
    let directory = StateDirectory::at(temporary.path()).unwrap();
    create(&directory, NOTE).unwrap();
    let (mut mark, _) = HighWaterMark::open(&directory, None).unwrap();
    mark.begin(at(0), [4; 16]).unwrap();
    (temporary, directory, mark)
}

#[test]
fn spoilt_page_leaves_the_note_before_it() {
    let (_temporary, directory, mut mark) = begun();
    let path = directory.file(MARK);
    let mut before = (at(0), false);
    for step in 1..=5_u64 {
        mark.cover(at(step * 10_000)).unwrap();
        let now = (at(step * 10_000 + AHEAD_MS), false);
        assert_eq!(until(&directory), Some(now));
        let whole = fs::read(&path).unwrap();
        for (cut, with) in [(0, 0), (20, 0), (60, 0), (0, 0xff), (40, 0xff)] {
            let mut spoilt = whole.clone();
            let at = if step % 2 == 0 { 0 } else { PAGE };
            spoilt[at + cut..at + PAGE].fill(with);
            fs::write(&path, &spoilt).unwrap();
            assert_eq!(until(&directory), Some(before), "{step} {cut} {with}");
        }
        fs::write(&path, &whole).unwrap();
        before = now;
    }
    mark.end().unwrap();
    assert_eq!(until(&directory), Some((at(50_000), true)));
}

#[test]
fn covered_packet_raises_nothing() {
    let (_temporary, directory, mut mark) = begun();
    for (packet, want) in [(0, 0), (1, 5_001), (5_001, 5_001), (5_002, 10_002)] {
        mark.cover(at(packet)).unwrap();
        assert_eq!(until(&directory), Some((at(want), false)), "{packet}");
    }
}

#[test]
fn mark_that_could_not_be_begun_is_of_the_run_before() {
    let (temporary, _, mut mark) = begun();
    temporary.close().unwrap();
    mark.begin(at(9), [5; 16]).unwrap_err();
    assert_eq!(mark.run(), [4; 16]);
}
