//! Port sequences as a program of the tests' own walks them: single packets, each as it is
//! meant, from any address.

use crate::Site;
use crate::host::Host;
use crate::packets::{self, Sender, flags};
use crate::wait;
use oneknock_shared::port::{Ports, Transport};
use std::fs;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};

/// The steps of every test's sequence.
pub const STEPS: [&str; 4] = ["tcp/7000", "udp/8000", "tcp/300", "udp/9000"];

static PORT: AtomicU16 = AtomicU16::new(30_000);

/// Puts the sequence for ssh into the configuration, with more lines of its section.
pub fn configure(site: &Site, steps: &[&str], more: &str) {
    let file = site.config();
    let text = fs::read_to_string(&file).unwrap();
    let text = text.split("\n[sequence]").next().unwrap();
    let section = format!("\n[sequence]\nservice = \"ssh\"\nports = {steps:?}\n{more}\n");
    fs::write(&file, format!("{text}{section}")).unwrap();
}

/// An address that nobody has, as the lab's server sees it behind the laptop's network; of
/// IPv6 each of another /64.
pub fn somebody(number: u16, is_ipv6: bool) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    if is_ipv6 {
        format!("2001:db8:77:{number:x}::5").parse().unwrap()
    } else {
        IpAddr::from([100, 64, high, low])
    }
}

/// Both families' addresses of that number.
pub fn both(number: u16) -> [IpAddr; 2] {
    [false, true].map(|is_ipv6| somebody(number, is_ipv6))
}

/// A new connection's first packet to that port of the server, as a whole.
pub fn first_packet(site: &Site, from: IpAddr, step: &str) -> Vec<u8> {
    packet(from, site.lab.server.address_like(from), step, flags::SYN)
}

/// A packet to a port; a TCP segment has these flags.
pub fn packet(from: IpAddr, to: IpAddr, step: &str, flags: u8) -> Vec<u8> {
    let port: Ports = step.parse().unwrap();
    let to = (to, port.first());
    let from = (from, PORT.fetch_add(1, Ordering::Relaxed));
    match port.transport() {
        Transport::Tcp => packets::segment(from, to, flags),
        Transport::Udp => packets::whole(from.0, to.0, packets::UDP, &packets::udp(from, to, b"")),
    }
}

/// Sends the first packets of new connections from an address, one after the other.
pub fn walk(site: &Site, from: IpAddr, steps: &[&str]) {
    walk_at(site, &site.lab.laptop, from, steps);
}

/// As [`walk`], sent by this host: none passes on what has its own address as the source.
pub fn walk_at(site: &Site, host: &Host, from: IpAddr, steps: &[&str]) {
    let to = site.lab.server.address_like(from);
    let of_steps = steps.iter().map(|step| first_packet(site, from, step));
    packets::send(host, to, &of_steps.collect::<Vec<_>>());
}

/// Whether a sequence has admitted an address.
pub fn is_open(site: &Site, address: IpAddr) -> bool {
    site.admits("seq_ssh", address)
}

/// Waits until everything that was sent before has been judged: a sequence that was begun
/// afterwards, from an address that has no other use, has opened.
pub fn until_judged(site: &Site, control: u16) {
    for from in both(control) {
        walk(site, from, &STEPS);
        wait::until_true("the control opens", || is_open(site, from));
    }
}

/// Sends many packets from the laptop, waiting now and then until they have arrived.
pub fn send_all(site: &Site, to: IpAddr, packets: impl Iterator<Item = Vec<u8>> + Send) {
    site.lab.laptop.enter(|| {
        let sender = Sender::to(to);
        for packet in packets {
            wait::until("room to send", || sender.send(&packet).ok());
        }
    });
}
