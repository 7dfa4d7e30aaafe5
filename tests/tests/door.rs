//! The main job: a port that is silent for everybody, one packet, and ssh is in.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::capture::{Capture, FROM_SERVER, NOT_HOUSEKEEPING};
use oneknock_tests::lab::SERVER_NAME;
use oneknock_tests::wire::{Probe, probe, until_open};
use oneknock_tests::{Site, binaries, wait};
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener};

#[test]
fn the_port_is_silent_before_the_knock_and_for_the_stranger_throughout() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let _daemon = site.daemon();
    let lab = &site.lab;
    let mut leaving = Capture::leaving(&lab.server, NOT_HOUSEKEEPING);
    for server in lab.server.addresses() {
        for host in [&lab.laptop, &lab.stranger] {
            assert_eq!(site.probe(host, server), Probe::Silent);
        }
    }
    let packets = leaving.packets(&lab.server, lab.laptop.v4.into());
    assert_eq!(packets, Vec::<String>::new());

    let mut to_stranger = Capture::start(&lab.stranger, FROM_SERVER);
    site.oneknock(&["open", "home"]).ok();
    for server in lab.server.addresses() {
        until_open(&lab.laptop, server, 22);
        assert_eq!(site.probe(&lab.stranger, server), Probe::Silent);
    }
    let packets = to_stranger.packets(&lab.server, lab.stranger.v4.into());
    assert_eq!(packets, Vec::<String>::new());
}

fn oneknock_ssh_runs_a_command(of: fn(&Site) -> [IpAddr; 2]) {
    let site = Site::new(binaries!());
    site.laptop_key();
    let mut daemon = site.daemon();
    let [server, laptop] = of(&site);
    site.lab.name_server(&site.lab.laptop, &[server]);
    let out = site.oneknock_ssh("echo $SSH_CONNECTION").ok();
    assert!(out.starts_with(&format!("{laptop} ")), "{out}");
    let granted = format!("granted address={laptop} key=laptop service=ssh seconds=30");
    daemon.expect(&granted);
    let guests = site.guests("ssh");
    assert_eq!(guests.len(), 1, "{guests:?}");
    assert_eq!((guests[0].address, &*guests[0].comment), (laptop, "laptop"));
    assert!(guests[0].expires <= 30);
}

#[test]
fn oneknock_ssh_runs_a_command_over_ipv4() {
    oneknock_ssh_runs_a_command(|s| [s.lab.server.v4.into(), s.lab.laptop.v4.into()]);
}

#[test]
fn oneknock_ssh_runs_a_command_over_ipv6() {
    oneknock_ssh_runs_a_command(|s| [s.lab.server.v6.into(), s.lab.laptop.v6.into()]);
}

#[test]
fn oneknock_ssh_gives_back_the_exit_status_and_passes_arguments_on() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let _daemon = site.daemon();
    let done = site.oneknock_ssh("echo out; echo err >&2; exit 7");
    assert_eq!((done.code, &*done.out), (Some(7), "out\n"), "{done}");
    assert!(done.err.contains("err\n"), "{done}");
    let args = [
        "ssh",
        "home",
        "-F",
        site.sshd.config(),
        "-l",
        "root",
        "id",
        "-un",
    ];
    assert_eq!(site.oneknock(&args).ok(), "root\n");
}

#[test]
fn plain_ssh_and_scp_work_through_the_printed_configuration() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let _daemon = site.daemon();
    let home = &site.lab.laptop.home;
    let printed = site.oneknock(&["ssh-config", "home"]).ok();
    let config = home.join("ssh_config");
    let rest = fs::read_to_string(&site.sshd.config).unwrap();
    fs::write(&config, format!("{printed}\n{rest}")).unwrap();
    let config = config.to_str().unwrap();
    let ssh = ["ssh", "-F", config, "home", "echo", "in"];
    assert_eq!(site.lab.laptop.run(&ssh).ok(), "in\n");

    let bytes: Vec<u8> = (0..4_000_000_u32)
        .map(|i| i.to_le_bytes()[i as usize % 3])
        .collect();
    fs::write(home.join("there"), &bytes).unwrap();
    let remote = format!("home:{}/copied", site.lab.server.home.display());
    let laptop = &site.lab.laptop;
    laptop.run(&["scp", "-F", config, "there", &remote]).ok();
    laptop.run(&["scp", "-F", config, &remote, "back"]).ok();
    assert!(fs::read(site.lab.server.home.join("copied")).unwrap() == bytes);
    assert!(fs::read(home.join("back")).unwrap() == bytes);
}

