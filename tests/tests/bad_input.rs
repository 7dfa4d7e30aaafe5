//! What is wrong is said in one line, with where and how to mend it, and changes nothing.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::{Done, Host, Site, binaries};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The error without its hints must be one line that begins with the program's name.
#[track_caller]
fn one_line<'e>(program: &str, err: &'e str) -> &'e str {
    let lines = err.lines().filter(|l| !l.starts_with("hint: "));
    let lines: Vec<&str> = lines.collect();
    assert_eq!(lines.len(), 1, "{err}");
    assert!(lines[0].starts_with(&format!("{program}: ")), "{err}");
    lines[0]
}

/// Every file below, with its mode and contents.
fn tree(dir: &Path) -> Vec<(String, u32, Vec<u8>)> {
    let mut all = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, data) = (entry.path(), entry.metadata().unwrap());
            let bytes = if data.is_file() {
                fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            all.push((path.display().to_string(), data.permissions().mode(), bytes));
            if data.is_dir() {
                folders.push(path);
            }
        }
    }
    all.sort();
    all
}

fn import(host: &Host, line: &str, more: &[&str]) -> Done {
    host.run_with(&[&["oneknock", "import"], more].concat(), line)
}

#[test]
fn a_cut_or_edited_invitation_is_one_line_and_nothing_is_written() {
    let site = Site::new(binaries!());
    let line = site.key("laptop", &["ssh"]).line;
    let line = line.trim();
    let laptop = &site.lab.laptop;
    let mut bad: Vec<String> = (0..line.len())
        .step_by(37)
        .map(|at| line[..at].into())
        .collect();
    bad.push(line[..line.len() - 1].into());
    bad.push(line[1..].into());
    for at in (0..line.len()).step_by(29) {
        let other = if &line[at..=at] == "A" { "B" } else { "A" };
        bad.push(format!("{}{other}{}", &line[..at], &line[at + 1..]));
    }
    let rows = fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../shared/tests/data/invitations.json"
    ));
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&rows.unwrap()).unwrap();
    let invalid = rows.iter().filter(|row| row["valid"] == false);
    bad.extend(invalid.map(|row| row["line"].as_str().unwrap().to_string()));
    for line in bad {
        let err = import(laptop, &line, &["--name", "home"]).fails(2);
        one_line("error", &err);
    }
    assert_eq!(tree(&laptop.home), []);
}

#[test]
fn a_door_is_private_and_its_name_cannot_leave_its_folder() {
    let site = Site::new(binaries!());
    let line = site.key("laptop", &["ssh"]).line;
    let laptop = &site.lab.laptop;
    for name in [
        "", ".", "..", "../x", "a/b", "/tmp/x", "-x", "a b", "a\nb", "a%h", "ä",
    ] {
        let err = import(laptop, &line, &[&format!("--name={name}")]).fails(2);
        assert!(err.starts_with("error: "), "{name:?}: {err}");
        for verb in [
            "open",
            "show",
            "close",
            "ssh-config",
            "remove",
            "proxy",
            "ssh",
        ] {
            let done = laptop.run(&["oneknock", verb, "--", name]);
            assert_eq!(done.code, Some(2), "{done}");
        }
    }
    assert_eq!(tree(&laptop.home), []);
    import(laptop, &line, &[]).ok();
    let doors = laptop.home.join(".config/oneknock/profiles");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&doors), 0o700);
    assert_eq!(mode(&doors.join("home.toml")), 0o600);
    assert!(laptop.run(&["oneknock", "list"]).ok().contains("home"));
    laptop.run(&["oneknock", "remove", "home"]).ok();
    assert!(!doors.join("home.toml").exists());
}

#[test]
fn a_broken_door_is_named_with_its_file() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let laptop = &site.lab.laptop;
    let file = laptop.home.join(".config/oneknock/profiles/home.toml");
    let good = fs::read_to_string(&file).unwrap();
    let edits = [
        good[..good.len() / 2].to_string(),
        format!("nonsense = 1\n{good}"),
        good.replace("server.lab", "-oProxyCommand=touch"),
        good.replace("server.lab", "server.lab\\nProxyCommand touch x"),
        good.replace("45123", "0"),
        String::new(),
    ];
    for bad in edits {
        assert_ne!(bad, good);
        fs::write(&file, &bad).unwrap();
        for verb in ["open", "ssh-config", "ssh", "proxy", "close", "show"] {
            let err = laptop.run(&["oneknock", verb, "home"]).fails(3);
            assert!(one_line("error", &err).contains("home.toml"), "{err}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), bad);
    }
}

#[test]
fn an_unknown_door_or_service_is_a_usage_error() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let err = site.oneknock(&["open", "nowhere"]).fails(2);
    assert!(one_line("error", &err).contains("nowhere"));
    let err = site
        .oneknock(&["open", "home", "--service", "web"])
        .fails(2);
    assert!(one_line("error", &err).contains("web"));
}

