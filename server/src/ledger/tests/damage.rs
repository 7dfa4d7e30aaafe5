//! A database that is damaged, or that others could touch.

use super::*;

#[test]
fn what_a_renewed_database_has_already_is_recorded_again_without_harm() {
    let site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    let packet = site.open(60);
    let verdict = gate.handle(site.now, [192, 0, 2, 7].into(), &packet);
    let Verdict::Accepted(accepted) = verdict else {
        panic!("{verdict:?}")
    };
    ledger.renew(&gate.memory(), site.now).unwrap();
    ledger.record(&[accepted], site.now).unwrap();
    drop(ledger);
    let (mut ledger, mut gate, _) = site.start();
    assert!(!site.knock(&mut gate, &mut ledger, &packet));
}

#[test]
fn a_damaged_database_is_renewed_while_the_daemon_runs() {
    let mut site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    let old = site.open(0);
    assert!(site.knock(&mut gate, &mut ledger, &old));
    site.pass(100);
    gate.tick(site.now);
    let recent = site.open(60);
    assert!(site.knock(&mut gate, &mut ledger, &recent));
    let before = gate.memory();
    let aside = ledger.renew(&before, site.now).unwrap();
    assert!(site.folder.join(aside).exists());
    drop(ledger);
    site.now.wall = Timestamp(T0);
    let (mut ledger, mut gate, found) = site.start();
    let Found::State {
        memory,
        floor: None,
    } = found
    else {
        panic!()
    };
    assert_eq!(memory, before);
    for packet in [&old, &recent] {
        assert!(!site.knock(&mut gate, &mut ledger, packet));
    }
}

#[test]
fn what_is_written_of_a_generation_gives_its_secret_not_away() {
    let site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    assert!(site.knock(&mut gate, &mut ledger, &site.open(60)));
    let secret = &site.settings.keys[0].generations[0].secret;
    let text = secret.to_base64();
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, &*text).unwrap();
    let mut files = 0;
    for file in fs::read_dir(&site.folder).unwrap() {
        let content = fs::read(file.unwrap().path()).unwrap();
        files += 1;
        for needle in [&bytes[..8], text.as_bytes()] {
            let found = content.windows(needle.len()).any(|window| window == needle);
            assert!(!found);
        }
    }
    assert!(files >= 3, "{files}");
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// A state that was begun and left cleanly.
fn left_cleanly() -> Site {
    let site = Site::new();
    let (mut ledger, _) = Ledger::open(&site.folder, site.now).unwrap();
    let nothing = Gate::new(&site.settings, site.now).forgotten(site.now);
    ledger.begin(&nothing, Timestamp(0)).unwrap();
    ledger.close().unwrap();
    site
}

#[test]
fn what_others_could_only_read_is_made_private_and_counts() {
    let site = left_cleanly();
    for (name, loose, wanted) in [
        ("", 0o755, 0o700),
        ("lease", 0o644, 0o600),
        (FILE, 0o640, 0o600),
    ] {
        let path = site.folder.join(name);
        set_mode(&path, loose);
        let (ledger, found) = Ledger::open(&site.folder, site.now).unwrap();
        assert!(matches!(found, Found::State { .. }), "{name}: {found:?}");
        assert_eq!(ledger.was_loose().len(), 1, "{name}");
        assert_eq!(mode(&path), wanted, "{name}");
    }
}

#[test]
fn what_others_could_write_is_no_state() {
    for (name, loose, says) in [
        ("", 0o777, "ledger.db is damaged (not to be trusted"),
        (
            "lease",
            0o666,
            "lease is not trusted: others may write it (mode 0666)",
        ),
        (
            FILE,
            0o620,
            "ledger.db is damaged (not to be trusted: others may write it (mode 0620))",
        ),
    ] {
        let site = left_cleanly();
        let path = site.folder.join(name);
        set_mode(&path, loose);
        let (ledger, found) = Ledger::open(&site.folder, site.now).unwrap();
        let Found::Nothing(why) = found else {
            panic!("{name}: {found:?}");
        };
        assert!(why.starts_with(says), "{name}: {why}");
        drop(ledger);
        assert_eq!(mode(&site.folder), 0o700, "{name}");
        // Nor is it one the next time, before a run has begun.
        let (_, found) = Ledger::open(&site.folder, site.now).unwrap();
        assert!(matches!(found, Found::Nothing(_)), "{name}: {found:?}");
    }
}

#[test]
fn a_link_in_the_databases_place_leads_nowhere() {
    let site = Site::new();
    let (there, away) = (site.folder.join(FILE), site.folder.join("away"));
    fs::rename(&there, &away).unwrap();
    std::os::unix::fs::symlink(&away, &there).unwrap();
    assert!(history(&site.folder, None, Timestamp(0)).is_err());
    assert!(uses(&site.folder).is_err());
    fs::remove_file(&there).unwrap();
    fs::rename(&away, &there).unwrap();
    // The folder itself may be one.
    let link = site.folder.with_file_name("link");
    std::os::unix::fs::symlink(&site.folder, &link).unwrap();
    assert!(history(&link, None, Timestamp(0)).unwrap().is_empty());
}

#[test]
fn an_end_that_no_ledger_writes_is_no_history() {
    let site = Site::new();
    let lie = Connection::open(site.folder.join(FILE)).unwrap();
    lie.pragma_update(None, "ignore_check_constraints", true)
        .unwrap();
    let row = "INSERT INTO history (key, service, address, number, opened, ended, how, knocks)
        VALUES ('laptop', 'ssh', '192.0.2.7', 1, 1, 2, char(27) || '[2J', 1)";
    lie.execute(row, []).unwrap();
    assert!(history(&site.folder, None, Timestamp(0)).is_err());
}