#[test]
fn proxy_relays_both_ways_and_half_closes() {
    let site = Site::with_services(binaries!(), &["echo=tcp/7000"]);
    let key = site.key("laptop", &["echo"]);
    site.import(&site.lab.laptop, &key, "home");
    let _daemon = site.daemon();
    // It answers only after the end of its input: without the half-close, never.
    let listener = site
        .lab
        .server
        .enter(|| TcpListener::bind("[::]:7000").unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).unwrap();
                // The client's probes say nothing and are gone by now.
                let _ = stream.write_all(&bytes);
                let _ = stream.shutdown(Shutdown::Write);
            });
        }
    });
    let input = "0123456789abcde\n".repeat(50_000);
    for args in [
        &["oneknock", "proxy", "home"][..],
        &["oneknock", "proxy", "home", SERVER_NAME, "7000"],
    ] {
        let done = site.lab.laptop.run_with(args, &input);
        assert!(done.ok() == input);
    }
}

#[test]
fn open_knocks_over_the_wanted_family_alone() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let mut daemon = site.daemon();
    let laptop = &site.lab.laptop;
    for (family, address) in ["-4", "-6"].into_iter().zip(laptop.addresses()) {
        site.oneknock(&["open", "home", family]).ok();
        daemon.expect(&format!("granted address={address}"));
        let guests = site.guests("ssh");
        assert_eq!(guests.len(), 1, "{guests:?}");
        site.oneknock(&["close", "home"]).ok();
        wait::until_true("no guest is left", || site.guests("ssh").is_empty());
    }
}

#[test]
fn one_element_opens_every_port_of_a_service() {
    let site = Site::with_services(binaries!(), &["mosh=tcp/22,udp/60000-60010"]);
    let key = site.key("laptop", &["mosh"]);
    site.import(&site.lab.laptop, &key, "home");
    let _daemon = site.daemon();
    let (laptop, server) = (&site.lab.laptop, &site.lab.server);
    let ports = [60000, 60005, 60010];
    let listeners =
        ports.map(|port| oneknock_tests::wire::Listener::start(server, port, true, None));
    let send_all = |word: &str| {
        for (address, port) in server
            .addresses()
            .into_iter()
            .flat_map(|a| ports.map(|p| (a, p)))
        {
            oneknock_tests::wire::send(laptop, (address, port).into(), word.as_bytes());
        }
    };
    send_all("shut");
    site.oneknock(&["open", "home"]).ok();
    wait::until_true("both addresses admitted", || site.guests("mosh").len() == 2);
    send_all("open");
    for listener in listeners {
        let mut all = Vec::new();
        wait::until_true("datagrams over both families", || {
            all.extend(listener.received());
            all.len() >= 2
        });
        assert_eq!(all, ["open", "open"]);
    }
}

#[test]
fn a_service_without_tcp_cannot_be_verified_and_open_says_so() {
    let site = Site::with_services(binaries!(), &["dns=udp/53"]);
    let key = site.key("laptop", &["dns"]);
    site.import(&site.lab.laptop, &key, "home");
    let mut daemon = site.daemon();
    let done = site.oneknock(&["open", "home"]);
    assert_eq!(done.code, Some(0), "{done}");
    assert!(
        done.err.contains("udp") || done.err.contains("UDP"),
        "{done}"
    );
    daemon.expect("granted address=");
}

#[test]
fn open_ends_with_1_and_a_hint_when_the_door_stays_shut() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let mut daemon = site.daemon();
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    daemon.expect("oneknockd: stopped");
    assert_eq!(daemon.end().code(), Some(0));
    let err = site.oneknock(&["open", "home", "--timeout", "2s"]).fails(1);
    assert!(err.starts_with("error: "), "{err}");
    assert!(err.contains("\nhint: "), "{err}");
    // No more is promised of the log than it holds.
    assert!(err.contains("oneknockctl log --denied"), "{err}");
    assert!(err.contains("if it lists nothing"), "{err}");
    for server in site.lab.server.addresses() {
        assert_eq!(site.probe(&site.lab.laptop, server), Probe::Silent);
    }
}