#[test]
fn a_broken_configuration_is_named_and_nothing_is_loaded() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    let good = fs::read_to_string(site.config()).unwrap();
    let edits = [
        good[..good.len() / 2].to_string(),
        good.replace("tcp/22", "tcp/0"),
        good.replace("tcp/22", "tcp/22\", \"tcp/20-30"),
        good.replace("\"ssh\"", "\"SSH\""),
        good.replace("server.lab", "-oProxyCommand=x"),
        good.replace("server_id = \"", "server_id = \"A"),
        format!("skew = \"11m\"\n{}", without_line(&good, "skew")),
        String::new(),
    ];
    for bad in edits {
        assert_ne!(bad, good);
        fs::write(site.config(), &bad).unwrap();
        let files = || {
            let mut files = tree(&site.dir);
            // The run lock is an empty file, wherever a daemon was started.
            files.retain(|(path, ..)| !path.ends_with("state/lock"));
            files
        };
        let before = files();
        let said = site.daemon_refuses();
        assert!(said.contains("oneknockd.toml"), "{said}\n{bad}");
        let check = site.ctl(&["check"]);
        assert_eq!(check.code, Some(3), "{check}");
        assert!(format!("{check}").contains("oneknockd.toml"), "{check}");
        assert!(files() == before, "{said}");
    }
}

fn without_line(text: &str, name: &str) -> String {
    let lines = text.lines().filter(|l| !l.starts_with(name));
    lines.flat_map(|l| [l, "\n"]).collect()
}

#[test]
fn check_lists_every_mistake_at_once_and_is_silent_about_none() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    site.key("phone", &["ssh"]);
    site.ctl(&["check"]).ok();
    let good = fs::read_to_string(site.config()).unwrap();
    let bad = good.replace("tcp/22", "tcp/99999");
    fs::write(site.config(), format!("nonsense = 1\n{bad}")).unwrap();
    let key = fs::read_to_string(site.key_file("laptop")).unwrap();
    fs::write(
        site.key_file("laptop"),
        key.replace("\"ssh\"", "\"ssh\", \"web\""),
    )
    .unwrap();
    let key = fs::read_to_string(site.key_file("phone")).unwrap();
    fs::write(site.key_file("phone"), format!("nonsense = 1\n{key}")).unwrap();
    let check = site.ctl(&["check"]);
    assert_eq!(check.code, Some(3), "{check}");
    let all = format!("{check}");
    for wanted in [
        "nonsense",
        "tcp/99999",
        "oneknockd.toml",
        "keys/laptop.toml",
        "web",
        "keys/phone.toml",
    ] {
        assert!(all.contains(wanted), "{wanted} is missing: {check}");
    }
}

#[test]
fn the_file_in_the_folders_place_is_said() {
    let site = Site::new(binaries!());
    let (file, server) = (site.config(), &site.lab.server);
    let want = format!(
        "is a file, and --config takes the directory: --config {}",
        site.dir.display()
    );
    for command in [
        &["oneknockctl", "status"][..],
        &["oneknockctl", "key", "list"],
        &["oneknockd"],
    ] {
        let command = [command, &["--config", file.to_str().unwrap()]].concat();
        let err = server.run(&command).fails(2);
        assert!(err.contains(&want), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}

#[test]
fn a_state_that_others_could_get_at_is_warned_of() {
    let site = Site::new(binaries!());
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&site.state(), 0o755);
    mode(&site.state().join("mark"), 0o666);
    let done = site.ctl(&["check"]);
    for part in [
        "others may read it (mode 0755)",
        "others may write it (mode 0666)",
    ] {
        assert!(done.out.contains(part), "{done}");
    }
}

#[test]
fn init_never_overwrites_and_makes_private_files() {
    let site = Site::new(binaries!());
    let before = tree(&site.dir);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&site.config()), 0o640);
    assert_eq!(mode(&site.dir.join("keys")), 0o750);
    let done = site.ctl(&["init", "--host", "elsewhere.example"]);
    assert_eq!(done.code, Some(5), "{done}");
    one_line("error", &done.err);
    assert_eq!(tree(&site.dir), before);
}

