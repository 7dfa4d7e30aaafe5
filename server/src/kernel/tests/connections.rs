use super::*;
use crate::kernel::sockets::tests::socket;
use oneknock_shared::port::Transport;
use std::cell::RefCell;

const NO_TRUST: &dyn Fn(IpAddr) -> bool = &|_| false;

fn address(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

/// A connection for ssh: with a socket, or tracked, or both.
fn connection(last: u8, has_socket: bool, is_tracked: bool) -> PresentConnection {
    PresentConnection {
        id: ConnectionId {
            transport: Transport::Tcp,
            remote: address(last),
            remote_port: 4000,
            port: 22,
        },
        services: vec!["ssh".parse().unwrap()],
        sockets: has_socket
            .then(|| socket((address(last), 4000), 22))
            .into_iter()
            .collect(),
        is_tracked,
        is_live: true,
    }
}

/// What is done with these, of which all are meant whose last octet is below 10.
struct Outcome {
    done: Disconnected,
    destroyed: usize,
    blocked: Vec<u8>,
}

fn ended(
    all: Vec<PresentConnection>,
    trusted: &dyn Fn(IpAddr) -> bool,
    already: &[ConnectionId],
    fails: bool,
) -> Outcome {
    let present = Snapshot {
        all,
        failures: Vec::new(),
    };
    let (ports, already) = (GuardedPorts::default(), already.iter().copied().collect());
    let guard = GuardContext {
        ports: &ports,
        is_trusted: trusted,
        blocked: &already,
    };
    let last = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(_) => 0,
    };
    let outcome = || {
        if fails {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(())
    };
    let (destroyed, blocked) = (RefCell::new(0), RefCell::new(Vec::new()));
    let is_meant = |one: &PresentConnection| last(one.id.remote) < 10;
    let destroy = |_: &LocalSocket| {
        *destroyed.borrow_mut() += 1;
        outcome()
    };
    let done = end(&guard, present, is_meant, destroy, |ids| {
        blocked
            .borrow_mut()
            .extend(ids.iter().map(|id| last(id.remote)));
        outcome()
    });
    Outcome {
        done,
        destroyed: destroyed.into_inner(),
        blocked: blocked.into_inner(),
    }
}

#[test]
fn socket_is_destroyed_and_the_rest_is_blocked() {
    let all = vec![
        connection(1, true, false),
        connection(2, true, true),
        connection(3, false, true),
        connection(11, true, true),
        connection(12, false, true),
    ];
    let outcome = ended(all, NO_TRUST, &[], false);
    assert_eq!((outcome.destroyed, outcome.blocked), (2, vec![3]));
    assert_eq!((outcome.done.ended, outcome.done.remaining), (3, 2));
    assert!(outcome.done.failures.is_empty());
}

#[test]
fn trusted_connections_are_not_among_those_that_remain() {
    let all = vec![connection(11, true, true), connection(12, false, true)];
    let outcome = ended(all, &|of| of == address(12), &[], false);
    assert_eq!((outcome.done.ended, outcome.done.remaining), (0, 1));
}

#[test]
fn what_is_blocked_already_is_not_counted_again() {
    let all = vec![connection(3, false, true), connection(12, false, true)];
    let ids: Vec<_> = all.iter().map(|one| one.id).collect();
    let outcome = ended(all, NO_TRUST, &ids, false);
    assert!(outcome.blocked.is_empty());
    assert_eq!((outcome.done.ended, outcome.done.remaining), (0, 0));
    // A socket of the same ends is another connection.
    let outcome = ended(vec![connection(3, true, true)], NO_TRUST, &ids, false);
    assert_eq!(outcome.done.ended, 1);
}

#[test]
fn flow_that_has_ended_is_blocked_and_not_counted() {
    let over = |last| PresentConnection {
        is_live: false,
        ..connection(last, false, true)
    };
    let outcome = ended(vec![over(3), over(12)], NO_TRUST, &[], false);
    assert_eq!(outcome.blocked, [3]);
    assert_eq!((outcome.done.ended, outcome.done.remaining), (0, 0));
}

#[test]
fn socket_that_cannot_be_destroyed_is_blocked_where_tracked() {
    let all = vec![
        connection(1, true, false),
        connection(2, true, true),
        connection(3, true, false),
    ];
    let outcome = ended(all, NO_TRUST, &[], true);
    assert_eq!((outcome.destroyed, outcome.blocked), (3, vec![2]));
    assert_eq!((outcome.done.ended, outcome.done.remaining), (0, 0));
    let said = outcome.done.failures.iter().map(ToString::to_string);
    let want = [
        "cannot destroy the sockets of 2 connections: permission denied",
        "cannot block 1 connections: permission denied",
    ];
    assert_eq!(said.collect::<Vec<_>>(), want);
}

#[test]
fn snapshot_is_kept_while_lists_are_not_whole() {
    let ids = [1, 2].map(|last| connection(last, true, false).id);
    let mut connections = Connections {
        preexisting: ids.into(),
    };
    let mut present = Snapshot {
        all: vec![connection(2, true, false)],
        failures: vec![ConnectionError::Tracked(io::ErrorKind::Unsupported.into())],
    };
    connections.forget_ended(&present);
    assert_eq!(connections.count(), 2);
    present.failures.clear();
    connections.forget_ended(&present);
    assert_eq!(connections.preexisting, [ids[1]].into());
}

#[test]
fn connection_is_of_a_gap_when_nothing_speaks_for_it() {
    let known = connection(1, true, false);
    let connections = Connections {
        preexisting: [known.id].into(),
    };
    let source = |last| Source::of(address(last));
    let rule = GapRule {
        was_granted: &|of| of == source(2),
        is_in_by_sequence: &|service, of| service.as_str() == "ssh" && of == source(3),
    };
    let is_of_gap = |one: &PresentConnection| connections.is_of_gap(&rule, one);
    assert!(!is_of_gap(&known));
    for (last, want) in [(2, false), (3, false), (4, true)] {
        assert_eq!(is_of_gap(&connection(last, true, false)), want, "{last}");
    }
    let elsewhere = PresentConnection {
        services: vec!["web".parse().unwrap()],
        ..connection(3, true, false)
    };
    assert!(is_of_gap(&elsewhere));
}
