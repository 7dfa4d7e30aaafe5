//! What bash, zsh and fish complete, asked of the shells themselves.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::{Host, Site, binaries};
use std::path::Path;

/// What a shell offers for the last word of a line.
fn offered(host: &Host, shell: &str, line: &[&str]) -> Vec<String> {
    let (program, last) = (line[0], line.len() - 1);
    let part = if program == "oneknock" {
        "client"
    } else {
        "server"
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folder = root.join(part).join("completions");
    let word = line[last];
    let words = line.iter().map(|word| format!("'{word}'"));
    let words = words.collect::<Vec<_>>().join(" ");
    let (file, script) = match shell {
        "bash" => (
            format!("{program}.bash"),
            format!(
                "source \"$0\"; COMP_WORDS=({words}); COMP_CWORD={last}
                 _clap_complete_{program} {program} '{word}' 2>/dev/null
                 printf '%s\\n' \"${{COMPREPLY[@]}}\""
            ),
        ),
        "zsh" => (
            format!("_{program}"),
            format!(
                "compdef() {{}}; _describe() {{ print -rl -- ${{(P)@[-1]}} }}
                 words=({words}); CURRENT={}; source \"$0\"",
                last + 1
            ),
        ),
        _ => (
            format!("{program}.fish"),
            format!("source $argv[1]; complete -C \"{}\"", line.join(" ")),
        ),
    };
    let file = folder.join(file);
    let options = if shell == "zsh" { "-fc" } else { "-c" };
    let asked = [shell, options, &script, file.to_str().unwrap()];
    let lines = host.run(&asked).ok();
    let names = lines.lines().map(|line| {
        // Behind it stands what it means.
        let name = line.split(['\t', ':']).next().unwrap_or_default();
        name.trim_end().to_owned()
    });
    names.filter(|name| !name.is_empty()).collect()
}

#[test]
fn each_shell_completes_commands_options_doors_and_keys() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    site.key("laptop-2", &["ssh"]);
    site.key("phone", &["ssh"]);
    for door in ["home", "house", "work"] {
        site.import(&site.lab.laptop, &key, door);
    }
    let config = site.dir.to_str().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let laptop = |line: &[&str]| offered(&site.lab.laptop, shell, line);
        assert_eq!(laptop(&["oneknock", "op"]), ["open"], "{shell}");
        assert_eq!(
            laptop(&["oneknock", "open", "ho"]),
            ["home", "house"],
            "{shell}"
        );
        assert_eq!(laptop(&["oneknock", "ssh", "w"]), ["work"], "{shell}");
        assert_eq!(
            laptop(&["oneknock", "open", "home", "--no"]),
            ["--no-wait"],
            "{shell}"
        );
        let server = |line: &[&str]| {
            let line = [&["oneknockctl", "--config", config], line].concat();
            offered(&site.lab.server, shell, &line)
        };
        assert_eq!(server(&["key", "rot"]), ["rotate"], "{shell}");
        let laptops = ["laptop", "laptop-2"];
        assert_eq!(server(&["key", "rotate", "l"]), laptops, "{shell}");
        assert_eq!(server(&["revoke", "p"]), ["phone"], "{shell}");
        assert_eq!(server(&["log", "p"]), ["phone"], "{shell}");
        let equals = format!("--config={config}");
        let line = ["oneknockctl", &equals, "revoke", "p"];
        if shell != "bash" {
            // bash takes the word apart at the sign.
            let host = &site.lab.server;
            assert_eq!(offered(host, shell, &line), ["phone"], "{shell}");
        }
        // A key that is to be made has no name yet.
        assert!(
            !server(&["key", "add", ""]).contains(&"phone".into()),
            "{shell}"
        );
    }
}