#[test]
fn init_refuses_what_no_client_could_use_and_writes_nothing() {
    let site = Site::new(binaries!());
    let dir = site.lab.server.home.join("other");
    let config = ["--config", dir.to_str().unwrap()];
    let bad: [&[&str]; 9] = [
        &["--host", ""],
        &["--host=-oProxyCommand=x"],
        &["--host", "a b"],
        &["--host", "a\nb"],
        &["--host", "server.lab", "--port", "0"],
        &["--host", "server.lab", "--port", "65536"],
        &["--host", "server.lab", "--service", "SSH=tcp/22"],
        &["--host", "server.lab", "--service", "ssh=tcp/22-21"],
        &[
            "--host",
            "server.lab",
            "--service",
            "ssh=tcp/22",
            "--service",
            "web=tcp/20-30",
        ],
    ];
    for args in bad {
        let command = [&["oneknockctl", "init"], args, &config].concat();
        let done = site.lab.server.run(&command);
        assert_eq!(done.code, Some(2), "{done}");
        assert!(!dir.exists(), "{done}");
    }
}

#[test]
fn key_names_and_services_are_held_against_the_grammar() {
    let site = Site::new(binaries!());
    let laptop = site.key("laptop", &["ssh"]);
    let before = tree(&site.dir);
    for name in ["", "..", "../x", "a/b", "-x", "a b", "a\nb", ".hidden"] {
        for verb in ["add", "invite", "show", "rotate", "retire", "remove"] {
            let dir = site.dir.to_str().unwrap();
            let args = ["oneknockctl", "key", verb, "--config", dir, "--", name];
            let done = site.lab.server.run(&args);
            assert_eq!(done.code, Some(2), "{done}");
        }
    }
    let done = site.ctl(&["key", "add", "other", "--service", "web"]);
    assert_eq!(done.code, Some(2), "{done}");
    let done = site.ctl(&["key", "add", "laptop", "--service", "ssh"]);
    assert_eq!(done.code, Some(5), "{done}");
    let done = site.ctl(&["key", "remove", "nobody"]);
    assert!(matches!(done.code, Some(1 | 2)), "{done}");
    assert_eq!(tree(&site.dir), before);
    let again = site.ctl(&["key", "invite", "laptop"]).ok();
    assert_eq!(again, laptop.line);
}

#[test]
fn before_init_every_program_says_how_to_begin() {
    let site = Site::new(binaries!());
    let dir = site.lab.server.home.join("none");
    let config = ["--config", dir.to_str().unwrap()];
    let calls: [&[&str]; 6] = [
        &["oneknockd"],
        &["oneknockctl", "check"],
        &["oneknockctl", "debug", "rules"],
        &["oneknockctl", "key", "list"],
        &["oneknockctl", "key", "add", "laptop"],
        &["oneknockctl", "key", "invite", "laptop"],
    ];
    let want = format!("oneknockctl {} init --host HOST", config.join(" "));
    for call in calls {
        let done = site.lab.server.run(&[call, &config].concat());
        assert!(matches!(done.code, Some(2 | 3)), "{done}");
        assert!(done.to_string().contains(&want), "{done}");
        assert!(!dir.exists(), "{done}");
    }
}

#[test]
fn without_root_every_command_says_how_to_become_it() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    // Somebody else, in a place that he can reach, with a program that he can start.
    let home = site.lab.dir().join("somebody");
    fs::create_dir(&home).unwrap();
    for folder in [site.lab.dir(), &site.lab.server.home] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let program = home.join("oneknockctl");
    fs::copy(binaries!().oneknockctl, &program).unwrap();
    let somebody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let before = tree(&site.dir);
    let dir = site.dir.to_str().unwrap();
    let calls: [&[&str]; 13] = [
        &["log"],
        &["debug", "reset-state"],
        &["check"],
        &["debug", "rules"],
        &["disable", "--until-reboot"],
        &["key", "list"],
        &["key", "add", "phone"],
        &["key", "invite", "laptop"],
        &["key", "remove", "laptop"],
        &["key", "show", "laptop"],
        &["key", "rotate", "laptop"],
        &["key", "retire", "laptop"],
        &["init", "--host", "server.lab"],
    ];
    for call in calls {
        let place = if call[0] == "init" { "/oneknock" } else { dir };
        let call = [&["--config", place][..], call].concat();
        let command = [&somebody[..], &[program.to_str().unwrap()], &call].concat();
        let done = site.lab.server.run(&command);
        assert!(matches!(done.code, Some(1 | 2)), "{done}");
        one_line("error", &done.err);
        let want = format!("hint: sudo oneknockctl {}\n", call.join(" "));
        assert!(done.err.ends_with(&want), "{done}");
    }
    assert_eq!(tree(&site.dir), before);
}
