//! What was made while a monitored guard was down is ended, and nothing else.

use crate::peers::{
    BLOCKING_TABLE, NftSet, Session, answers, guard, guarded, serve_tcp, serve_udp, udp_socket,
};
use oneknock_tests::host::Host;
use oneknock_tests::{Lab, binaries};
use oneknockd::engine::Source;
use oneknockd::kernel::{
    BlockReason, BlockedConnections, Connections, Disconnected, GapRule, GuardContext,
    GuardedPorts, Snapshot,
};
use std::time::Duration;

/// Whether a source is one of some.
type Among<'a> = &'a (dyn Fn(Source) -> bool + Sync);

/// The sources that had a grant, are trusted, or were admitted to ssh by the port sequence.
fn end_gap(
    server: &Host,
    connections: &mut Connections,
    ports: &GuardedPorts,
    [was_granted, is_trusted, by_sequence]: [Among<'_>; 3],
    blocked: &mut BlockedConnections,
) -> Disconnected {
    server.enter(|| {
        let is_trusted = |address| is_trusted(Source::of(address));
        let rule = GapRule {
            was_granted: &|source| was_granted(source),
            is_in_by_sequence: &|service, source| service.as_str() == "ssh" && by_sequence(source),
        };
        let already = blocked.ids();
        let guard = GuardContext {
            blocked: &already,
            ..guard(ports, &is_trusted)
        };
        connections.end_gap_connections(&guard, &rule, |all| {
            let now = Duration::from_secs(1000);
            blocked
                .block(now, all, BlockReason::MadeInGap, &mut NftSet(server))
                .map_err(std::io::Error::other)
        })
    })
}

#[test]
fn connection_of_no_known_source_is_ended_and_others_live() {
    let lab = Lab::new(binaries!());
    let (server, laptop, stranger) = (&lab.server, &lab.laptop, &lab.stranger);
    let neighbour = lab.neighbour();
    serve_tcp(server, 22);
    serve_udp(server, 7);
    server.nft(BLOCKING_TABLE);
    let guarded = guarded(&[("ssh", "tcp/22"), ("echo", "udp/7")]);
    // There at install, of a source that nothing else speaks for.
    let mut old = Session::open(stranger, server.v4, 22);
    let old_udp = udp_socket(stranger);
    assert!(answers(&old_udp, server, 7));
    let mut connections = Connections::default();
    connections.add(&server.enter(|| Snapshot::read(&guarded)));
    assert_eq!(connections.count(), 2);
    // Made in a gap.
    let mut granted = Session::open(laptop, server.v4, 22);
    let mut in_by_sequence = Session::open(laptop, server.v6, 22);
    let mut trusted = Session::open(&neighbour, server.v4, 22);
    let mut by_v4 = Session::open(stranger, server.v4, 22);
    let mut by_v6 = Session::open(stranger, server.v6, 22);
    let udp = udp_socket(stranger);
    assert!(answers(&udp, server, 7));
    // A port sequence for ssh says nothing of another service.
    let udp_by_sequence = server.enter(|| true) && answers(&udp_socket(&lab.net), server, 7);
    assert!(udp_by_sequence);
    let of = |host: &Host| host.addresses().map(Source::of);
    let ([granted4, sequence6], [trusted4, _]) = (of(laptop), of(&neighbour));
    let router = of(&lab.net);
    let mut blocked = BlockedConnections::default();
    let rule: [Among<'_>; 3] = [
        &|source| source == granted4,
        &|source| source == trusted4,
        &|source| source == sequence6 || router.contains(&source),
    ];
    let done = end_gap(server, &mut connections, &guarded, rule, &mut blocked);
    assert!(done.failures.is_empty(), "{:?}", done.failures);
    assert_eq!(done.ended, 4);
    by_v4.was_reset();
    by_v6.was_reset();
    assert!(!answers(&udp, server, 7));
    for session in [&mut old, &mut granted, &mut in_by_sequence, &mut trusted] {
        session.lives();
    }
    assert!(answers(&old_udp, server, 7));
    // A source that is admitted later may use what it has begun in the gap.
    let source = of(stranger)[0];
    blocked.admit(source, &mut NftSet(server)).unwrap();
    assert!(answers(&udp, server, 7));
}

#[test]
fn snapshot_forgets_what_has_ended() {
    let lab = Lab::new(binaries!());
    let (server, stranger) = (&lab.server, &lab.stranger);
    serve_tcp(server, 22);
    let guarded = guarded(&[("ssh", "tcp/22")]);
    let mut connections = Connections::default();
    let first = Session::open(stranger, server.v4, 22);
    let mut second = Session::open(stranger, server.v6, 22);
    connections.add(&server.enter(|| Snapshot::read(&guarded)));
    assert_eq!(connections.count(), 2);
    drop(first);
    let no: Among<'_> = &|_| false;
    let mut blocked = BlockedConnections::default();
    oneknock_tests::wait::until_true("the first is forgotten", || {
        let done = end_gap(server, &mut connections, &guarded, [no; 3], &mut blocked);
        assert!(done.failures.is_empty(), "{:?}", done.failures);
        connections.count() == 1
    });
    second.lives();
}
