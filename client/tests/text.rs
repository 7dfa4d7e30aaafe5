//! Everything that a person reads, as files in `tests/text`. After a change of words:
//! `SNAPSHOTS=overwrite cargo test -p oneknock --test text`, and read what `git diff` shows.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

mod common;

use common::{Done, Home, invitation, row};
use oneknock_shared::invitation::Invitation;
use oneknock_shared::secret::Secret;
use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, UdpSocket};

/// A home whose runs are written down.
struct Transcript {
    home: Home,
    text: String,
}

impl Transcript {
    fn new() -> Self {
        Self {
            home: Home::new(),
            text: String::new(),
        }
    }

    /// Runs the program, and writes down what it said and how it ended.
    fn run(&mut self, args: &[&str], input: &str) -> Done {
        let done = self.home.run(args, input);
        let _ = writeln!(self.text, "$ oneknock {}", args.join(" "));
        for (name, said) in [("", &done.out), ("stderr| ", &done.err)] {
            for line in said.lines() {
                let _ = writeln!(self.text, "{}", format!("{name}{line}").trim_end());
            }
        }
        let _ = writeln!(self.text, "exit status {}\n", done.code.unwrap());
        done
    }

    fn import(&mut self, invitation: &Invitation, args: &[&str]) {
        self.run(&[&["import"], args].concat(), &invitation.to_line());
    }

    /// Holds it against the file, with what differs from run to run under names.
    fn is(&self, file: &str, names: &[(&str, &str)]) {
        let mut text = self.text.clone();
        let home = self.home.profile("x");
        let home = home.parent().unwrap().parent().unwrap().parent().unwrap();
        text = text.replace(home.to_str().unwrap(), "[CONFIG]");
        for (value, name) in names {
            text = text.replace(value, name);
        }
        let path = format!("{}/tests/text/{file}.txt", env!("CARGO_MANIFEST_DIR"));
        let path = std::path::Path::new(&path);
        snapbox::assert_data_eq!(text, snapbox::Data::read_from(path, None));
    }
}

#[test]
fn help_pages() {
    let mut all = Transcript::new();
    all.run(&["--help"], "");
    for command in [
        "import",
        "list",
        "show",
        "remove",
        "open",
        "close",
        "hold",
        "ssh",
        "proxy",
        "ssh-config",
        "rotate",
        "sequence",
        "doctor",
    ] {
        all.run(&[command, "--help"], "");
    }
    all.is("help", &[]);
}

#[test]
fn profiles_come_and_go() {
    let mut all = Transcript::new();
    all.run(&["list"], "");
    let first = row("mosh-range-and-sequence");
    all.import(&first, &[]);
    all.import(&first, &[]);
    let mut changed = first.clone();
    changed.host = "new.example.org".parse().unwrap();
    all.import(&changed, &[]);
    let mut newer = changed.clone();
    newer.generation += 1;
    newer.secret = Secret::generate().unwrap();
    all.import(&newer, &[]);
    all.import(&newer, &["--replace"]);
    let mut other = newer.clone();
    other.secret = Secret::generate().unwrap();
    all.import(&other, &[]);
    let mut soon = row("plain");
    soon.not_after = Some(oneknock_shared::knock::Timestamp(1_000_000_000_000));
    all.import(&soon, &["--name", "work"]);
    all.run(&["list"], "");
    all.run(&["show", "home"], "");
    all.run(&["show", "work"], "");
    all.run(&["remove", "work"], "");
    all.run(&["remove", "work"], "");
    all.is("profiles", &[]);
}

#[test]
fn what_is_wrong() {
    let mut all = Transcript::new();
    all.run(&["open", "home"], "");
    all.import(&row("plain"), &[]);
    all.run(&["opne", "home"], "");
    all.run(&["open"], "");
    all.run(&["open", "hom"], "");
    all.run(&["open", "home", "--service", "web"], "");
    all.run(&["open", "home", "--for", "0s"], "");
    all.run(&["open", "home", "--address", "127.0.0.1"], "");
    all.run(&["open", "home", "--via", "sequence"], "");
    all.run(&["proxy", "home", "192.0.2.1", "23"], "");
    all.run(&["ssh", "-v"], "");
    all.run(&["ssh", "-l@x", "a b@home"], "");
    all.run(&["import"], "");
    all.run(&["import"], "oneknock1:x");
    all.run(&["import", "oneknock1:x"], "");
    all.run(&["import", "nowhere"], "");
    all.run(&["show", "nowhere", "--json"], "");
    fs::write(all.home.profile("home"), "hots = 1\n").unwrap();
    all.run(&["open", "home"], "");
    all.run(&["list"], "");
    all.is("wrong", &[]);
}

#[test]
fn what_comes_of_a_knock() {
    let mut all = Transcript::new();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp = socket.local_addr().unwrap().port();
    // The handshake alone, and nothing at all.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let mute_port = mute.local_addr().unwrap().port();
    let shut = TcpListener::bind("127.0.0.1:0").unwrap();
    let shut_port = shut.local_addr().unwrap().port();
    drop(shut);
    let mut at = |name: &str, ports: String, args: &[&str]| {
        let one = invitation("127.0.0.1", udp, &[ports]);
        all.import(&one, &["--name", name]);
        all.run(args, "");
    };
    at("refused", format!("tcp/{shut_port}"), &["open", "refused"]);
    let short = ["open", "mute", "--timeout", "1s"];
    at("mute", format!("tcp/{mute_port}"), &short);
    at("game", "udp/53".into(), &["open", "game"]);
    all.run(&["close", "game"], "");
    drop(socket);
    all.run(&["open", "game"], "");
    all.run(&["open", "mute", "refused", "--timeout", "1s"], "");
    // The clock is another one each time.
    let lines: Vec<String> = all.text.lines().map(without_clock).collect();
    all.text = lines.join("\n") + "\n";
    let (udp, mute_port) = (udp.to_string(), mute_port.to_string());
    let shut_port = shut_port.to_string();
    all.is(
        "knocks",
        &[
            (&udp, "[UDP]"),
            (&mute_port, "[MUTE]"),
            (&shut_port, "[SHUT]"),
        ],
    );
}

fn without_clock(line: &str) -> String {
    match (line.find("(it says "), line.find(");")) {
        (Some(from), Some(to)) => format!("{}[CLOCK]{}", &line[..from + 9], &line[to..]),
        _ => line.into(),
    }
}
