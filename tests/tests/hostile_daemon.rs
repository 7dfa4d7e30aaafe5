//! A daemon that was taken over answers root's `oneknockctl`: what it says is shown as
//! text.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::control::socket;
use oneknock_tests::{Site, binaries};
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Answers each of so many calls with the same line.
fn answer(listener: &UnixListener, times: usize, line: &str) {
    for stream in listener.incoming().take(times) {
        let mut stream = stream.unwrap();
        let mut asked = String::new();
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        lines.read_line(&mut asked).unwrap();
        // Whoever asked may have had enough.
        let _ = stream.write_all(line.as_bytes());
    }
}

#[test]
fn a_list_of_grants_that_never_ends_is_given_up() {
    let site = Site::new(binaries!());
    let socket = socket(&site);
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap();
    let grant = r#"{"key":"laptop","address":"192.0.2.7","service":"ssh","seconds":9}"#;
    let line =
        format!("{{\"v\":1,\"ok\":{{\"grants\":[{grant}],\"sequence\":[],\"more\":true}}}}\n");
    let done = std::thread::scope(|scope| {
        scope.spawn(|| answer(&listener, 2, &line));
        site.ctl(&["grants"])
    });
    assert!(done.err.contains("does not end"), "{done}");
    done.fails(1);
}

#[test]
fn what_lies_in_the_last_good_copys_place_is_not_restored() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    let text = fs::read_to_string(site.config()).unwrap();
    fs::remove_file(site.config()).unwrap();
    let copy = site.state().join("last-good.toml");
    let secret = site.lab.server.home.join("secret");
    let private = |path: &Path| {
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    };
    fs::write(&secret, &text).unwrap();
    private(&secret);
    let spoils: [&dyn Fn(); 4] = [
        &|| symlink(&secret, &copy).unwrap(),
        &|| fs::hard_link(&secret, &copy).unwrap(),
        &|| fs::write(&copy, &text).unwrap(),
        &|| fs::write(&copy, "root:x:0:0\n").unwrap(),
    ];
    for (at, spoil) in spoils.iter().enumerate() {
        spoil();
        if at == 3 {
            private(&copy);
        }
        let said = site.ctl(&["init", "--restore"]);
        assert_eq!((said.code, said.out.as_str()), (Some(3), ""), "{said}");
        let said = said.err + &site.ctl(&["check"]).err;
        for command in ["cp ", "chmod", "chown"] {
            assert!(!said.contains(command), "{said}");
        }
        assert!(!site.config().exists());
        fs::remove_file(&copy).unwrap();
    }
    // One that is the daemon's own is shown as text.
    fs::write(&copy, &text).unwrap();
    private(&copy);
    assert_eq!(site.ctl(&["init", "--restore"]).ok(), text);
    assert_eq!(fs::read_to_string(site.config()).unwrap(), text);
    let said = site.ctl(&["init", "--restore"]).fails(5);
    assert!(said.contains("exists already"), "{said}");
}

#[test]
fn what_it_says_moves_no_cursor_and_has_an_end() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    let socket = socket(&site);
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap();
    let evil = r"\u001b[2J\u009b31m\r\nroot: all is well\u0007";
    let error = format!(
        r#"{{"v":1,"error":{{"code":"E-FAILED","message":"{evil}","errors":["{evil}"]}}}}"#
    );
    let event = format!(
        r#"{{"v":1,"ok":{{"rejections":[{{"last":{{"at":"1970-01-01T00:00:00.001Z","event":"refused","key":"{evil}","address":"192.0.2.7","authenticated":false,"service":null,"seconds":null,"generation":null,"ahead_seconds":null,"reason":"{evil}"}},"times":1}}],"unknown":[],"waits_for_clock":false}}}}"#
    );
    let cases = [
        (&["status"][..], 1, format!("{error}\n")),
        (&["reload"], 1, format!("{error}\n")),
        (&["key", "add", "second"], 1, format!("{error}\n")),
        (&["log", "--denied"], 2, format!("{event}\n")),
        (&["status"], 1, "x".repeat(3 << 20)),
    ];
    for (args, calls, line) in cases {
        let said = std::thread::scope(|scope| {
            scope.spawn(|| answer(&listener, calls, &line));
            site.ctl(args)
        });
        let all = format!("{}{}", said.out, said.err);
        let moves = |c: char| c.is_control() && c != '\n';
        assert!(!all.contains(moves), "{all:?}");
        assert!(
            !all.lines().any(|line| line.starts_with("root:")),
            "{all:?}"
        );
    }
}
