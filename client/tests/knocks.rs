//! Knocks, connections and the relay over loopback: the test is the server.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

mod common;

use common::{Done, Home, invitation};
use oneknock::knock::address::AddressBinding;
use oneknock::knock::packet::KnockRequest;
use oneknock_shared::invitation::{AddressRule, Invitation};
use oneknock_shared::knock::{Action, Knock};
use oneknock_shared::packet::{LEN, Packet};
use oneknock_shared::secret::Subkeys;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tokio::net::TcpSocket;

/// The longest that a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

fn udp() -> (UdpSocket, u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

fn tcp() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A port at which nothing listens yet, and that nobody else can take.
fn reserved_tcp() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// A service that shows itself as ssh to everybody, once for each connection; gives how many
/// there were.
fn greets(listener: TcpListener) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || {
                // One that is given up takes no words any more.
                let _ = stream.write_all(b"hello\r\nSSH-2.0-test\r\n");
                let _ = stream.read(&mut [0; 64]);
            });
        }
    });
    count
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut bytes = [0; 2048];
    let n = socket.recv(&mut bytes).unwrap();
    bytes[..n].to_vec()
}

/// What a packet asks; it must verify with the invitation's keys.
fn asked(bytes: &[u8], invitation: &Invitation) -> Knock {
    let keys = Subkeys::derive(&invitation.secret, &invitation.server_id);
    let packet = Packet::read(bytes).unwrap();
    *packet.verify(&keys).unwrap().open().unwrap().knock()
}

fn start(home: &Home, args: &[&str]) -> Child {
    let mut command = home.command(args);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn end(child: Child) -> Done {
    child.wait_with_output().unwrap().into()
}

#[test]
fn open_knocks_and_ends_when_the_port_answers() {
    let (socket, port) = udp();
    let (listener, tcp) = tcp();
    let connections = greets(listener);
    let invitation = invitation("127.0.0.1", port, &["udp/53".into(), format!("tcp/{tcp}")]);
    let home = Home::with(&invitation);
    let done = home.run(&["open", "home", "--for", "90s"], "");
    assert_eq!((done.code, &*done.out, &*done.err), (Some(0), "", ""));
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    let knock = asked(&receive(&socket), &invitation);
    assert_eq!(knock.action, Action::Open { seconds: 90 });
    assert_eq!(knock.service.unwrap().as_str(), "ssh");
    // Loopback is no address that a server could admit.
    assert_eq!(knock.address, None);
}

#[test]
fn it_knocks_again_with_fresh_packets_until_the_port_opens() {
    let (socket, port) = udp();
    let (reserved, tcp) = reserved_tcp();
    let home = Home::with(&invitation("127.0.0.1", port, &[format!("tcp/{tcp}")]));
    let child = start(&home, &["open", "home", "--timeout", "20s"]);
    let (first, second) = (receive(&socket), receive(&socket));
    assert_eq!((first.len(), second.len()), (LEN, LEN));
    assert_ne!(first[8..20], second[8..20], "the nonce");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime.block_on(async { reserved.listen(8) }).unwrap();
    let listener = listener.into_std().unwrap();
    listener.set_nonblocking(false).unwrap();
    greets(listener);
    let done = end(child);
    assert_eq!(done.code, Some(0), "{done:?}");
}

#[test]
fn a_handshake_alone_is_not_open_for_ssh() {
    let (socket, port) = udp();
    let (_silent, tcp) = tcp();
    let home = Home::with(&invitation("127.0.0.1", port, &[format!("tcp/{tcp}")]));
    let done = home.run(&["open", "home", "--timeout", "1500ms"], "");
    assert_eq!((done.code, &*done.out), (Some(1), ""), "{done:?}");
    let said = format!("tcp/{tcp} answers, but its service says nothing");
    assert!(done.err.contains(&said), "{done:?}");
    // It knocked on meanwhile.
    for _ in 0..2 {
        receive(&socket);
    }
}

#[test]
fn proxy_passes_on_what_showed_the_service() {
    let (_socket, port) = udp();
    let (listener, tcp) = tcp();
    greets(listener);
    let home = Home::with(&invitation("127.0.0.1", port, &[format!("tcp/{tcp}")]));
    let mut child = start(&home, &["proxy", "home"]);
    let mut read = [0; 21];
    let output = child.stdout.as_mut().unwrap();
    output.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"hello\r\nSSH-2.0-test\r\n");
    drop(child.stdin.take());
    assert_eq!(end(child).code, Some(0));
}

