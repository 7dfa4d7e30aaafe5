//! `oneknockctl doctor`, where something on the machine hides: what does not answer, has a
//! name that no program prints, or is before all other rules.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::{Done, Site, binaries};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A program of this name on the server's machine, before the real one.
fn program(site: &Site, name: &str, lines: &str) {
    let program = site.lab.dir().join("bin").join(name);
    fs::write(&program, format!("#!/bin/sh\n{lines}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
}

fn site() -> Site {
    let site = Site::new(binaries!());
    site.laptop_key();
    program(&site, "timedatectl", "echo yes");
    site
}

fn doctor(site: &Site) -> Done {
    site.ctl(&["doctor"])
}

#[test]
fn a_program_that_does_not_answer_is_given_up_and_named() {
    let site = site();
    let _daemon = site.daemon();
    program(&site, "timedatectl", "exec sleep 600");
    let said = doctor(&site);
    let clock = "timedatectl: it did not answer within 5 s";
    assert!(said.out.contains(clock), "{said}");
    // And nothing else is left out for it.
    let drop = "table inet mine { chain input { type filter hook input priority 0
        udp dport 45123 drop
    }
    }";
    site.lab.server.nft(drop);
    let said = doctor(&site);
    assert!(said.out.contains("table inet mine"), "{said}");
    said.fails(1);
}

#[test]
fn a_table_of_any_name_is_shown_as_text_is_an_error_and_hides_no_other() {
    let site = site();
    let _daemon = site.daemon();
    let drop = "table inet mine { chain input { type filter hook input priority 0; policy drop
    }
    }";
    site.lab.server.nft(drop);
    let plain = doctor(&site);
    let errors = |said: &Done| said.out.matches("error: ").count();
    assert!(errors(&plain) > 0, "{plain}");
    // The kernel takes names that nft's own language has no words for.
    let real = site.lab.server.run(&["sh", "-c", "command -v nft"]).ok();
    let odd = format!(
        "[ \"$*\" = '--json list tables' ] || exec {real} \"$@\"
        {real} \"$@\" | sed 's/^{{\"nftables\": \\[/&{objects}/'",
        real = real.trim(),
        objects = ["\\\\u001b]0;pwned\\\\u0007x", "a b"].map(|name| {
            format!("{{\"table\": {{\"family\": \"inet\", \"name\": \"{name}\", \"handle\": 90}}}}, ")
        }).concat()
    );
    program(&site, "nft", &odd);
    let said = doctor(&site);
    let moves = |c: char| c.is_control() && c != '\n';
    assert!(
        !format!("{}{}", said.out, said.err).contains(moves),
        "{said}"
    );
    for name in ["inet \\u{1b}]0;pwned\\u{7}x", "inet a b"] {
        let unread = format!("error: table {name} cannot be read");
        assert!(said.out.contains(&unread), "{said}");
    }
    assert_eq!(errors(&said), errors(&plain) + 2, "{said}");
    said.fails(1);
}

#[test]
fn a_table_before_all_others_that_drops_knocks_is_found() {
    let site = site();
    let _daemon = site.daemon();
    let table = |name: &str, link: &str| {
        format!(
            "table netdev {name} {{ chain c {{ type filter hook ingress device \"{link}\" priority 0
                udp dport 45123 drop
            }}
            }}"
        )
    };
    site.lab.server.nft(&table("early", "eth0"));
    let said = doctor(&site);
    let what = "error: knocks do not arrive: table netdev early";
    assert!(said.out.contains(what), "{said}");
    said.fails(1);
    // One for a link that does not lead to the world stops nobody.
    let server = &site.lab.server;
    server.nft("delete table netdev early");
    server.ip_batch("link add inner0 type bridge\n");
    server.nft(&table("inner", "inner0"));
    let said = doctor(&site);
    assert!(!said.out.contains("error: "), "{said}");
}
