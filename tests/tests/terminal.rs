//! What a person at a terminal sees, and nobody else does.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::{Host, Running, Site, binaries, wait, wire};

/// What `line` writes on a terminal, `TERM` being set as most have it.
fn on_terminal(site: &Site, line: &str) -> String {
    let script = ["script", "--quiet", "--command", line, "/dev/null"];
    let line = [&["env", "TERM=xterm"][..], &script].concat();
    site.lab.laptop.run(&line).out
}

#[test]
fn while_the_door_is_waited_for_a_terminal_shows_it_and_a_file_does_not() {
    let site = Site::new(binaries!());
    site.laptop_key();
    // Shut, and nobody knocks for it.
    site.ctl(&["debug", "boot-guard"]).ok();
    let shown = on_terminal(&site, "oneknock open home --timeout 2s");
    let line = "oneknock: knocking at home: tcp/22 does not answer yet, 1 s";
    assert!(shown.contains(line), "{shown:?}");
    // It is gone before anything else is said.
    let (line_without_time, _) = line.rsplit_once(", ").unwrap();
    let (_, after) = shown.rsplit_once(line_without_time).unwrap();
    let blank = format!("\r{:width$}\rerror: ", "", width = line.len());
    assert!(after.contains(&blank), "{shown:?}");
    let dumb = "TERM=dumb oneknock open home --timeout 2s";
    assert!(!on_terminal(&site, dumb).contains("yet"));
    let said = site.oneknock(&["open", "home", "--timeout", "2s"]);
    assert!(!said.err.contains("yet"), "{said}");

    // Standard error is what counts: standard output is for other programs.
    let shown = on_terminal(&site, "oneknock open home --timeout 2s >out");
    assert!(shown.contains(line), "{shown:?}");
    let out = std::fs::read_to_string(site.lab.laptop.home.join("out")).unwrap();
    assert_eq!(out, "");
    let shown = on_terminal(&site, "oneknock open home --timeout 2s 2>err");
    assert!(!shown.contains("yet"), "{shown:?}");
    // ssh is let in by another process, which has the same terminal.
    let ssh = format!("oneknock ssh home -F {} true", site.sshd.config());
    let shown = on_terminal(&site, &ssh);
    assert!(shown.contains(line), "{shown:?}");

    let _daemon = site.daemon();
    let shown = on_terminal(&site, "oneknock open home");
    assert!(!shown.contains("yet"), "{shown:?}");
}

#[test]
fn on_a_terminal_watch_draws_who_is_in_counting_down_and_what_happened() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let server = site.lab.server.v4.into();
    let knock = |host: &Host, seconds| {
        key.knock(host, server, &wire::open(Some("ssh"), seconds));
    };
    knock(&site.lab.stranger, 600);
    daemon.expect("granted address=203.0.113.9");
    let dir = site.dir.display();
    let line = format!(
        "export TERM=xterm; stty columns 60 rows 20; oneknockctl --config {dir} log --follow"
    );
    let script = ["script", "--quiet", "--command", &line, "/dev/null"];
    let mut view = Running::start("view", site.lab.server.command(&script));
    view.expect("\x1b[Hactive grants: 1; Ctrl-C ends it");
    let left = |view: &mut Running| {
        let line = view.expect("203.0.113.9 ");
        let left = line
            .split_once(" ssh ")
            .unwrap()
            .1
            .trim()
            .trim_end_matches("\x1b[K");
        humantime::parse_duration(left).unwrap()
    };
    let before = left(&mut view);
    wait::until_true("it counts down", || left(&mut view) < before);
    knock(&site.lab.laptop, 4);
    view.expect("active grants: 2;");
    view.expect("granted laptop 198.51.100.7 ssh 4s");
    view.expect("active grants: 1;");
    view.expect("expired laptop 198.51.100.7 ssh");
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    view.expect("the daemon has stopped");
}

#[test]
fn colours_are_on_a_terminal_alone_and_not_where_nobody_wants_them() {
    let site = Site::new(binaries!());
    for program in ["oneknock", "oneknockctl", "oneknockd"] {
        let coloured = on_terminal(&site, &format!("{program} --help"));
        assert!(coloured.contains("\x1b["), "{coloured:?}");
        let plain = on_terminal(&site, &format!("NO_COLOR=1 {program} --help"));
        assert!(
            plain.contains("Usage") && !plain.contains('\x1b'),
            "{plain:?}"
        );
        let piped = site.lab.laptop.run(&[program, "--help"]).ok();
        assert!(
            piped.contains("Usage") && !piped.contains('\x1b'),
            "{piped:?}"
        );
    }
}
