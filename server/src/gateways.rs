//! This machine's default gateways, from the kernel's routing tables. A router that
//! rewrites sources shows every visitor under such an address.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const GATEWAY_FLAG: u32 = 0x2;
/// How often the tables are read.
const EVERY: Duration = Duration::from_secs(1);
/// Reading takes this share of the time at the most: a router's tables may have a million
/// routes.
const SHARE: u32 = 20;

/// The gateways of the default routes of both families; none where there is no such
/// route or the tables cannot be read.
#[must_use]
pub fn read() -> Vec<IpAddr> {
    let lines = |path: &str| {
        let file = File::open(path).into_iter().map(BufReader::new);
        file.flat_map(|file| file.lines().map_while(Result::ok))
    };
    let v4 = lines("/proc/net/route").filter_map(|line| ipv4(&line));
    let v6 = lines("/proc/net/ipv6_route").filter_map(|line| ipv6(&line));
    v4.chain(v6).collect()
}

/// Reads them again and again, by a thread of its own.
#[derive(Debug)]
pub struct Watch(Receiver<Vec<IpAddr>>);

impl Watch {
    /// Begins to; the first answer comes soon.
    #[must_use]
    pub fn start() -> Self {
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let mut last = None;
            loop {
                let begun = Instant::now();
                let found = Some(read());
                if found != last && tell.send(found.clone().unwrap_or_default()).is_err() {
                    return;
                }
                last = found;
                std::thread::sleep(EVERY.max(begun.elapsed() * SHARE));
            }
        });
        Self(told)
    }

    /// What they are now, where that is something else than before.
    #[must_use]
    pub fn changed(&self) -> Option<Vec<IpAddr>> {
        self.0.try_iter().last()
    }
}

/// Interface, destination, gateway, flags, three counters, mask …; numbers are
/// hexadecimal, addresses in the machine's byte order.
fn ipv4(line: &str) -> Option<IpAddr> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
    let is_default = number(1)? == 0 && number(7)? == 0 && number(3)? & GATEWAY_FLAG != 0;
    let gateway = Ipv4Addr::from(number(2)?.to_ne_bytes());
    (is_default && !gateway.is_unspecified()).then_some(gateway.into())
}

/// Destination its-prefix source its-prefix next-hop metric refcnt use flags iface.
fn ipv6(line: &str) -> Option<IpAddr> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let is_default = fields.first()?.bytes().all(|b| b == b'0') && *fields.get(1)? == "00";
    let flags = u32::from_str_radix(fields.get(8)?, 16).ok()?;
    let gateway = u128::from_str_radix(fields.get(4)?, 16).ok()?;
    let good = is_default && flags & GATEWAY_FLAG != 0 && gateway != 0;
    good.then_some(Ipv6Addr::from(gateway).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_gateways_of_both_families_are_found() {
        let gateway = u32::from_ne_bytes([192, 0, 2, 1]);
        let v4 = format!(
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n\
             eth0\t00000000\t{gateway:08X}\t0003\t0\t0\t100\t00000000\n\
             eth0\t000200C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\n"
        );
        let zero = "0".repeat(32);
        let v6 = format!(
            "{zero} 00 {zero} 00 20010db8000000000000000000000001 00000400 1 0 00000003 eth0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 1 0 00200200 lo\n"
        );
        let want: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let found: Vec<IpAddr> = v4.lines().filter_map(ipv4).collect();
        let found = [found, v6.lines().filter_map(ipv6).collect()].concat();
        assert_eq!(found, want);
    }
}
