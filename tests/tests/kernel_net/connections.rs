//! Connections to guarded ports are listed and ended.

use crate::peers::{
    BLOCKING_TABLE, NftSet, Session, answers, guard, guarded, serve_tcp, serve_udp, udp_socket,
};
use oneknock_shared::name::ServiceName;
use oneknock_tests::packets::{self, flags};
use oneknock_tests::{Lab, binaries, wait};
use oneknockd::engine::Source;
use oneknockd::kernel::{BlockReason, BlockedConnections, ConnectionId, Disconnected};
use oneknockd::kernel::{GuardContext, GuardedPorts, disconnect, disconnect_all, redirected};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

fn no_trust(_: IpAddr) -> bool {
    false
}

/// Nothing is expected that no socket holds.
#[allow(clippy::unnecessary_wraps)] // In the place of a function that can fail.
fn blocks_nothing(connections: &[ConnectionId]) -> io::Result<()> {
    assert_eq!(connections, []);
    Ok(())
}

#[track_caller]
fn counted(done: &Disconnected) -> (usize, usize) {
    assert!(done.failures.is_empty(), "{:?}", done.failures);
    (done.ended, done.remaining)
}

#[test]
fn local_session_of_a_source_is_ended_and_others_live() {
    let lab = Lab::new(binaries!());
    let (server, laptop, stranger) = (&lab.server, &lab.laptop, &lab.stranger);
    serve_tcp(server, 22);
    serve_tcp(server, 80);
    // One by one, all ports of a transport; untracked, and tracked.
    for (port, rules) in [
        ("tcp/22", ""),
        ("tcp/20-30", ""),
        ("tcp/22", BLOCKING_TABLE),
        ("tcp/20-30", BLOCKING_TABLE),
    ] {
        server.nft(rules);
        let ports = guarded(&[("ssh", port)]);
        for to in server.addresses() {
            let mut of_laptop = Session::open(laptop, to, 22);
            let mut of_stranger = Session::open(stranger, to, 22);
            let mut elsewhere = Session::open(laptop, to, 80);
            let mut own = Session::open(server, to, 22);
            let source = Source::of(laptop.address_like(to));
            let is_meant = |service: ServiceName, of| service.as_str() == "ssh" && of == source;
            let done =
                server.enter(|| disconnect(&guard(&ports, &no_trust), is_meant, blocks_nothing));
            assert_eq!(counted(&done), (1, 1), "{port} {to}");
            of_laptop.was_reset();
            of_stranger.lives();
            elsewhere.lives();
            own.lives();
            // Trusted connections are not among those that remain.
            let is_stranger = |of| of == stranger.address_like(to);
            let (none, all) = (|_, _| false, |_, _| true);
            let done =
                server.enter(|| disconnect(&guard(&ports, &is_stranger), none, blocks_nothing));
            assert_eq!(counted(&done), (0, 0));
            let done = server.enter(|| disconnect(&guard(&ports, &no_trust), all, blocks_nothing));
            assert_eq!(counted(&done), (1, 0));
            of_stranger.was_reset();
            own.lives();
        }
    }
}

#[test]
fn all_is_every_connection_but_those_of_trusted_networks() {
    let lab = Lab::new(binaries!());
    let (server, laptop, stranger) = (&lab.server, &lab.laptop, &lab.stranger);
    serve_tcp(server, 22);
    serve_tcp(server, 2222);
    let ports = guarded(&[("ssh", "tcp/22"), ("admin", "tcp/2222")]);
    let mut trusted = Session::open(laptop, server.v4, 22);
    let mut others = [
        Session::open(stranger, server.v4, 22),
        Session::open(stranger, server.v4, 2222),
        Session::open(laptop, server.v6, 2222),
    ];
    let is_trusted = |of: IpAddr| of == laptop.v4;
    let done = server.enter(|| disconnect_all(&guard(&ports, &is_trusted), blocks_nothing));
    assert_eq!(counted(&done), (3, 0));
    others.iter_mut().for_each(Session::was_reset);
    trusted.lives();
}

#[test]
fn forwarded_session_is_blocked_and_others_pass() {
    let lab = Lab::new(binaries!());
    let (server, laptop, stranger) = (&lab.server, &lab.laptop, &lab.stranger);
    let behind = lab.behind();
    serve_tcp(&behind, 22);
    server.nft(BLOCKING_TABLE);
    server.nft(
        "table inet site {
            chain pre {
                type nat hook prerouting priority dstnat;
                tcp dport 8080 dnat ip to 198.18.0.2:22
                tcp dport 8080 dnat ip6 to [2001:db8:0:9::2]:22
            }
        }",
    );
    let mut blocked = BlockedConnections::default();
    let mut ended = |ports: &GuardedPorts, source: Option<Source>| {
        let already = blocked.ids();
        let done = server.enter(|| {
            let guard = GuardContext {
                blocked: &already,
                ..guard(ports, &no_trust)
            };
            let is_meant = |_, of| source.is_none_or(|source| of == source);
            disconnect(&guard, is_meant, |all| {
                let reason = BlockReason::Disconnected;
                blocked
                    .block(Duration::ZERO, all, reason, &mut NftSet(server))
                    .map_err(io::Error::other)
            })
        });
        counted(&done)
    };
    for port in ["tcp/8080", "tcp/8000-9000"] {
        let ports = guarded(&[("web", port)]);
        for to in server.addresses() {
            let mut of_laptop = Session::open(laptop, to, 8080);
            let mut of_stranger = Session::open(stranger, to, 8080);
            // Past the server, which is addressed itself in the others.
            let mut through = Session::open(laptop, behind.address_like(to), 22);
            let source = Source::of(laptop.address_like(to));
            assert_eq!(ended(&ports, Some(source)), (1, 1), "{port} {to}");
            of_laptop.is_silent();
            of_stranger.lives();
            through.lives();
            // A source that is still admitted connects again; nothing is counted twice.
            let mut again = Session::open(laptop, to, 8080);
            again.lives();
            assert_eq!(ended(&ports, None), (2, 0), "{port} {to}");
            assert_eq!(ended(&ports, None), (0, 0), "{port} {to}");
            of_stranger.is_silent();
            through.lives();
        }
    }
}