#[test]
fn a_port_that_refuses_through_two_knocks_ends_it_and_says_what_that_means() {
    let (socket, port) = udp();
    let (_reserved, tcp) = reserved_tcp();
    let home = Home::with(&invitation("127.0.0.1", port, &[format!("tcp/{tcp}")]));
    for args in [&["open", "home", "--timeout", "1h"][..], &["proxy", "home"]] {
        let done = home.run(args, "");
        assert_eq!((done.code, &*done.out), (Some(1), ""), "{done:?}");
        let lines: Vec<&str> = done.err.lines().collect();
        assert!(
            lines[0].contains(&format!("tcp/{tcp} is refused (127.0.0.1)")),
            "{done:?}"
        );
        assert!(lines[1].starts_with("hint: "), "{done:?}");
        for _ in 0..2 {
            receive(&socket);
        }
        socket.set_nonblocking(true).unwrap();
        assert!(socket.recv(&mut [0; 200]).is_err(), "a third knock");
        socket.set_nonblocking(false).unwrap();
    }
}

#[test]
fn where_the_knock_is_refused_too_it_does_not_count_as_accepted() {
    let port = udp().1; // Nothing listens there any more.
    let (_reserved, tcp) = reserved_tcp();
    let home = Home::with(&invitation("127.0.0.1", port, &[format!("tcp/{tcp}")]));
    let done = home.run(&["open", "home", "--timeout", "300ms"], "");
    assert_eq!((done.code, &*done.out), (Some(1), ""), "{done:?}");
    assert!(
        done.err.contains(&format!("nothing listens on udp/{port}")),
        "{done:?}"
    );
    assert!(!done.err.contains("probably accepted"), "{done:?}");
    let first = done.err.lines().find(|line| line.starts_with("hint: "));
    assert!(
        first.unwrap().contains("oneknockd is not running"),
        "{done:?}"
    );
}

#[test]
fn a_family_that_the_host_does_not_have_is_said_to() {
    let home = Home::with(&invitation("127.0.0.1", 9, &["tcp/9".into()]));
    let done = home.run(&["open", "home", "-6"], "");
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        done.err.contains("127.0.0.1") && done.err.contains("IPv6"),
        "{done:?}"
    );
}

#[test]
fn no_wait_and_udp_alone_send_three_packets_and_say_that_nothing_is_known() {
    let (socket, port) = udp();
    let ways: [(&str, &[&str]); 2] = [("tcp/22", &["--no-wait"]), ("udp/53", &[])];
    for (ports, option) in ways {
        let invitation = invitation("127.0.0.1", port, &[ports.into()]);
        let home = Home::with(&invitation);
        let done = home.run(&[&["open", "home"], option].concat(), "");
        assert_eq!((done.code, &*done.out), (Some(0), ""), "{done:?}");
        assert!(done.err.starts_with("note: sent the knock"), "{done:?}");
        let packets = [(); 3].map(|()| receive(&socket));
        assert_ne!(packets[0], packets[1]);
        assert_ne!(packets[1], packets[2]);
        for packet in packets {
            let knock = asked(&packet, &invitation);
            assert_eq!(knock.action, Action::Open { seconds: 0 });
        }
    }
}

#[test]
fn a_refused_knock_for_udp_alone_is_an_error() {
    let port = udp().1; // Nothing listens there any more.
    let home = Home::with(&invitation("127.0.0.1", port, &["udp/53".into()]));
    let done = home.run(&["open", "home"], "");
    assert_eq!((done.code, &*done.out), (Some(1), ""), "{done:?}");
    let said = format!("127.0.0.1: nothing listens on udp/{port}");
    assert!(done.err.contains(&said), "{done:?}");
}

