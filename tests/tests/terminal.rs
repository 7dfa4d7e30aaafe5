//! What a person at a terminal sees, and nobody else does.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::{Site, binaries};

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
    site.ctl(&["guard"]).ok();
    let shown = on_terminal(&site, "oneknock open home --timeout 2s");
    let line = "oneknock: knocking at home: tcp/22 does not answer yet, 1 s";
    assert!(shown.contains(line), "{shown:?}");
    // It is gone before anything else is said.
    let (_, after) = shown.rsplit_once(line).unwrap();
    let blank = format!("\r{:width$}\roneknock: ", "", width = line.len());
    assert!(after.starts_with(&blank), "{shown:?}");
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
    assert!(!shown.contains("oneknock:"), "{shown:?}");
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
