//! Profiles come and go by the command line, and bad input changes nothing.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

mod common;

use common::{Home, invitation, row};
use std::fs;

#[test]
fn a_door_is_imported_listed_shown_and_removed() {
    let invitation = row("mosh-range-and-sequence");
    let home = Home::with(&invitation);
    let list = home.run(&["list"], "");
    assert_eq!(list.code, Some(0), "{list:?}");
    assert_eq!(
        list.out,
        "NAME  HOST              PORT   KEY AGE  SERVICES\n\
         home  home.example.org  45123  -        ssh, web\n"
    );
    let show = home.run(&["show", "home"], "");
    assert!(
        show.out.contains("ssh: tcp/22, udp/60000-61000"),
        "{show:?}"
    );
    assert!(show.out.contains("tcp/7411, udp/50322"), "{show:?}");
    assert!(
        !show.out.contains(invitation.secret.to_base64().as_str()),
        "{show:?}"
    );
    let removed = home.run(&["remove", "home"], "");
    assert_eq!((removed.code, &*removed.out), (Some(0), ""), "{removed:?}");
    assert!(!home.profile("home").exists());
    assert!(
        home.run(&["remove", "home"], "")
            .is_refusal()
            .contains("home")
    );
    assert!(
        home.run(&["show", "home"], "")
            .is_refusal()
            .contains("home")
    );
}

#[cfg(unix)]
#[test]
fn a_door_is_private_and_one_that_is_not_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::with(&row("plain"));
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let file = home.profile("home");
    let folder = file.parent().unwrap();
    assert_eq!((mode(&file), mode(folder)), (0o600, 0o700));
    for bad in [0o644, 0o640, 0o660, 0o602] {
        fs::set_permissions(&file, PermissionsExt::from_mode(bad)).unwrap();
        let done = home.run(&["open", "home"], "");
        assert!(done.is_invalid().contains("home.toml"));
        assert!(
            done.err.contains(&format!("chmod 600 {}", file.display())),
            "{done:?}"
        );
    }
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    fs::set_permissions(folder, PermissionsExt::from_mode(0o770)).unwrap();
    let done = home.run(&["show", "home"], "");
    done.is_invalid();
    assert!(
        done.err
            .contains(&format!("hint: chmod 700 {}", folder.display())),
        "{done:?}"
    );
}

#[test]
fn a_broken_door_is_named_with_line_or_field_and_never_shows_the_secret() {
    let invitation = row("mosh-range-and-sequence");
    let secret = invitation.secret.to_base64();
    let home = Home::with(&invitation);
    let good = fs::read_to_string(home.profile("home")).unwrap();
    let with_secret = format!("\"{}\"", *secret);
    for (from, to, says) in [
        ("host = ", "hots = ", "line 2: unknown field `hots`"),
        ("home.example.org", "-oProxyCommand=x", "host: "),
        ("home.example.org", "a\\nProxyCommand x", "host: "),
        ("home.example.org", "a%h", "host: "),
        ("45123", "0", "port: "),
        ("45123", "65536", "line 3: "),
        ("45123", &with_secret, "line 3: "),
        ("generation = 1", "generation = 0", "generation: "),
        ("address = \"any\"", "address = \"all\"", "address: "),
        ("secret = \"", "secret = \"A", "secret: "),
        ("secret = \"", "secret = ", "line 7: "),
        ("name = \"web\"", "name = \"ssh\"", "ssh is there twice"),
        ("\"tcp/8443\"", "", "web has no port"),
        ("tcp/7411", "tcp/0", "sequence: "),
        (&good, "", "missing field"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        fs::write(home.profile("home"), &bad).unwrap();
        let done = home.run(&["show", "home"], "");
        let line = done.is_invalid();
        assert!(
            line.contains("home.toml: ") && line.contains(says),
            "{says}: {line}"
        );
        assert!(!done.err.contains(&secret[1..20]), "{done:?}");
    }
}

#[test]
fn list_prints_the_good_doors_and_names_the_broken_ones() {
    let home = Home::with(&row("plain"));
    fs::write(home.profile("broken"), "nonsense").unwrap();
    fs::write(home.profile(".new-left-by-a-crash"), "").unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(home.profile("broken"), PermissionsExt::from_mode(0o600)).unwrap();
    }
    let done = home.run(&["list"], "");
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(done.out.contains("home  home.example.org"), "{done:?}");
    assert!(done.err.contains("broken.toml: line 1: "), "{done:?}");
    assert!(!done.err.contains("crash"), "{done:?}");
}

#[test]
fn an_unknown_service_or_port_is_refused_with_what_there_is() {
    let home = Home::with(&invitation("192.0.2.1", 1, &["udp/53".into()]));
    let done = home.run(&["open", "home", "--service", "web"], "");
    assert!(done.is_refusal().contains("services: ssh"));
    let done = home.run(&["proxy", "home", "192.0.2.1", "22"], "");
    assert!(done.is_refusal().contains("ports: udp/53"));
    for command in [
        &["proxy", "home"][..],
        &["ssh", "home"],
        &["ssh-config", "home"],
    ] {
        assert!(home.run(command, "").is_refusal().contains("no TCP port"));
    }
}

