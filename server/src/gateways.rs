//! This machine's default gateways, from the kernel's routing tables. A router that
//! rewrites sources shows every visitor under such an address.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const GATEWAY_FLAG: u32 = 0x2;

/// The gateways of the default routes of both families; none where there is no such
/// route or the tables cannot be read.
#[must_use]
pub fn read() -> Vec<IpAddr> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    parse(&read("/proc/net/route"), &read("/proc/net/ipv6_route"))
}

fn parse(v4: &str, v6: &str) -> Vec<IpAddr> {
    v4.lines()
        .filter_map(ipv4)
        .chain(v6.lines().filter_map(ipv6))
        .collect()
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
        assert_eq!(parse(&v4, &v6), want);
    }
}
