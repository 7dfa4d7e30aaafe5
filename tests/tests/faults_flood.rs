//! Floods: of good packets by a key's holder, and of junk, forgeries and replays from
//! forged addresses. What is kept stays bounded, and a genuine knock still opens.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::packets::{self, UDP};
use oneknock_tests::site::PORT;
use oneknock_tests::wire::{self, Probe, until_read};
use oneknock_tests::{Site, binaries, figure, wait};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// How long a flood lasts.
const FLOOD: Duration = Duration::from_secs(10);
/// Lines that a flood may cause in a minute, and some that tell of something else.
const LINES: usize = 60;
/// What a flood may add to the daemon's memory, in KiB: the allocator's own slack.
const MEMORY: u64 = 4 * 1024;
/// What the state may take on disk whatever was sent, in bytes.
const STATE: u64 = 8 << 20;

/// The laptop knocks with the real client, again and again, until `until`. Gives how
/// many milliseconds each took to get in.
fn gets_in(site: &Site, until: Instant) -> Vec<u128> {
    let mut took = Vec::new();
    while Instant::now() < until {
        let start = Instant::now();
        site.oneknock(&["open", "home", "--for", "1s"]).ok();
        took.push(start.elapsed().as_millis());
        wait::until_true("the door is shut", || {
            site.guests("ssh").iter().all(|g| g.comment != "laptop")
        });
    }
    took
}

/// A source that nobody has, of the destination's family.
fn forged(number: u64, to: IpAddr) -> IpAddr {
    // Spread over the whole space, by a multiplier without a pattern.
    let bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    match to {
        IpAddr::V4(_) => {
            let [a, b, c, d, ..] = bits.to_be_bytes();
            Ipv4Addr::new(a % 100 + 20, b, c, d).into()
        }
        IpAddr::V6(_) => Ipv6Addr::from(0x2001_0db8_0bad_u128 << 80 | u128::from(bits)).into(),
    }
}

fn whole(number: u64, to: IpAddr, bytes: &[u8]) -> (IpAddr, Vec<u8>) {
    let from = (
        forged(number, to),
        1024 + u16::from(number.to_le_bytes()[0]),
    );
    let packet = packets::udp(from, (to, PORT), bytes);
    (to, packets::whole(from.0, to, UDP, &packet))
}

#[test]
fn junk_forgeries_and_replays_from_everywhere() {
    let site = Site::new(binaries!());
    let key = site.laptop_key();
    let mut daemon = site.daemon();
    let (laptop, server) = (&site.lab.laptop, &site.lab.server);
    let mut knock = || {
        let open = wire::open(Some("ssh"), 1);
        let packet = key.knock(laptop, server.v4.into(), &open);
        daemon.expect("granted address=");
        packet
    };
    let recorded: Vec<_> = (0..20).map(|_| knock()).collect();
    let mut kinds: Vec<Vec<u8>> = Vec::new();
    for packet in recorded {
        let mut forgery = packet;
        forgery[111] ^= 1;
        let mut junk = packet;
        junk[0] ^= 1;
        kinds.extend([packet.to_vec(), forgery.to_vec(), junk.to_vec()]);
    }
    // More sources than the kernel tracks connections.
    let packets = (0..300_000_u64).map(|n| {
        let to = server.addresses()[usize::from(n % 4 == 0)];
        let kind = usize::try_from(n).unwrap() / 4 % kinds.len();
        whole(n, to, &kinds[kind])
    });
    let packets: Vec<_> = packets.collect();
    let (lines, memory) = (daemon.lines().len(), daemon.memory());
    let (sent, took) = wait::meanwhile(
        |stop| packets::flood(&site.lab.stranger, &packets, stop),
        || gets_in(&site, Instant::now() + FLOOD),
    );
    let dropped = until_read(server, PORT);
    let more = daemon.memory().saturating_sub(memory);
    let tracked = server.enter(|| fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count"));
    figure(format_args!(
        "flood of {sent} packets, {dropped} found the socket full; memory {memory} KiB and {more} KiB more; {} log lines; {} connections tracked; genuine knocks were in after {took:?} ms",
        daemon.lines().len() - lines,
        tracked.unwrap().trim(),
    ));
    assert!(more < MEMORY, "{more} KiB more");
    assert!(daemon.lines().len() - lines - took.len() < LINES);
    assert!(site.state_size() < STATE);
    // The last packet of the client may have waited in the flood.
    wait::until_true("no grant is left", || site.guests("ssh").is_empty());
    for to in server.addresses() {
        assert_eq!(site.probe(&site.lab.stranger, to), Probe::Silent);
    }
}

#[test]
fn good_packets_of_a_keys_holder() {
    const PER_MINUTE: usize = 60;
    const GRANTS: usize = 16;
    let site = Site::new(binaries!());
    let _laptop = site.laptop_key();
    // Either runs into a limit of its own: the number of grants, and the rate.
    let [many, fast] = ["many", "fast"].map(|name| {
        let key = site.key(name, &["ssh"]);
        site.set(&site.key_file(name), "allow_other_addresses", "true");
        key
    });
    let most = format!("{}", PER_MINUTE * 1000);
    site.set(&site.key_file("many"), "knocks_per_minute", &most);
    let daemon = site.daemon();
    let (stranger, server) = (&site.lab.stranger, &site.lab.server);
    let start = Instant::now();
    let packets = (0..20_000_u64).map(|n| {
        let to = server.addresses()[usize::from(n % 4 == 0)];
        let mut knock = wire::open(Some("ssh"), 600);
        knock.address = Some(if n % 2 == 0 {
            forged(n, to)
        } else {
            forged(1, to)
        });
        let key = if n % 2 == 0 { &many } else { &fast };
        let packet = key.seal(&knock);
        let from = (stranger.address_like(to), 4000);
        let packet = packets::udp(from, (to, PORT), &packet);
        (to, packets::whole(from.0, to, UDP, &packet))
    });
    let packets: Vec<_> = packets.collect();
    let memory = daemon.memory();
    let (sent, took) = wait::meanwhile(
        |stop| packets::flood(stranger, &packets, stop),
        || gets_in(&site, Instant::now() + FLOOD),
    );
    let dropped = until_read(server, PORT);
    let seconds = usize::try_from(start.elapsed().as_secs()).unwrap() + 1;
    let granted = |key: &str| daemon.count(&format!(" key={key} service=ssh seconds="));
    let guests = site.guests("ssh");
    let of = |key: &str| guests.iter().filter(|g| g.comment == key).count();
    let more = daemon.memory().saturating_sub(memory);
    figure(format_args!(
        "flood of {sent} good packets, {dropped} found the socket full; {} and {} granted in {seconds} s; {more} KiB more memory, {} bytes of state; another key was in after {took:?} ms",
        granted("many"),
        granted("fast"),
        site.state_size(),
    ));
    assert_eq!(of("many"), GRANTS);
    assert_eq!(granted("many"), GRANTS);
    assert_eq!(of("fast"), 1);
    assert!(granted("fast") <= PER_MINUTE + PER_MINUTE * seconds / 60);
    assert!(site.state_size() < STATE);
    assert!(more < MEMORY + 4 * 1024, "{more} KiB more");
}
