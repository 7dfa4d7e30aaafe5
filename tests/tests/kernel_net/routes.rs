//! The default gateways, and what becomes of them.

use oneknock_tests::host::Host;
use oneknock_tests::{Lab, binaries, wait};
use oneknockd::kernel::{RouteMonitor, default_gateways};
use std::net::IpAddr;

const LAB4: &str = "192.0.2.1";
const LAB6: &str = "2001:db8:0:1::1";

fn gateways(host: &Host) -> Vec<IpAddr> {
    host.enter(default_gateways).unwrap()
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn gateways_of_every_table_family_and_hop_are_found() {
    let lab = Lab::new(binaries!());
    let server = &lab.server;
    assert_eq!(gateways(server), addresses(&[LAB4, LAB6]));
    server.ip_batch(
        "link add d0 type bridge mcast_snooping 0\n\
         link set d0 up\n\
         addr add 198.18.5.1/24 dev d0\n\
         addr add 2001:db8:0:5::1/64 dev d0 nodad\n\
         route add default dev d0 table 99\n\
         route add default via 198.18.5.2 table 100\n\
         route add default metric 9 nexthop via 198.18.5.3 dev d0 nexthop via 198.18.5.4 dev d0 weight 7\n\
         route add default table 101 nexthop via 2001:db8:0:5::3 nexthop via 2001:db8:0:5::4\n\
         route add default via inet6 fe80::9 dev d0 table 102\n\
         route add 0.0.0.0/1 via 198.18.5.5\n\
         route add 2000::/3 via 2001:db8:0:5::5\n\
         route add 198.19.0.0/16 via 198.18.5.6\n\
         route add unreachable default metric 4000000\n\
         route add blackhole default table 103\n",
    );
    let want = addresses(&[
        LAB4,
        "198.18.5.2",
        "198.18.5.3",
        "198.18.5.4",
        "198.18.5.5",
        LAB6,
        "2001:db8:0:5::3",
        "2001:db8:0:5::4",
        "2001:db8:0:5::5",
        "fe80::9",
    ]);
    assert_eq!(gateways(server), want);
}

#[test]
fn next_hops_that_the_kernel_does_not_name_are_an_error() {
    let lab = Lab::new(binaries!());
    let server = &lab.server;
    server.ip_batch(
        "nexthop add id 7 via 192.0.2.20 dev eth0\n\
         route add default table 100 nhid 7\n",
    );
    assert_eq!(gateways(server), addresses(&[LAB4, "192.0.2.20", LAB6]));
    server.sysctl("ipv4/nexthop_compat_mode", "0");
    let error = server.enter(default_gateways).unwrap_err().to_string();
    assert!(error.contains("nexthop object 7"), "{error}");
}

#[test]
fn monitor_tells_each_change_of_a_default_route() {
    let lab = Lab::new(binaries!());
    let server = &lab.server;
    let monitor = server.enter(RouteMonitor::start).unwrap();
    let until = |want: &[&str]| {
        let want = addresses(want);
        wait::until(&format!("{want:?}"), || {
            (monitor.take()?.unwrap() == want).then_some(())
        });
    };
    until(&[LAB4, LAB6]);
    for (line, want) in [
        (
            "route add default via 192.0.2.20 table 100",
            &[LAB4, "192.0.2.20", LAB6][..],
        ),
        ("route del default table 100", &[LAB4, LAB6]),
        (
            "route replace default nexthop via 192.0.2.8 nexthop via 192.0.2.9",
            &["192.0.2.8", "192.0.2.9", LAB6],
        ),
        (
            "route append default via 2001:db8:0:1::9",
            &["192.0.2.8", "192.0.2.9", LAB6, "2001:db8:0:1::9"],
        ),
        (
            "-6 route del default via 2001:db8:0:1::9",
            &["192.0.2.8", "192.0.2.9", LAB6],
        ),
        // The routes of IPv4 go with the address, in silence.
        ("addr del 192.0.2.10/24 dev eth0", &[LAB6]),
        ("link set eth0 down", &[]),
        ("link set lo down", &[]),
    ] {
        server.run(&["sh", "-c", &format!("ip {line}")]).ok();
        if line != "link set lo down" {
            until(want);
        }
    }
    assert!(monitor.take().is_none());
}

#[test]
fn monitor_finds_the_last_state_after_a_storm() {
    let lab = Lab::new(binaries!());
    let server = &lab.server;
    let monitor = server.enter(RouteMonitor::start).unwrap();
    wait::until("the first", || monitor.take()).unwrap();
    // More than its socket can hold.
    let line = |n: u32| {
        let [_, _, c, d] = n.to_be_bytes();
        format!("route add 198.19.{c}.{d}/32 via 192.0.2.1\n")
    };
    let mut lines: String = (0..30_000).map(line).collect();
    lines += "route add default via 192.0.2.20 table 100\n";
    server.ip_batch(&lines);
    let want = addresses(&[LAB4, "192.0.2.20", LAB6]);
    wait::until("the new gateway", || {
        (monitor.take()?.unwrap() == want).then_some(())
    });
}