#[test]
fn wrong_usage_is_one_line_and_status_2() {
    let home = Home::with(&row("ipv6-literal")); // Its server demands a signed address.
    for args in [
        &["open"][..],
        &["open", "home", "--for", "0s"],
        &["open", "home", "--for", "1500ms"],
        &["open", "home", "--for", "30"],
        &["open", "home", "--timeout", "1ms"],
        &["open", "home", "--address", "me"],
        &["open", "home", "--address", "127.0.0.1"],
        &["open", "home", "--address", "source"],
        &["close", "home", "--address", "source"],
        &["open", "home", "-4", "-6"],
        &["open", "../home"],
        &["open", "ho\nme"],
        &["proxy", "home", "-oProxyCommand=x", "22"],
        &["proxy", "home", "a b", "22"],
        &["proxy", "home", "h", "0"],
        &["ssh", "--", "-oProxyCommand=x@home"],
        &["nonsense"],
    ] {
        home.run(args, "").is_refusal();
    }
}

#[test]
fn what_may_have_been_meant_is_a_hint() {
    let done = Home::new().run(&["opne"], "");
    assert_eq!(done.code, Some(2), "{done:?}");
    let lines: Vec<&str> = done.err.lines().collect();
    assert_eq!(lines[0], "error: unrecognized subcommand 'opne'");
    assert!(
        lines[1].starts_with("hint: ") && lines[1].contains("'open'"),
        "{done:?}"
    );
    // A profile that begins with a hyphen is not one.
    for args in [
        &["ssh", "-oX", "home"][..],
        &["close", "home", "--for", "3s"],
    ] {
        let done = Home::new().run(args, "");
        done.is_refusal();
        assert!(!done.err.contains("'-- -"), "{done:?}");
    }
    for time in ["5", "nonsense"] {
        let done = Home::new().run(&["open", "home", "--for", time], "");
        assert!(
            done.is_refusal().contains("write it as 30s or 2h"),
            "{done:?}"
        );
    }
}

#[test]
fn close_asks_which_address_to_shut_out() {
    for args in [&["close", "--help"], &["help", "close"]] {
        let done = Home::new().run(args, "");
        assert_eq!(done.code, Some(0), "{done:?}");
        // What a close signs unasked is not what an open does.
        let says = "The address to close the port for: auto (the packet's source;";
        assert!(done.out.contains(says), "{done:?}");
        assert!(!done.out.contains("admit"), "{done:?}");
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    let home = Home::new();
    for args in [
        &["--help"][..],
        &["--version"],
        &["open", "--help"],
        &["ssh", "-h"],
    ] {
        let done = home.run(args, "");
        assert_eq!((done.code, &*done.err), (Some(0), ""), "{done:?}");
        assert!(done.out.contains("oneknock"), "{done:?}");
    }
}

#[cfg(unix)]
#[test]
fn where_there_is_no_ssh_it_says_so_with_status_127() {
    let home = Home::with(&row("plain"));
    let done = home
        .command(&["ssh", "home"])
        .env("PATH", "/nowhere")
        .output();
    let done = common::Done::from(done.unwrap());
    assert_eq!(done.code, Some(127), "{done:?}");
    assert!(done.err.starts_with("error: cannot run ssh: "), "{done:?}");
}

#[cfg(unix)]
#[test]
fn ssh_itself_understands_what_is_printed_and_passed() {
    let home = Home::with(&invitation("2001:db8::7", 1, &["tcp/2222".into()]));
    let dir = tempfile::tempdir().unwrap();
    // A path with all that a shell and ssh could trip over.
    let odd = dir.path().join("it's 100% $(x) \"odd\"");
    fs::create_dir(&odd).unwrap();
    let program = odd.join("oneknock");
    // By another process: a program that is being started beside this could still hold the
    // file open for writing, which then cannot be run.
    let copied = std::process::Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_oneknock"))
        .arg(&program)
        .status();
    assert!(copied.unwrap().success());
    let run = |args: &[&str]| {
        let mut command = home.command(&[]);
        let mut odd = std::process::Command::new(&program);
        odd.args(args)
            .envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
        command = odd;
        common::Done::from(command.output().unwrap())
    };
    let config = dir.path().join("config");
    let printed = run(&["ssh-config", "home"]).out;
    fs::write(&config, &printed).unwrap();
    let config = config.to_str().unwrap();
    let by_file = std::process::Command::new("ssh")
        .args(["-G", "-F", config, "home"])
        .output();
    let by_file = common::Done::from(by_file.unwrap());
    let by_option = run(&["ssh", "me@home", "-G", "-F", "/dev/null"]);
    assert!(by_option.out.contains("user me\n"), "{by_option:?}");
    for done in [by_file, by_option] {
        assert_eq!(done.code, Some(0), "{done:?}\n{printed}");
        for line in ["hostname 2001:db8::7\n", "port 2222\n"] {
            assert!(done.out.contains(line), "{line}: {done:?}");
        }
        // ssh would expand the percents and give the rest to the shell: so does this.
        let word = done
            .out
            .lines()
            .find_map(|l| l.strip_prefix("proxycommand "))
            .unwrap();
        let shown = word
            .replace("%%", "%")
            .replace(" proxy home %h %p", " list");
        let listed = home.command(&[]);
        let mut shell = std::process::Command::new("sh");
        shell
            .args(["-c", &shown])
            .envs(listed.get_envs().filter_map(|(k, v)| Some((k, v?))));
        let listed = common::Done::from(shell.output().unwrap());
        assert!(listed.out.contains("2001:db8::7"), "{word}: {listed:?}");
    }
}