#[test]
fn an_own_address_of_the_other_family_is_wrong_usage() {
    let home = Home::with(&invitation("localhost", 9, &["tcp/9".into()]));
    // Loopback is no address to admit, so this needs one that the machine has.
    let Ok(own) = oneknock::knock::plan::route(None, "192.0.2.1:9".parse().unwrap()) else {
        return;
    };
    let done = home.run(&["open", "home", "-6", "--address", &own.to_string()], "");
    assert_eq!(done.code, Some(2), "{done:?}");
    assert!(done.err.contains("is not an address of IPv6"), "{done:?}");
}

#[test]
fn a_given_address_of_another_machine_is_signed_and_cannot_be_checked() {
    let (socket, port) = udp();
    let (_listener, tcp) = tcp();
    let invitation = invitation("127.0.0.1", port, &[format!("tcp/{tcp}")]);
    let home = Home::with(&invitation);
    let done = home.run(&["open", "home", "--address", "2001:db8::9"], "");
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(
        done.err.contains("2001:db8::9 is another computer's"),
        "{done:?}"
    );
    let knock = asked(&receive(&socket), &invitation);
    assert_eq!(knock.address, Some("2001:db8::9".parse().unwrap()));
}

#[test]
fn where_a_signed_address_is_demanded_and_there_is_none_nothing_is_sent() {
    let (socket, port) = udp();
    let mut invitation = invitation("127.0.0.1", port, &["tcp/22".into()]);
    invitation.address = AddressRule::Signed;
    let home = Home::with(&invitation);
    for args in [&["open", "home", "--no-wait"][..], &["close", "home"]] {
        let done = home.run(args, "");
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.err.contains("127.0.0.1 cannot be one"), "{done:?}");
    }
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 200]).is_err());
}

#[test]
fn close_sends_two_packets_of_their_own() {
    let (socket, port) = udp();
    let invitation = invitation("127.0.0.1", port, &["tcp/22".into()]);
    let home = Home::with(&invitation);
    for (option, service) in [(&[][..], None), (&["--service", "ssh"], Some("ssh"))] {
        let done = home.run(&[&["close", "home"], option].concat(), "");
        assert_eq!((done.code, &*done.out), (Some(0), ""), "{done:?}");
        assert!(done.err.contains("never answers"), "{done:?}");
        let (first, second) = (receive(&socket), receive(&socket));
        assert_ne!(first, second);
        for packet in [first, second] {
            let knock = asked(&packet, &invitation);
            let named = knock.service.map(|s| s.to_string());
            assert_eq!((knock.action, named.as_deref()), (Action::Close, service));
            assert_eq!(knock.address, None);
        }
    }
}

#[test]
fn each_address_gets_a_packet_of_its_own() {
    // The same port must be free on both.
    let (v4, v6, port) = (0..50)
        .find_map(|_| {
            let (v4, port) = udp();
            let v6 = UdpSocket::bind((Ipv6Addr::LOCALHOST, port)).ok()?;
            v6.set_read_timeout(Some(PATIENCE)).unwrap();
            Some((v4, v6, port))
        })
        .unwrap();
    let invitation = invitation("127.0.0.1", port, &["tcp/22".into()]);
    let addresses: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let request = KnockRequest {
        keys: vec![Subkeys::derive(&invitation.secret, &invitation.server_id)],
        action: Action::Open { seconds: 0 },
        service: None,
        from: None,
    };
    for address in addresses {
        let server = (address, port).into();
        request.knock(server, AddressBinding::Never).unwrap();
    }
    let (one, other) = (receive(&v4), receive(&v6));
    assert_eq!(asked(&one, &invitation).service, None);
    assert_eq!(asked(&other, &invitation).service, None);
    assert_ne!(one[8..20], other[8..20], "the nonce");
}

