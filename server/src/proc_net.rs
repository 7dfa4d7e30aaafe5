//! The tables of sockets in `/proc/net`, as proc(5) has them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The state of a TCP socket that is connected.
pub const ESTABLISHED: u8 = 0x01;
/// The state of a UDP socket that takes datagrams from anybody.
pub const UNCONNECTED: u8 = 0x07;
/// The state of a TCP socket that takes connections.
pub const LISTEN: u8 = 0x0a;

/// A socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// Its address and port here.
    pub local: SocketAddr,
    /// Its other end.
    pub remote: SocketAddr,
    /// One of the kernel's states.
    pub state: u8,
    /// What processes that hold it know it by.
    pub inode: u64,
}

/// The sockets of a table; what is no socket is passed over.
pub fn sockets(table: &str) -> impl Iterator<Item = Socket> {
    table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, remote, state, _, _, _, _, _, inode, ..] = fields[..] else {
            return None;
        };
        Some(Socket {
            local: end(local)?,
            remote: end(remote)?,
            state: u8::from_str_radix(state, 16).ok()?,
            inode: inode.parse().ok()?,
        })
    })
}

fn end(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(SocketAddr::new(address(ip)?, port))
}

/// Words of 32 bits in the machine's order, as they lie in memory.
fn address(hex: &str) -> Option<IpAddr> {
    let mut bytes = Vec::new();
    for at in (0..hex.len()).step_by(8) {
        let word = u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn sockets_are_read_and_garbage_is_not() {
        let table = "  sl  local_address rem_address   st\n\
             0: 0100000A:0016 076433C6:C000 01 00000000:00000000 00:00000000 00000000     0        0 4711 1\n\
             2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1\n\
             3: 0000000000000000FFFF00000100000A:0016 0000000000000000FFFF0000076433C6:C002 01 0:0 0:0 0 0 0 4714 1\n\
             4: B80D0120000000000000000001000000:0016 B80D0120000000000000000007000000:C002 01 0:0 0:0 0 0 0 4715 1\n\
             5: what\n";
        let socket = |local: &str, remote: &str, state, inode| Socket {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            state,
            inode,
        };
        let want = [
            socket("10.0.0.1:22", "198.51.100.7:49152", ESTABLISHED, 4711),
            socket("0.0.0.0:22", "0.0.0.0:0", LISTEN, 4713),
            socket("10.0.0.1:22", "198.51.100.7:49154", ESTABLISHED, 4714),
            socket("[2001:db8::1]:22", "[2001:db8::7]:49154", ESTABLISHED, 4715),
        ];
        assert!(sockets(table).eq(want));
    }
}