#[test]
fn session_that_a_rule_redirects_is_ended_at_its_socket() {
    let lab = Lab::new(binaries!());
    let (server, laptop, stranger) = (&lab.server, &lab.laptop, &lab.stranger);
    serve_tcp(server, 2200);
    server.nft(
        "table inet site {
            chain pre {
                type nat hook prerouting priority dstnat;
                tcp dport 22 redirect to :2200
            }
        }",
    );
    let ports = guarded(&[("ssh", "tcp/22")]);
    let mut of_laptop = Session::open(laptop, server.v4, 22);
    let mut of_stranger = Session::open(stranger, server.v4, 22);
    // The port is not guarded.
    let mut direct = Session::open(laptop, server.v4, 2200);
    let found = server.enter(|| redirected(&ports)).unwrap();
    let ends: Vec<_> = found
        .iter()
        .map(|(from, port)| (from.ip(), *port))
        .collect();
    assert_eq!(ends, [(laptop.v4.into(), 2200), (stranger.v4.into(), 2200)]);
    let source = Source::of(laptop.v4.into());
    let is_meant = |_, of| of == source;
    let done = server.enter(|| disconnect(&guard(&ports, &no_trust), is_meant, blocks_nothing));
    assert_eq!(counted(&done), (1, 1));
    of_laptop.was_reset();
    of_stranger.lives();
    direct.lives();
}

#[test]
fn datagrams_are_blocked_until_the_source_is_admitted() {
    let lab = Lab::new(binaries!());
    let (server, laptop, stranger) = (&lab.server, &lab.laptop, &lab.stranger);
    serve_udp(server, 7);
    server.nft(BLOCKING_TABLE);
    let ports = guarded(&[("echo", "udp/7")]);
    let (of_laptop, of_stranger) = (udp_socket(laptop), udp_socket(stranger));
    assert!(answers(&of_laptop, server, 7) && answers(&of_stranger, server, 7));
    let (mut blocked, mut set) = (BlockedConnections::default(), NftSet(server));
    let now = Duration::from_secs(1000);
    let source = Source::of(laptop.v4.into());
    let done = server.enter(|| {
        disconnect(
            &guard(&ports, &no_trust),
            |_, of| of == source,
            |all| {
                blocked
                    .block(now, all, BlockReason::Disconnected, &mut set)
                    .map_err(io::Error::other)
            },
        )
    });
    assert_eq!(counted(&done), (1, 1));
    assert!(!answers(&of_laptop, server, 7) && answers(&of_stranger, server, 7));
    blocked.admit(source, &mut set).unwrap();
    assert!(answers(&of_laptop, server, 7));
    assert_eq!(blocked.count(), 0);
}

#[test]
fn connection_that_is_only_begun_is_ended() {
    let lab = Lab::new(binaries!());
    let server = &lab.server;
    serve_tcp(server, 22);
    let ports = guarded(&[("ssh", "tcp/22")]);
    for rules in ["", BLOCKING_TABLE] {
        server.nft(rules);
        // Of this one nothing comes that would end it: it is no host's.
        let nowhere: IpAddr = [203, 0, 113, 50].into();
        let syn = packets::segment((nowhere, 4000), (server.v4.into(), 22), flags::SYN);
        packets::send(&lab.stranger, server.v4.into(), &[syn]);
        wait::until_true("it is begun and ended", || {
            let all = || disconnect_all(&guard(&ports, &no_trust), blocks_nothing);
            counted(&server.enter(all)) == (1, 0)
        });
    }
}

#[test]
fn block_that_fails_is_said_and_not_counted() {
    let lab = Lab::new(binaries!());
    let (server, laptop) = (&lab.server, &lab.laptop);
    serve_tcp(server, 22);
    serve_udp(server, 7);
    server.nft(BLOCKING_TABLE);
    let ports = guarded(&[("ssh", "tcp/22"), ("echo", "udp/7")]);
    let mut session = Session::open(laptop, server.v4, 22);
    assert!(answers(&udp_socket(laptop), server, 7));
    let done = server.enter(|| {
        disconnect_all(&guard(&ports, &no_trust), |_| {
            Err(io::ErrorKind::NotFound.into())
        })
    });
    assert_eq!((done.ended, done.remaining), (1, 0));
    let said: Vec<String> = done.failures.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["cannot block 1 connections: entity not found"]);
    session.was_reset();
}
