use super::*;
use crate::kernel::sockets::tests::socket;

fn own() -> OwnAddresses {
    OwnAddresses(BTreeSet::from([address(1), "2001:db8::1".parse().unwrap()]))
}

fn address(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn guarded() -> GuardedPorts {
    let services = [("ssh", "tcp/22"), ("web", "tcp/8080"), ("echo", "udp/7")];
    let service = |(name, port): (&str, &str)| (name.parse().unwrap(), vec![port.parse().unwrap()]);
    GuardedPorts::new(services.map(service).into())
}

/// From the remote's port 4000 to one of this machine's, answered by another.
fn flow(transport: Transport, remote: u8, port: u16, answering: (IpAddr, u16)) -> Flow {
    Flow {
        connection: ConnectionId {
            transport,
            remote: address(remote),
            remote_port: 4000,
            port,
        },
        to: address(1),
        answering: answering.into(),
        is_over: false,
    }
}

fn merged(flows: &[Flow], sockets: Vec<LocalSocket>) -> Vec<PresentConnection> {
    merge(&guarded(), &own(), flows, sockets)
}

fn services(one: &PresentConnection) -> Vec<&str> {
    one.services.iter().map(ServiceName::as_str).collect()
}

#[test]
fn socket_and_its_tracked_flow_are_one_connection() {
    let flows = [flow(Transport::Tcp, 7, 22, (address(1), 22))];
    let all = merged(&flows, vec![socket((address(7), 4000), 22)]);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].id, flows[0].connection);
    assert_eq!((all[0].sockets.len(), all[0].is_tracked), (1, true));
    assert_eq!(services(&all[0]), ["ssh"]);
}

#[test]
fn socket_that_nothing_tracks_is_a_connection() {
    let all = merged(&[], vec![socket((address(7), 4000), 22)]);
    assert_eq!(
        (all.len(), all[0].is_tracked, all[0].is_live),
        (1, false, true)
    );
}

#[test]
fn redirected_flow_has_the_socket_that_answers() {
    let flows = || [flow(Transport::Tcp, 7, 8080, (address(1), 3000))];
    let all = merged(&flows(), vec![socket((address(7), 4000), 3000)]);
    assert_eq!(
        (all.len(), all[0].id.port, all[0].sockets.len()),
        (1, 8080, 1)
    );
    assert_eq!(services(&all[0]), ["web"]);
    // Another's to the same port was not addressed to a guarded one.
    assert_eq!(
        merged(&flows(), vec![socket((address(8), 4000), 3000)])[0].sockets,
        []
    );
    let to_guarded = [flow(Transport::Tcp, 7, 8080, (address(1), 22))];
    let all = merged(&to_guarded, vec![socket((address(7), 4000), 22)]);
    assert_eq!((all.len(), services(&all[0])), (1, vec!["web", "ssh"]));
}

#[test]
fn forwarded_flow_has_no_socket_whatever_its_ports_are() {
    let flows = [flow(Transport::Tcp, 7, 8080, (address(9), 22))];
    let all = merged(&flows, vec![socket((address(7), 4000), 22)]);
    let sockets = |one: &PresentConnection| (one.id.port, one.sockets.len());
    assert_eq!(
        all.iter().map(sockets).collect::<Vec<_>>(),
        [(22, 1), (8080, 0)]
    );
}

#[test]
fn loopback_and_own_addresses_are_skipped() {
    let flows = [flow(Transport::Udp, 1, 7, (address(1), 7))];
    let sockets = [address(1), [127, 0, 0, 9].into(), "::1".parse().unwrap()];
    let sockets = sockets.map(|from| socket((from, 4000), 22));
    assert_eq!(merged(&flows, sockets.into()), []);
}

#[test]
fn flow_that_only_passes_through_is_skipped() {
    let mut passing = flow(Transport::Tcp, 7, 22, (address(9), 22));
    passing.to = address(9);
    assert_eq!(merged(&[passing], Vec::new()), []);
}

#[test]
fn closed_flow_is_nothing_here_and_not_live_elsewhere() {
    let closed = |answering| Flow {
        is_over: true,
        ..flow(Transport::Tcp, 7, 8080, (address(answering), 8080))
    };
    assert_eq!(merged(&[closed(1)], Vec::new()), []);
    let all = merged(&[closed(9)], Vec::new());
    assert_eq!(
        (all.len(), all[0].is_live, all[0].is_tracked),
        (1, false, true)
    );
    // A reset that this machine has not seen ends nothing here.
    let all = merged(&[closed(1)], vec![socket((address(7), 4000), 8080)]);
    assert_eq!((all.len(), all[0].is_live), (1, true));
}