/// A proxy whose remote end is the test's.
fn proxied(args: &[&str]) -> (Child, TcpStream, Home) {
    let (_socket, port) = udp();
    let (listener, tcp) = tcp();
    let mut invitation = invitation("127.0.0.1", port, &[format!("tcp/{tcp}")]);
    invitation.services[0].name = "echo".parse().unwrap();
    let home = Home::with(&invitation);
    let tcp = tcp.to_string();
    let args: Vec<&str> = args
        .iter()
        .map(|a| if *a == "PORT" { &tcp } else { *a })
        .collect();
    // Nothing but the relay is looked at: the handshake is enough.
    let child = start(&home, &[&args[..], &["--settle", "0s"]].concat());
    let (remote, _) = listener.accept().unwrap();
    remote.set_read_timeout(Some(PATIENCE)).unwrap();
    (child, remote, home)
}

#[test]
fn proxy_passes_words_to_and_fro_as_they_come() {
    let (mut child, mut remote, _home) = proxied(&["proxy", "home", "127.0.0.1", "PORT"]);
    let mut input = child.stdin.take().unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut word = [0; 4];
    // Each word is read while the relay waits for more: a relay that held the pipe
    // meanwhile would hang here.
    for _ in 0..100 {
        remote.write_all(b"ping").unwrap();
        output.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"ping");
        input.write_all(b"pong").unwrap();
        remote.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"pong");
    }
    drop(input);
    assert_eq!(remote.read(&mut word).unwrap(), 0);
    drop(remote);
    assert_eq!(output.read(&mut word).unwrap(), 0);
    assert_eq!(end(child).code, Some(0));
}

#[test]
fn when_the_input_ends_what_the_remote_still_sends_comes_through() {
    let (mut child, mut remote, _home) = proxied(&["proxy", "home"]);
    drop(child.stdin.take());
    assert_eq!(remote.read(&mut [0; 4]).unwrap(), 0);
    let answer = "0123456789abcde\n".repeat(100_000);
    let sent = answer.clone();
    let writer = thread::spawn(move || remote.write_all(sent.as_bytes()).unwrap());
    let done = end(child);
    writer.join().unwrap();
    assert_eq!((done.code, &*done.err), (Some(0), ""));
    assert!(done.out == answer);
}

#[cfg(unix)]
#[test]
fn when_the_remote_ends_the_reader_sees_it_and_the_rest_of_the_input_goes_through() {
    let (mut child, mut remote, _home) = proxied(&["proxy", "home"]);
    let mut input = child.stdin.take().unwrap();
    remote.write_all(b"last").unwrap();
    remote.shutdown(Shutdown::Write).unwrap();
    let mut all = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut all)
        .unwrap();
    assert_eq!(all, "last");
    assert!(
        child.try_wait().unwrap().is_none(),
        "the input is still open"
    );
    let text = "fedcba9876543210".repeat(100_000);
    let sent = text.clone();
    let writer = thread::spawn(move || input.write_all(sent.as_bytes()).unwrap());
    let mut all = String::new();
    remote.read_to_string(&mut all).unwrap();
    writer.join().unwrap();
    assert!(all == text);
    let done = end(child);
    assert_eq!((done.code, &*done.err), (Some(0), ""));
}

#[test]
fn when_the_remote_is_gone_altogether_the_relay_ends_at_the_next_words() {
    let (mut child, remote, _home) = proxied(&["proxy", "home"]);
    let mut input = child.stdin.take().unwrap();
    drop(remote);
    // The first word meets a reset, a later one the end of the relay. Its input stays
    // open all the while.
    while child.try_wait().unwrap().is_none() {
        let _ = input.write_all(b"word");
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(end(child).code, Some(0));
}

#[test]
fn a_connection_that_is_reset_ends_the_relay_although_the_input_is_open() {
    let (mut child, remote, _home) = proxied(&["proxy", "home"]);
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"never read").unwrap();
    let mut one = [0];
    assert_eq!(remote.peek(&mut one).unwrap(), 1);
    // Closed with unread bytes: a reset.
    drop(remote);
    let done = child.wait().unwrap();
    assert_eq!(done.code(), Some(1));
    drop(input);
}
