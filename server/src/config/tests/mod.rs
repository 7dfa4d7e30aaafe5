mod keys;

use super::*;
use crate::files::{KEY_FILE_MODE, KEY_FOLDER_MODE, Owner};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::secret::{Secret, ServerId};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

fn me() -> Owner {
    Owner {
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
    }
}

fn sample() -> Config {
    let mut config = Config::new(
        "home".parse().unwrap(),
        "home.example.org".parse().unwrap(),
        45123,
        ServerId::generate().unwrap(),
    );
    let ports = vec![
        "tcp/22".parse().unwrap(),
        "udp/60000-61000".parse().unwrap(),
    ];
    config
        .services
        .push(Service::new("ssh".parse().unwrap(), ports));
    config
}

/// What is wrong with the sample after an edit, a line each.
fn errors(from: &str, to: &str) -> String {
    let text = main_text(&sample());
    assert!(text.contains(from), "{from}");
    let edited = text.replacen(from, to, 1);
    match main_file::parse(Path::new("c"), &edited) {
        Ok(_) => String::new(),
        Err(found) => found
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

#[test]
fn a_new_configuration_is_read_back_as_it_was_written() {
    let config = sample();
    assert_eq!(
        main_file::parse(Path::new("c"), &main_text(&config)),
        Ok(config)
    );
}

#[test]
fn every_mistake_is_found_at_once_with_its_line() {
    let text = "name = \"-x\"\nhost = 3\nport = 0\nserver_id = \"AA\"\nlisten = [\"1.2.3.4\"]\n\
                skew = \"1h\"\nstate = \"x\"\nwhat = 1\n[[service]]\nname = \"SSH\"\n\
                ports = [\"tcp/0\", \"sctp/1\"]\nopen_for = \"soon\"\n";
    let found = main_file::parse(Path::new("c"), text).unwrap_err();
    let mut lines: Vec<usize> = found.iter().filter_map(|m| m.line).collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 11, 12],
        "{found:#?}"
    );
}

#[test]
fn an_unknown_name_is_no_error_to_a_lenient_reader() {
    let text = format!("of_tomorrow = 1\n{}", main_text(&sample()));
    let read = main_file::read(Path::new("c"), &text).unwrap();
    assert_eq!((read.unknown.len(), read.text), (1, text));
}

#[test]
fn an_unknown_key_is_a_mistake() {
    assert!(errors("skew =", "skwe =").contains("skwe: is unknown here"));
    assert!(errors("default_duration =", "openfor =").contains("openfor: is unknown here"));
}

#[test]
fn a_missing_key_is_named_with_an_example() {
    assert!(errors("host = \"home.example.org\"", "").contains("host: is missing"));
    assert!(errors("[[service]]", "[service]").contains("[[service]]"));
}

#[test]
fn a_port_belongs_to_one_service() {
    let second = "[[service]]\nname = \"web\"\nports = [\"udp/60500\"]\n[[service]]";
    assert!(errors("[[service]]", second).contains("belongs to web and to ssh"));
}

#[test]
fn the_knock_port_cannot_be_guarded() {
    assert!(errors(", \"udp/60000-61000\"", ", \"udp/45123\"").contains("no knock could reach it"));
}

#[test]
fn a_service_name_that_nft_takes_is_refused() {
    assert!(errors("name = \"ssh\"", "name = \"ip\"").contains("taken by nft"));
}

#[test]
fn a_sequence_opens_for_a_step_at_least_and_for_less_than_its_service() {
    let mut config = sample();
    config.services[0].max_duration = std::time::Duration::from_secs(60);
    let with = |times: &str| {
        let section = format!("[sequence]\nservice = \"ssh\"\nrolling = true\n{times}\n");
        let text =
            main_text(&config).replace("default_duration = \"30s\"", "default_duration = \"10s\"");
        let found = main_file::parse(Path::new("c"), &format!("{text}\n{section}"));
        let found = found.err().unwrap_or_default();
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        lines.join("\n")
    };
    assert_eq!(with("step_time = \"20s\"\nduration = \"59s\""), "");
    for (times, why) in [
        (
            "duration = \"1m\"",
            "must be shorter than max_duration of service ssh",
        ),
        (
            "step_time = \"20s\"\nduration = \"19s\"",
            "must not be shorter than step_time",
        ),
        ("duration = \"4s\"", "must be from 5s to 5m"),
        ("step_time = \"4s\"", "must be from 5s to 1m"),
        ("step_time = \"61s\"", "must be from 5s to 1m"),
    ] {
        let found = with(times);
        assert!(found.contains(why), "{times}: {found}");
    }
}

