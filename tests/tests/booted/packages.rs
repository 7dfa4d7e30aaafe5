//! The packages: built, installed, upgraded under a running server, removed, purged.

use crate::home::{CONFIG, DAEMON, Home, dist};
use oneknock_tests::boot::Machine;
use oneknock_tests::wire::{self, Probe};
use oneknock_tests::{Binaries, Lab, binaries};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// The folder with the packages of this version, of the programs that are tested; built
/// when it is first asked for.
fn folder(version: &str) -> PathBuf {
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = built
        .entry(version.into())
        .or_insert_with(|| build(version));
    folder.clone()
}

fn build(version: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("debs")
        .join(version);
    let programs = folder.join("programs");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&programs).unwrap();
    let Binaries {
        oneknock,
        oneknockd,
        oneknockctl,
        ..
    } = binaries!();
    for (name, file) in [
        ("oneknock", oneknock),
        ("oneknockd", oneknockd),
        ("oneknockctl", oneknockctl),
        ("manuals", env!("CARGO_BIN_EXE_manuals")),
    ] {
        symlink(file, programs.join(name)).unwrap();
    }
    let mut command = Command::new(dist("build-debs"));
    command.args(["--version", version, "--built"]);
    command.arg(&programs).arg(&folder);
    // To compress them well takes longer than all the rest.
    command.env("DPKG_DEB_COMPRESSOR_TYPE", "gzip");
    command.env("DPKG_DEB_COMPRESSOR_LEVEL", "1");
    let done = command.output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    folder
}

#[test]
fn a_program_that_is_not_built_is_named_with_the_command_that_builds_it() {
    let nothing = tempfile::tempdir().unwrap();
    let mut command = Command::new(dist("build-debs"));
    let done = command.arg("--built").arg(nothing.path()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert!(said.contains("there is no program oneknock in"), "{said}");
    assert!(said.contains("hint: cargo build"), "{said}");
}

/// A package of this version.
pub fn package(name: &str, version: &str) -> PathBuf {
    let files = fs::read_dir(folder(version)).unwrap();
    let mut files = files.map(|file| file.unwrap().path());
    let prefix = format!("{name}_{version}_");
    let is_it = |file: &PathBuf| {
        let name = file.file_name().unwrap().to_string_lossy();
        name.starts_with(&prefix)
    };
    files.find(is_it).unwrap()
}

/// The server's package.
pub fn server(version: &str) -> PathBuf {
    package("oneknockd", version)
}

/// The client's package.
pub fn client(version: &str) -> PathBuf {
    package("oneknock", version)
}

#[test]
fn lintian_finds_no_error_in_a_package() {
    for package in [client("1.0-1"), server("1.0-1")] {
        let mut command = Command::new("lintian");
        command.args([
            "--allow-root",
            "--fail-on",
            "error",
            "--tag-display-limit",
            "0",
        ]);
        let done = command.arg(&package).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "{}: {said}", package.display());
    }
}

