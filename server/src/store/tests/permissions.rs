//! A state that others could touch.

use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

pub(super) fn set(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// A state that was begun and left cleanly.
fn left_cleanly() -> Site {
    let site = Site::new();
    let (store, _) = site.start(after(0));
    store.close().unwrap();
    site
}

const LOG: &str = "00000002.log";

#[test]
fn files_are_private_and_their_directory_too() {
    let site = left_cleanly();
    assert_eq!(mode(&site.path), 0o700);
    let mut files = 0;
    for file in fs::read_dir(&site.path).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{path:?}");
        files += 1;
    }
    assert!(files >= 4, "{files}");
    assert_eq!(insecure_paths(&site.path), []);
}

#[test]
fn readable_by_others_is_made_private_and_counts() {
    let site = left_cleanly();
    for (name, insecure, wanted) in [
        ("", 0o755, 0o700),
        ("mark", 0o644, 0o600),
        (LOG, 0o640, 0o600),
        ("journal.db", 0o640, 0o600),
    ] {
        let path = site.path.join(name);
        set(&path, insecure);
        let (store, found) = site.open(after(1));
        assert!(matches!(found, Recovery::State { .. }), "{name}: {found:?}");
        assert_eq!(store.insecure.len(), 1, "{name}");
        assert_eq!(mode(&path), wanted, "{name}");
    }
}

#[test]
fn writable_by_others_is_no_state() {
    for (name, insecure, says) in [
        (
            "",
            0o777,
            "mark is damaged (others may write it (mode 0777))",
        ),
        (
            "mark",
            0o666,
            "mark is damaged (others may write it (mode 0666))",
        ),
        (
            LOG,
            0o620,
            "the log is damaged (it is not trusted: others may write it (mode 0620))",
        ),
        (LOG, 0o602, "the log is damaged (it is not trusted"),
    ] {
        let site = left_cleanly();
        set(&site.path.join(name), insecure);
        let why = site.nothing(after(1));
        assert!(why.starts_with(says), "{name}: {why}");
        assert_eq!(mode(&site.path), 0o700, "{name}");
        // Nor is it one the next time, before a run has begun.
        site.nothing(after(1));
    }
}

#[test]
fn journal_writable_by_others_is_no_loss_of_state() {
    let site = left_cleanly();
    set(&site.path.join("journal.db"), 0o622);
    let (mut store, found) = site.open(after(1));
    let Recovery::State { state, .. } = found else {
        panic!("{found:?}")
    };
    store.begin(&state, NOWHERE, after(1)).unwrap();
    assert_eq!(store.flush_journal().unwrap().recv().unwrap(), Ok(()));
    let replaced = store.status().lost.unwrap();
    assert!(
        replaced.contains("others may write it (mode 0622)"),
        "{replaced}"
    );
    assert!(site.path.join("journal.db.damaged").exists());
}

#[test]
fn file_of_another_user_is_no_state() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    for name in ["mark", LOG] {
        let site = left_cleanly();
        // The directory is the daemon's, and one file is neither its nor root's.
        std::os::unix::fs::chown(&site.path, Some(1234), Some(1234)).unwrap();
        std::os::unix::fs::chown(site.path.join(name), Some(4321), Some(1234)).unwrap();
        let found = site.found(after(1));
        assert!(matches!(found, Recovery::Nothing(_)), "{name}: {found:?}");
    }
}

#[test]
fn symlink_or_second_name_is_no_state() {
    for name in ["mark", LOG] {
        for is_link in [true, false] {
            let site = left_cleanly();
            let (path, away) = (site.path.join(name), site.dir.path().join("away"));
            if is_link {
                fs::rename(&path, &away).unwrap();
                std::os::unix::fs::symlink(&away, &path).unwrap();
            } else {
                fs::hard_link(&path, &away).unwrap();
            }
            let found = site.found(after(1));
            assert!(matches!(found, Recovery::Nothing(_)), "{name}: {found:?}");
        }
    }
}

#[test]
fn pipe_in_a_files_place_is_not_waited_for() {
    for name in ["mark", LOG] {
        let site = left_cleanly();
        let path = site.path.join(name);
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let found = site.found(after(1));
        assert!(matches!(found, Recovery::Nothing(_)), "{name}: {found:?}");
    }
}

#[test]
fn directory_may_be_named_by_a_symlink() {
    let site = left_cleanly();
    let link = site.dir.path().join("link");
    std::os::unix::fs::symlink(&site.path, &link).unwrap();
    let (_, found) = open_store(&link, after(1));
    assert!(matches!(found, Recovery::State { .. }), "{found:?}");
    assert_eq!(insecure_paths(&link), []);
}

#[test]
fn files_that_root_creates_get_the_directorys_owner() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let site = Site::new();
    for entry in [site.path.clone()]
        .into_iter()
        .chain(fs::read_dir(&site.path).unwrap().map(|e| e.unwrap().path()))
    {
        std::os::unix::fs::chown(&entry, Some(1234), Some(1234)).unwrap();
    }
    let (mut store, _) = site.start(after(0));
    assert!(spend_one(&mut store, &open(1, at(0)), after(0)));
    assert_eq!(store.flush_journal().unwrap().recv().unwrap(), Ok(()));
    rotate(&mut store, &State::default(), after(1));
    for file in fs::read_dir(&site.path).unwrap() {
        let path = file.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1234, 1234), "{path:?}");
    }
}
