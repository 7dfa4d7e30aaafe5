//! Keys' files: read, judged beside each other, skipped.

use super::*;
use key_files::{Against, KeyFiles, UnknownNames};

/// The names of the keys that are loaded, and the files of those that are skipped.
fn sorted(dir: &TempDir, unknown: UnknownNames) -> (Vec<String>, Vec<String>) {
    let against = Against {
        services: Some(vec!["ssh".into()]),
        sequence: None,
        unknown,
    };
    let files = KeyFiles::read(&paths(dir), me(), &against);
    let loaded = files.loaded.iter().map(|one| one.name.to_string());
    let skipped = files.skipped.into_iter().map(|one| one.file);
    (loaded.collect(), skipped.collect())
}

#[test]
fn a_key_file_is_read_back_as_it_was_written() {
    let (dir, secret) = folder();
    let settings = Settings::load_for(&paths(&dir), me()).unwrap();
    let key = &settings.keys[0];
    assert_eq!(key.name.as_str(), "laptop");
    assert_eq!(key.policy, Policy::new(vec!["ssh".parse().unwrap()]));
    assert_eq!(key.generations[0].secret, secret);
}

#[test]
fn a_key_whose_time_or_overlap_is_over_is_none() {
    let (dir, _) = folder();
    let mut settings = Settings::load_for(&paths(&dir), me()).unwrap();
    for (not_after, overlap_until, last) in [
        (None, None, u64::MAX),
        (Some(2000), None, 2000),
        (None, Some(1000), 1000),
        (Some(2000), Some(1000), 1000),
        (Some(1000), Some(2000), 1000),
    ] {
        let generation = &mut settings.keys[0].generations[0];
        generation.not_after = not_after.map(Timestamp);
        generation.overlap_until = overlap_until.map(Timestamp);
        assert!(settings.has_key_at(Timestamp(last)));
        let after = last.checked_add(1).map(Timestamp);
        assert!(after.is_none_or(|after| !settings.has_key_at(after)));
    }
}

#[test]
fn everything_that_a_key_file_can_say_is_written_and_read_back() {
    let mut policy = Policy::new(vec!["ssh".parse().unwrap(), "web".parse().unwrap()]);
    policy.max_duration = Some(std::time::Duration::from_secs(5400));
    (policy.require_signed_address, policy.allow_other_addresses) = (true, true);
    (policy.max_grants, policy.knocks_per_minute) = (3, 7);
    let generation = |number, from: Option<u64>, to: Option<u64>| Generation {
        number,
        secret: Secret::generate().unwrap(),
        not_before: from.map(Timestamp),
        not_after: to.map(Timestamp),
        overlap_until: to.map(|to| Timestamp(to - 1)),
        made: from.map(Timestamp),
    };
    let generations = vec![
        generation(1, None, Some(1_800_000_000_123)),
        generation(7, Some(0), Some(253_402_300_799_999)),
    ];
    let text = key_text(&policy, &generations);
    let name: oneknock_shared::name::KeyName = "laptop".parse().unwrap();
    let key = parse_key(Path::new("laptop.toml"), name.clone(), &text).unwrap();
    let want = Key {
        name,
        policy,
        generations,
    };
    assert_eq!(key, want);
}

#[test]
fn one_secret_in_two_files_is_a_mistake() {
    let (dir, secret) = folder();
    add(&dir, "phone", &secret, "ssh");
    let found = Settings::load_for(&paths(&dir), me()).unwrap_err();
    assert!(
        found[0].to_string().contains("same secret as key laptop"),
        "{found:?}"
    );
}

#[test]
fn a_key_whose_file_is_invalid_is_skipped_and_no_other() {
    let (dir, _) = folder();
    add(&dir, "phone", &Secret::generate().unwrap(), "web");
    add(&dir, "a-b", &Secret::generate().unwrap(), "ssh");
    add(&dir, "a", &Secret::generate().unwrap(), "ssh");
    let broken = paths(&dir).key_file("broken");
    fs::write(&broken, "x").unwrap();
    let (loaded, skipped) = sorted(&dir, UnknownNames::Refuse);
    assert_eq!(loaded, ["a", "a-b", "laptop"]);
    assert_eq!(skipped, ["broken.toml", "phone.toml"]);
}

