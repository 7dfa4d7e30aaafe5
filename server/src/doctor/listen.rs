//! Whether the addresses that the daemon listens on are this machine's.

use super::{Check, Finding, Subject};
use std::io;
use std::net::{SocketAddr, UdpSocket};

/// See the module.
pub struct ListenAddresses;

impl Check for ListenAddresses {
    fn code(&self) -> &'static str {
        "E-LISTEN"
    }

    fn run(&self, subject: &Subject<'_>) -> Vec<Finding> {
        let listen = subject.config.map_or(&[][..], |config| &config.listen);
        let foreign = listen.iter().filter(|address| is_foreign(**address));
        let finding = |address: &SocketAddr| {
            let ip = address.ip();
            Finding::error(format!("listen: {ip} is no address of this machine"))
                .hint("correct listen in oneknockd.toml; ip -brief address")
        };
        foreign.map(finding).collect()
    }
}

/// The daemon listens there all the same: the address may come later.
fn is_foreign(mut address: SocketAddr) -> bool {
    address.set_port(0);
    let bound = UdpSocket::bind(address);
    bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}
