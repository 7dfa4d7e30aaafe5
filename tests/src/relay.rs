//! Something between that answers every SYN, as a carrier's transparent proxy does: it takes
//! the connection first, and only then asks the server for one of its own.

use crate::host::Host;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// Where it listens on the router.
pub const PORT: u16 = 2200;
/// How long it tries to reach the server.
const PATIENCE: Duration = Duration::from_secs(5);

/// Lets the router take every connection that comes in by its link `laptop` to TCP 22, and
/// relay it to the server from `outside`, which is another address of the router's. UDP over
/// IPv4 from the laptop leaves from there too. It lives as long as the router does.
pub fn transparent(router: &Host, server: IpAddr, outside: IpAddr) {
    router.ip_batch(&format!("addr add {outside}/24 dev br0\n"));
    router.nft(&format!(
        "table ip proxy {{
            chain pre {{
                type nat hook prerouting priority dstnat;
                iifname laptop tcp dport 22 redirect to :{PORT}
            }}
            chain post {{
                type nat hook postrouting priority srcnat;
                oifname br0 ip daddr {server} ip saddr != {outside} snat to {outside}
            }}
        }}"
    ));
    // Threads that are begun inside stay inside.
    router.enter(|| {
        let listener = TcpListener::bind(("0.0.0.0", PORT)).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || relay(&stream, (server, 22).into()));
            }
        });
    });
}

/// The kernel chooses where it leaves from: the postrouting chain sees only what is forwarded
/// and what the router sends, so both leave by the same rule.
fn relay(near: &TcpStream, server: SocketAddr) {
    let Ok(far) = TcpStream::connect_timeout(&server, PATIENCE) else {
        return;
    };
    let pump = |mut from: &TcpStream, mut to: &TcpStream| {
        let mut chunk = [0; 16 * 1024];
        while let Ok(n @ 1..) = from.read(&mut chunk) {
            if to.write_all(&chunk[..n]).is_err() {
                break;
            }
        }
        // Fails where the other direction has ended it already.
        let _ = to.shutdown(Shutdown::Write);
    };
    thread::scope(|scope| {
        scope.spawn(|| pump(near, &far));
        pump(&far, near);
    });
}