#[test]
fn an_unknown_name_in_a_keys_file_is_refused_or_a_warning() {
    let (dir, _) = folder();
    let path = paths(&dir).key_file("laptop");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("of_tomorrow = 1\n{text}")).unwrap();
    let (loaded, skipped) = sorted(&dir, UnknownNames::Refuse);
    assert_eq!((loaded.len(), skipped.len()), (0, 1));
    let (loaded, skipped) = sorted(&dir, UnknownNames::Warn);
    assert_eq!((loaded.len(), skipped.len()), (1, 0));
}

#[test]
fn of_files_with_one_secret_a_mere_copy_is_skipped_alone() {
    let (dir, secret) = folder();
    add(&dir, "phone", &secret, "ssh");
    let (loaded, skipped) = sorted(&dir, UnknownNames::Refuse);
    assert_eq!(
        (&*loaded, &*skipped),
        (&["laptop".to_owned()][..], &["phone.toml".to_owned()][..])
    );
    let path = paths(&dir).key_file("phone");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("max_grants = 16", "max_grants = 17")).unwrap();
    let (loaded, skipped) = sorted(&dir, UnknownNames::Refuse);
    assert_eq!((loaded.len(), skipped.len()), (0, 2));
}

#[test]
fn a_keys_fingerprint_changes_with_its_policy_alone() {
    let (dir, secret) = folder();
    let path = paths(&dir).key_file("laptop");
    let fingerprint = || load_key(&path, me()).unwrap().fingerprint();
    let before = fingerprint();
    let text = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    add(&dir, "laptop", &secret, "ssh");
    assert_eq!(fingerprint(), before);
    fs::write(&path, text.replace("max_grants = 16", "max_grants = 17")).unwrap();
    assert_ne!(fingerprint(), before);
}

#[test]
fn a_key_for_a_service_that_is_not_there_is_a_mistake() {
    let (dir, _) = folder();
    add(&dir, "phone", &Secret::generate().unwrap(), "web");
    let found = Settings::load_for(&paths(&dir), me()).unwrap_err();
    assert!(
        found[0].to_string().contains("web is not a service"),
        "{found:?}"
    );
}

#[test]
fn more_than_two_generations_are_an_error_that_says_what_to_do() {
    let (dir, _) = folder();
    let path = paths(&dir).key_file("laptop");
    let generation = |number| Generation::generate(number, Timestamp(1)).unwrap();
    let policy = Policy::new(vec!["ssh".parse().unwrap()]);
    for (count, is_good) in [(2, true), (3, false)] {
        let all: Vec<Generation> = (1..=count).map(generation).collect();
        fs::write(&path, &*key_text(&policy, &all)).unwrap();
        let read = load_key(&path, me());
        assert_eq!(read.is_ok(), is_good, "{count}");
        if let Err(errors) = read {
            let want = "remove all [[generation]] but the two with the highest numbers";
            assert!(errors[0].to_string().contains(want), "{errors:?}");
        }
    }
}

#[test]
fn times_are_utc() {
    let text = "services = [\"ssh\"]\n[[generation]]\nnumber = 1\nsecret = \"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"\nnot_after = ";
    let parse = |time: &str| {
        key::parse(
            Path::new("k"),
            "k".parse().unwrap(),
            &format!("{text}{time}\n"),
        )
    };
    let key = parse("1970-01-01T00:01:00Z").unwrap();
    assert_eq!(key.generations[0].not_after, Some(Timestamp(60_000)));
    assert!(parse("1970-01-01T00:01:00+02:00").is_err());
    assert!(parse("\"1970-01-01T00:01:00Z\"").is_err());
}

#[test]
fn a_file_name_cannot_forge_a_line_of_the_log() {
    let (dir, _) = folder();
    let forged = "x\noneknockd: granted address=192.0.2.9.toml";
    fs::write(paths(&dir).keys().join(forged), "x").unwrap();
    let found = Settings::load_for(&paths(&dir), me()).unwrap_err();
    let text = found[0].to_string();
    assert!(
        !text.contains('\n') && text.contains("x\\noneknockd"),
        "{text}"
    );
}

#[test]
fn a_key_named_like_an_address_is_skipped() {
    let (dir, secret) = folder();
    fs::remove_file(paths(&dir).key_file("laptop")).unwrap();
    for name in ["192.0.2.7", "laptop"] {
        add(&dir, name, &secret, "ssh");
        let (loaded, skipped) = sorted(&dir, UnknownNames::Refuse);
        let is_name = name == "laptop";
        assert_eq!((loaded.len(), skipped.len()), (usize::from(is_name), 1));
    }
}
