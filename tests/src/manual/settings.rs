//! The page of the configuration, from the template that `oneknockctl init` writes, and
//! from what it writes into a key's file.

use super::{escape, paragraphs, title};
use oneknock_shared::port::Ports;
use oneknock_shared::secret::ServerId;
use oneknockd::config::{Config, Policy, Service, key_text, main_text};
use std::fmt::Write;
use std::time::Duration;

/// The page, without its examples.
pub fn page() -> String {
    let id = ServerId::generate().expect("random numbers");
    let (name, host) = ("home".parse().unwrap(), "home.example.org".parse().unwrap());
    let mut config = Config::new(name, host, 45123, id);
    let ports: Ports = "tcp/22".parse().unwrap();
    let ssh = Service::new("ssh".parse().unwrap(), vec![ports]);
    config.services.push(ssh);
    let mut page = title("oneknockd.toml", 5, "what oneknockd guards, and for whom");
    page.push_str(".SH DESCRIPTION\n");
    let about = "`/etc/oneknock/oneknockd.toml` says what the daemon guards and where it \
        listens; each file in `/etc/oneknock/keys` is a key, called as its file without \
        `.toml`. After a change `oneknockctl reload` puts them in force. The values below \
        are those of a new server.";
    paragraphs(&mut page, about);
    page.push_str(".SH SETTINGS\n");
    settings(&mut page, &main_text(&config));
    page.push_str(".SH A KEY'S FILE\n");
    let about = "`oneknockctl key add` writes it, with one table `[[generation]]` for each \
        secret of the key.";
    paragraphs(&mut page, about);
    let policy = Policy {
        max_duration: Some(Duration::from_secs(8 * 3600)),
        ..Policy::new(vec!["ssh".parse().unwrap()])
    };
    settings(&mut page, &key_text(&policy, &[]));
    page
}

/// Comments, and the values that each of them is about.
fn settings(page: &mut String, template: &str) {
    // The first comment is the file's own.
    let file = template.starts_with("# oneknockd:");
    let skipped = usize::from(file);
    for block in template.split("\n\n").skip(skipped) {
        let mut about = Vec::new();
        let mut values = Vec::new();
        for line in block.lines().chain([""]) {
            if let Some(comment) = line.strip_prefix("# ") {
                if !values.is_empty() {
                    say(page, &values, &about);
                    (about, values) = (Vec::new(), Vec::new());
                }
                about.push(comment);
            } else if ["", "#"].contains(&line) {
                say(page, &values, &about);
                (about, values) = (Vec::new(), Vec::new());
            } else {
                values.push(line.trim_start_matches('#'));
            }
        }
    }
}

fn say(page: &mut String, values: &[&str], about: &[&str]) {
    for (at, value) in values.iter().enumerate() {
        page.push_str(if at == 0 { ".TP\n" } else { ".TQ\n" });
        let line = match value.split_once(" = ") {
            // It is another one for each server.
            Some(("server_id", _)) => "\\fBserver_id\\fR = \"...\"".into(),
            Some((name, value)) => format!("\\fB{}\\fR = {}", escape(name), escape(value)),
            None => format!("\\fB{}\\fR", escape(value)),
        };
        let _ = writeln!(page, "{line}");
    }
    if !values.is_empty() {
        let _ = writeln!(page, "{}", escape(&about.join(" ")));
    }
}