/// The programs that a source file starts, as it names them.
fn started(source: &str) -> Vec<&str> {
    let calls = ["Command::new(\"", "output(\"", "output_of(\"", ".run(&[\""];
    let (source, _) = source.split_once("#[cfg(test)]").unwrap_or((source, ""));
    let rest = calls.iter().flat_map(|call| source.split(call).skip(1));
    let names = rest.filter_map(|rest| Some(rest.split_once('"')?.0));
    let is_name = |name: &&str| name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    names
        .filter(|name| is_name(name) && !name.starts_with('-'))
        .collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("tests") {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_program_that_the_server_starts_is_in_a_package_that_it_depends_on() {
    let out = |program: &str, args: &[&str]| {
        let done = Command::new(program).args(args).output().unwrap();
        String::from_utf8(done.stdout).unwrap()
    };
    let file = server("1.0-1");
    let depends = out("dpkg-deb", &["--field", file.to_str().unwrap(), "Depends"]);
    let depends = depends.split(", ").map(|one| one.split_whitespace().next());
    let depends: Vec<&str> = depends.flatten().collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    sources(&root.join("server/src"), &mut files);
    let texts: Vec<String> = files
        .iter()
        .map(|f| fs::read_to_string(f).unwrap())
        .collect();
    let programs: BTreeSet<&str> = texts.iter().flat_map(|text| started(text)).collect();
    for known in ["nft", "ip", "systemctl", "unshare"] {
        assert!(programs.contains(known), "{programs:?}");
    }
    for program in programs {
        // What has made such rules is there to save them.
        if program.starts_with("iptables") || program.starts_with("ip6tables") {
            continue;
        }
        let found = out("dpkg", &["--search", &format!("*bin/{program}")]);
        let of = |line: &str| Some(line.split_once(": ")?.0.to_owned());
        let packages: Vec<String> = found.lines().filter_map(of).collect();
        let is_there = |package: &String| {
            let query = ["--show", "--showformat=${Essential}", package];
            depends.contains(&package.as_str()) || out("dpkg-query", &query) == "yes"
        };
        assert!(packages.iter().any(is_there), "{program}: {packages:?}");
    }
}

#[test]
fn an_upgrade_under_a_running_server_loses_no_grant_and_no_session() {
    let lab = Lab::new(binaries!());
    let home = Home::new(&lab);
    let machine = &home.machine;
    // Longer than any upgrade takes.
    let longer = [
        "sed",
        "-i",
        "s/^default_duration = \"30s\"/default_duration = \"30m\"/",
    ];
    machine.run(&[&longer[..], &[CONFIG]].concat()).ok();
    home.enable();
    home.gets_in();
    let mut session = home.session();

    let before = machine.main_pid(DAEMON);
    let config = fs::read(machine.file(CONFIG)).unwrap();
    home.install(&server("1.1-1"));
    assert_ne!(machine.main_pid(DAEMON), before);
    assert_eq!(machine.property(DAEMON, "ActiveState"), "active");
    assert_eq!(fs::read(machine.file(CONFIG)).unwrap(), config);
    home.has_the_grant();
    let v4 = lab.server.v4.into();
    assert_eq!(wire::probe(&lab.laptop, v4, 22), Probe::Open);
    home.is_shut();
    session.say("through the upgrade");
    session.expect("got through the upgrade");

    // Once more, and as after a failure: nothing changes.
    machine.run(&["dpkg-reconfigure", "oneknockd"]).ok();
    home.install(&server("1.1-1"));
    home.has_the_grant();
    home.is_shut();
    home.gets_in();
}

#[test]
fn a_package_that_is_installed_guards_nothing_and_one_that_is_purged_leaves_nothing() {
    let lab = Lab::new(binaries!());
    let home = Home::bare(&lab);
    let machine = &home.machine;
    let traces = [
        "sh",
        "-c",
        "find /etc /usr /var/lib /var/cache /run -name '*oneknock*' -print;
         getent passwd oneknock; getent group oneknock; nft list tables;
         systemctl list-units --all --plain --no-legend '*oneknock*'",
    ];
    let before = machine.run(&traces).out;
    home.install(&server("1.0-1"));
    assert_eq!(machine.property(DAEMON, "ActiveState"), "inactive");
    // There is nothing to make a guard of, and whoever thinks that there is one learns it.
    assert_ne!(machine.run(&["systemctl", "start", DAEMON]).code, Some(0));
    machine.until_logged(DAEMON, "make it with: oneknockctl init", 1);
    let v4 = lab.server.v4.into();
    assert_eq!(wire::probe(&lab.stranger, v4, 22), Probe::Open);

    home.configure();
    home.enable();
    home.gets_in();
    home.is_shut();
    machine.run(&["dpkg", "--remove", "oneknockd"]).ok();
    // Nobody could open the door any more.
    assert_eq!(wire::probe(&lab.stranger, v4, 22), Probe::Open);
    assert!(machine.file(CONFIG).exists());

    home.install(&server("1.0-1"));
    home.enable();
    home.gets_in();
    home.is_shut();
    machine.run(&["dpkg", "--purge", "oneknockd"]).ok();
    assert_eq!(wire::probe(&lab.stranger, v4, 22), Probe::Open);
    assert_eq!(machine.run(&traces).out, before);
    // To purge what is gone is no failure.
    machine.run(&["dpkg", "--purge", "oneknockd"]).ok();
}

#[test]
fn the_client_is_installed_upgraded_and_purged_and_its_doors_stay_their_owners() {
    let lab = Lab::new(binaries!());
    let home = Home::new(&lab);
    let mut laptop = Machine::new(&lab, &lab.laptop);
    laptop.boot();
    let find = ["find", "/etc", "/usr", "/var/lib", "-name", "*oneknock*"];
    let before = laptop.run(&find).out;
    let install = |version| {
        let file = "/root/package.deb";
        laptop.copy(&client(version), file, 0o644);
        laptop.run(&["dpkg", "--install", file]).ok();
    };
    install("1.0-1");
    let key = home
        .machine
        .run(&["oneknockctl", "key", "add", "tablet"])
        .ok();
    laptop.run_with(&["oneknock", "import"], &key).ok();
    let doors = laptop.run(&["oneknock", "list"]).ok();
    assert!(doors.contains("home"), "{doors}");
    install("1.1-1");
    assert_eq!(laptop.run(&["oneknock", "list"]).ok(), doors);
    let complete = "/usr/share/bash-completion/completions/oneknock";
    assert!(laptop.file(complete).exists());
    for way in ["--remove", "--purge", "--purge"] {
        laptop.run(&["dpkg", way, "oneknock"]).ok();
    }
    assert_eq!(laptop.run(&find).out, before);
    let door = "/root/.config/oneknock/profiles/home.toml";
    assert!(laptop.file(door).exists());
}

#[test]
fn keys_that_were_made_before_the_package_was_there_are_taken() {
    let lab = Lab::new(binaries!());
    let home = Home::bare(&lab);
    let Binaries { oneknockctl, .. } = binaries!();
    let by_hand = "/usr/local/sbin/oneknockctl";
    home.machine.copy(Path::new(oneknockctl), by_hand, 0o755);
    home.configure();
    home.install(&server("1.0-1"));
    home.enable();
    home.gets_in();
    home.has_no_state_but_its_own();
}
