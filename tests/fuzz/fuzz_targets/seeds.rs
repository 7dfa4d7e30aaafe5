//! Writes the seed corpus: for each target a few inputs that get past the first checks.
//! `cargo run --release --bin seeds`, in this folder.

use oneknock_fuzz::{SECRET, forge, server};
use oneknockd::config::{Config, Service, main_text};
use std::fs;
use std::path::Path;

fn main() {
    let data = Path::new("../../shared/tests/data");
    let invitations = fs::read_to_string(data.join("invitations.json")).expect("invitations");
    // A line is all that follows the member's name, up to the next quotation mark.
    let lines = invitations.split("\"line\": \"").skip(1);
    for (at, line) in lines.filter_map(|l| l.split('"').next()).enumerate() {
        write("invitation", at, line.as_bytes());
    }
    let stamp = 1_800_000_000_000_u64;
    for (at, action) in [0, 1, 2].into_iter().enumerate() {
        let mut plain = [0; 44];
        (plain[0], plain[1]) = (1, action);
        plain[4..12].copy_from_slice(&stamp.to_be_bytes());
        plain[28..31].copy_from_slice(b"ssh");
        write("packet", 2 * at, &[&plain[..], &[80, 1]].concat());
        write(
            "packet",
            2 * at + 1,
            &forge(&plain, stamp / 60_000, [7; 12]),
        );
    }
    for (at, steps) in [
        &[6, 128, 0, 0, 0, 3, 0, 0, 0, 0, 40, 3, 0, 0][..],
        &[6, 128, 0, 0, 0, 22, 128, 1, 0, 0, 3, 0, 0],
        &[6, 128, 0, 0, 0, 2, 0, 0, 3, 0, 0, 1, 1, 0, 3, 0, 0],
        &[5, 0, 3, 1, 2, 3, 6, 128, 9, 12, 1, 4, 0, 90],
    ]
    .into_iter()
    .enumerate()
    {
        write("engine", at, steps);
    }
    let mut config = Config::new(
        "home".parse().expect("a name"),
        "home.example.org".parse().expect("a host"),
        45123,
        server(),
    );
    for (at, ports) in [&["tcp/22"][..], &["udp/60000-61000", "tcp/443"]]
        .into_iter()
        .enumerate()
    {
        let ports = ports.iter().map(|p| p.parse().expect("ports")).collect();
        let name = ["ssh", "mosh"][at].parse().expect("a name");
        config.services.push(Service::new(name, ports));
        write("configuration", at, main_text(&config).as_bytes());
    }
    let generation = format!("[[generation]]\nnumber = 1\nsecret = \"{SECRET}\"\n");
    let policy = "services = [\"ssh\"]\n";
    let more = "max_duration = \"8h\"\nrequire_signed_address = true\nallow_other_addresses = false\nmax_grants = 16\n\
                knocks_per_minute = 60\n";
    let times = "not_before = 2026-01-01T00:00:00Z\nnot_after = 2027-01-01T00:00:00Z\n";
    write("key", 0, format!("{policy}{generation}").as_bytes());
    write(
        "key",
        1,
        format!("{policy}{more}{generation}{times}").as_bytes(),
    );
    let commands = [
        "\"status\"}",
        "\"grants\",\"args\":{\"after\":{\"service\":\"ssh\",\"source\":\"192.0.2.7\",\"key\":\"laptop\"}}}",
        "\"reload\"}",
        "\"reload-key\",\"args\":{\"key\":\"laptop\"}}",
        "\"revoke\",\"args\":{\"of\":{\"key\":\"laptop\"},\"generations\":[1,2],\"disconnect\":true}}",
        "\"revoke\",\"args\":{\"of\":{\"address\":\"2001:db8::7\"},\"disconnect\":false}}",
        "\"revoke\",\"args\":{\"of\":\"all\",\"disconnect\":false}}",
        "\"rejections\",\"args\":{\"of\":{\"key\":\"laptop\"}}}",
        "\"start-trial\",\"args\":{\"seconds\":300}}",
        "\"watch\"}",
        "\"teardown\"}",
    ];
    for (at, command) in commands.into_iter().enumerate() {
        write(
            "control",
            at,
            format!("{{\"v\":1,\"command\":{command}").as_bytes(),
        );
    }
}

fn write(target: &str, at: usize, bytes: &[u8]) {
    let folder = Path::new("corpus").join(target);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(format!("seed-{at:02}")), bytes).expect("a seed");
}
