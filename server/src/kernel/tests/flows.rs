use super::*;
use proptest::prelude::*;

/// What the kernel lists of a connection from 192.0.2.7:40000 to 198.51.100.1:2222, which a
/// rule has led to 10.0.0.5:22.
const ENTRY: &[&[u8]] = &[
    // To where it was addressed.
    &[0x34, 0, 1, 0x80],
    &[
        0x14, 0, 1, 0x80, 8, 0, 1, 0, 192, 0, 2, 7, 8, 0, 2, 0, 198, 51, 100, 1,
    ],
    &[0x1c, 0, 2, 0x80, 5, 0, 1, 0, 6, 0, 0, 0],
    &[6, 0, 2, 0, 0x9c, 0x40, 0, 0, 6, 0, 3, 0, 0x08, 0xae, 0, 0],
    // From where it is answered.
    &[0x34, 0, 2, 0x80],
    &[
        0x14, 0, 1, 0x80, 8, 0, 1, 0, 10, 0, 0, 5, 8, 0, 2, 0, 192, 0, 2, 7,
    ],
    &[0x1c, 0, 2, 0x80, 5, 0, 1, 0, 6, 0, 0, 0],
    &[6, 0, 2, 0, 0, 22, 0, 0, 6, 0, 3, 0, 0x9c, 0x40, 0, 0],
    // Status, and a timeout.
    &[8, 0, 3, 0, 0, 0, 0, 0x0e, 8, 0, 7, 0, 0, 6, 0x97, 0x7f],
    // The state of TCP: established.
    &[0x10, 0, 4, 0x80, 0x0c, 0, 1, 0x80, 5, 0, 1, 0, 3, 0, 0, 0],
];

fn entry(state: u8) -> Vec<u8> {
    let mut bytes = ENTRY.concat();
    let at = bytes.len() - 4;
    bytes[at] = state;
    bytes
}

fn any(_: Transport, _: u16) -> bool {
    true
}

fn flow(is_over: bool) -> Flow {
    Flow {
        connection: ConnectionId {
            transport: Transport::Tcp,
            remote: [192, 0, 2, 7].into(),
            remote_port: 40_000,
            port: 2222,
        },
        to: [198, 51, 100, 1].into(),
        answering: ([10, 0, 0, 5], 22).into(),
        is_over,
    }
}

#[test]
fn flow_is_told_by_its_first_packet_and_who_answers() {
    assert_eq!(read(Attributes(&entry(3)), any), Some(flow(false)));
}

#[test]
fn flow_that_is_closed_or_reset_is_over() {
    for state in 0..=10 {
        let is_over = [TIME_WAIT, CLOSE].contains(&state);
        assert_eq!(
            read(Attributes(&entry(state)), any),
            Some(flow(is_over)),
            "{state}"
        );
    }
}

#[test]
fn flow_to_another_port_is_not_decoded() {
    let wanted = |transport, port| (transport, port) == (Transport::Udp, 2222);
    assert_eq!(read(Attributes(&entry(3)), wanted), None);
}

#[test]
fn flow_of_ipv6_is_read() {
    let address = |last: u8| {
        let mut octets = [0; 16];
        (octets[0], octets[1], octets[15]) = (0x20, 0x01, last);
        octets
    };
    let tuple = |tuple: &mut Writer, from: u8, to: u8, ports: [u16; 2]| {
        tuple.nest(1, |addresses| {
            addresses.bytes(3, &address(from));
            addresses.bytes(4, &address(to));
        });
        tuple.nest(2, |protocol| {
            protocol.bytes(1, &[17]);
            protocol.bytes(2, &ports[0].to_be_bytes());
            protocol.bytes(3, &ports[1].to_be_bytes());
        });
    };
    let mut entry = Writer::default();
    entry.nest(1, |original| tuple(original, 7, 1, [5000, 53]));
    entry.nest(2, |reply| tuple(reply, 1, 7, [53, 5000]));
    let flow = read(Attributes(&entry.0), any).unwrap();
    assert_eq!(flow.connection.transport, Transport::Udp);
    assert_eq!(flow.connection.remote, IpAddr::from(address(7)));
    assert_eq!(
        (flow.to, flow.answering.port()),
        (IpAddr::from(address(1)), 53)
    );
    assert!(!flow.is_over);
}

/// What the kernel of a little-endian machine is asked.
#[cfg(target_endian = "little")]
#[test]
fn request_is_these_bytes() {
    let of_port = [
        &[2, 0, 0, 0][..],
        &[0x18, 0, 1, 0x80, 0x14, 0, 2, 0x80],
        &[5, 0, 1, 0, 6, 0, 0, 0, 6, 0, 3, 0, 0, 22, 0, 0],
        &[0x0c, 0, 25, 0x80, 8, 0, 1, 0, 0x28, 0, 0, 0],
    ];
    assert_eq!(
        request(AddressFamily::V4, Transport::Tcp, Some(22)),
        of_port.concat()
    );
    let of_all = [
        &[10, 0, 0, 0][..],
        &[0x10, 0, 1, 0x80, 0x0c, 0, 2, 0x80],
        &[5, 0, 1, 0, 17, 0, 0, 0],
        &[0x0c, 0, 25, 0x80, 8, 0, 1, 0, 8, 0, 0, 0],
    ];
    assert_eq!(
        request(AddressFamily::V6, Transport::Udp, None),
        of_all.concat()
    );
}

#[test]
fn flow_that_is_cut_short_is_none() {
    let whole = entry(3);
    // Up to the ports of the answer, which are read last.
    for end in 0..0x34 + 0x34 - 12 {
        assert_eq!(read(Attributes(&whole[..end]), any), None, "{end}");
    }
}

proptest! {
    #[test]
    fn garbage_and_damage_are_read_without_a_panic(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        at in 0..entry(3).len(),
        value: u8,
    ) {
        read(Attributes(&bytes), any);
        let mut damaged = entry(3);
        damaged[at] = value;
        read(Attributes(&damaged), any);
    }
}