#[test]
fn open_for_is_not_longer_than_its_limit() {
    assert!(
        errors("default_duration = \"30s\"", "default_duration = \"9h\"").contains("max_duration")
    );
}

#[test]
fn a_broken_file_is_one_line_with_its_place() {
    let found = errors("port = 45123", "port = ");
    assert_eq!(found.lines().count(), 1, "{found}");
    assert!(found.starts_with("c:9:"), "{found}");
}

fn paths(dir: &TempDir) -> Paths {
    Paths::of(dir.path())
}

/// A folder with the sample and one key, owned by whoever runs the test.
fn folder() -> (TempDir, Secret) {
    let dir = tempfile::tempdir().unwrap();
    let path = paths(&dir).main_file();
    files::write(
        &path,
        &main_text(&sample()),
        me(),
        0o640,
        files::Existing::Keep,
    )
    .unwrap();
    files::make_folder(&paths(&dir).keys(), me(), KEY_FOLDER_MODE).unwrap();
    let secret = Secret::generate().unwrap();
    add(&dir, "laptop", &secret, "ssh");
    (dir, secret)
}

fn add(dir: &TempDir, name: &str, secret: &Secret, service: &str) {
    let policy = Policy::new(vec![service.parse().unwrap()]);
    let generation = Generation {
        number: 1,
        secret: secret.clone(),
        not_before: None,
        not_after: None,
        overlap_until: None,
        made: None,
    };
    let path = paths(dir).key_file(name);
    let text = key_text(&policy, &[generation]);
    files::write(&path, &text, me(), KEY_FILE_MODE, files::Existing::Keep).unwrap();
}

#[test]
fn mistakes_in_several_files_come_together() {
    let (dir, _) = folder();
    let keys = paths(&dir).keys();
    fs::write(keys.join("no te.toml"), "x").unwrap();
    fs::write(keys.join("open.toml"), "x").unwrap();
    fs::set_permissions(keys.join("laptop.toml"), Permissions::from_mode(0o644)).unwrap();
    let found = Settings::load_for(&paths(&dir), me()).unwrap_err();
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn a_pipe_in_a_files_place_holds_nothing_up() {
    let (dir, _) = folder();
    let path = paths(&dir).main_file();
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let found = Settings::load_for(&paths(&dir), me()).unwrap_err();
    assert!(
        found[0].to_string().contains("not a plain file"),
        "{found:?}"
    );
}

#[test]
fn a_port_that_the_daemon_does_not_listen_on_is_warned_about() {
    let mut config = sample();
    assert_eq!(config.warnings(), [""; 0]);
    config.port = 443;
    let warnings = config.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("udp/443") && warnings[0].contains("udp/45123"),
        "{warnings:?}"
    );
}

#[test]
fn before_init_there_is_one_mistake_that_says_how_to_begin() {
    let dir = tempfile::tempdir().unwrap();
    let found = Settings::load_for(&paths(&dir), me()).unwrap_err();
    assert_eq!(found.len(), 1, "{found:?}");
    let want = format!(
        "make it with: oneknockctl --config {} init --host HOST",
        dir.path().display()
    );
    assert!(found[0].to_string().contains(&want), "{found:?}");
}

#[test]
fn a_control_group_has_the_name_of_a_group() {
    let none = "#control_group = \"adm\"";
    assert!(errors(none, "control_group = \"a b\"").contains("not a group's name"));
}

#[test]
fn no_path_is_configured() {
    for line in ["state = \"/x\"", "control = \"/x\""] {
        let found = errors("skew =", &format!("{line}\nskew ="));
        assert!(found.contains("is unknown here"), "{line}: {found}");
    }
}

#[test]
fn a_group_that_is_not_there_is_a_mistake() {
    let (dir, _) = folder();
    let path = paths(&dir).main_file();
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replace(
        "#control_group = \"adm\"",
        "control_group = \"no-such.group\"",
    );
    fs::write(&path, text).unwrap();
    let found = Settings::load_for(&paths(&dir), me()).unwrap_err();
    assert!(
        found[0].to_string().contains("there is no group"),
        "{found:?}"
    );
}