#[test]
fn where_the_guard_opens_and_sshd_is_down_the_client_says_so() {
    let mut site = Site::new(binaries!());
    site.laptop_key();
    let mut daemon = site.daemon();
    site.sshd.running.signal(nix::sys::signal::Signal::SIGKILL);
    site.sshd.running.end();
    // With so short a time the other way, the packet's source, has its turn early.
    for timeout in ["1h", "2s"] {
        let err = site.oneknock(&["open", "home", "--timeout", timeout]);
        let err = err.fails(1);
        daemon.expect("granted address=");
        assert!(err.contains("the knock was probably accepted"), "{err}");
        assert!(err.contains("tcp/22 is refused"), "{err}");
    }
    let err = site.oneknock_ssh("echo in").fails(255);
    assert!(err.contains("tcp/22 is refused"), "{err}");
}

#[test]
fn close_shuts_the_door_and_ends_no_session() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let mut daemon = site.daemon();
    let laptop = &site.lab.laptop;
    let mut session = site.session(&["oneknock", "ssh", "home"]);
    site.oneknock(&["close", "home"]).ok();
    daemon.expect("closed address=");
    wait::until_true("no guest is left", || site.guests("ssh").is_empty());
    for server in site.lab.server.addresses() {
        assert_eq!(probe(laptop, server, 22), Probe::Silent);
    }
    session.say("after");
    session.expect("got after");
}

#[test]
fn a_session_outlives_its_grant_and_a_new_connection_is_refused() {
    let site = Site::new(binaries!());
    site.set_service("default_duration", "\"2s\"");
    site.laptop_key();
    let _daemon = site.daemon();
    let server: IpAddr = site.lab.server.v4.into();
    let mut session = site.session(&["oneknock", "ssh", "home"]);
    wait::until_true("the grant is over", || site.guests("ssh").is_empty());
    assert_eq!(site.probe(&site.lab.laptop, server), Probe::Silent);
    session.say("after");
    session.expect("got after");
    session.close_input();
    assert_eq!(session.end().code(), Some(0));
}

#[test]
fn behind_nat_open_falls_back_to_the_packets_source_and_says_so() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let mut daemon = site.daemon();
    let (net, laptop) = (&site.lab.net, &site.lab.laptop);
    site.lab.name_server(laptop, &[site.lab.server.v4.into()]);
    net.ip_batch("addr add 192.0.2.77/24 dev br0\n");
    net.nft(
        "table ip nat {
            chain out {
                type nat hook postrouting priority srcnat;
                oifname br0 ip saddr 198.51.100.7 snat to 192.0.2.77
            }
        }",
    );
    let done = site.oneknock_ssh("echo in");
    assert_eq!((done.code, &*done.out), (Some(0), "in\n"), "{done}");
    assert!(
        done.err
            .contains("note: opened without this computer's address"),
        "{done}"
    );
    daemon.expect("granted address=192.0.2.77 key=laptop service=ssh");
    assert_eq!(
        site.probe(&site.lab.stranger, site.lab.server.v4.into()),
        Probe::Silent
    );
}

#[test]
fn a_door_is_on_disk_when_it_was_imported_and_gone_from_it_when_it_was_removed() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let laptop = &site.lab.laptop;
    let calls = site.lab.dir().join("calls");
    let trace = "trace=/^(link|rename|unlink|fsync)";
    let strace = [
        "strace",
        "-f",
        "-y",
        "-e",
        trace,
        "-o",
        calls.to_str().unwrap(),
    ];
    for (call, changes) in [
        (&["oneknock", "import"][..], "home.toml"),
        (&["oneknock", "remove", "home"], "unlink"),
    ] {
        let line = [&strace[..], call].concat();
        laptop.run_with(&line, &key.line).ok();
        let calls = fs::read_to_string(&calls).unwrap();
        let at = calls.find(changes).unwrap();
        // A name is on disk, or gone from it, only when its folder was synced.
        assert!(calls[at..].contains("/profiles>)"), "{calls}");
    }
}
