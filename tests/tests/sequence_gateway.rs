//! Nobody walks a sequence as the machine's default gateway: behind a router that rewrites
//! sources is everybody.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::host::Host;
use oneknock_tests::sequence::{STEPS, configure, is_open, until_judged, walk_at};
use oneknock_tests::wire::{Probe, until_open};
use oneknock_tests::{Site, binaries, wait};
use std::net::IpAddr;

fn site() -> Site {
    let site = Site::new(binaries!());
    configure(&site, &STEPS, "");
    site
}

/// That these addresses, which the host has, walk in vain, while another one gets in.
fn is_barred(site: &Site, host: &Host, control: u16) {
    for from in host.addresses() {
        walk_at(site, host, from, &STEPS);
    }
    until_judged(site, control);
    for from in host.addresses() {
        assert!(!is_open(site, from), "{from}");
    }
}

#[test]
fn nobody_walks_as_the_machines_gateway_unless_configured() {
    let site = site();
    let net = &site.lab.net;
    let mut daemon = site.daemon();
    is_barred(&site, net, 1000);
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    is_barred(&site, net, 1001);
    site.set(&site.config(), "allow_gateway", "true");
    let _daemon = site.daemon();
    for from in net.addresses() {
        walk_at(&site, net, from, &STEPS);
        wait::until_true("it opens", || is_open(&site, from));
    }
}

#[test]
fn nobody_walks_as_the_gateway_where_the_guard_is_up_without_a_daemon() {
    let site = site();
    site.ctl(&["debug", "boot-guard"]).ok();
    is_barred(&site, &site.lab.net, 1000);
}

#[test]
fn a_gateway_that_comes_later_is_seen_and_one_that_goes_is_one_of_many() {
    let site = site();
    let _daemon = site.daemon();
    let neighbour = site.lab.neighbour();
    let server = &site.lab.server;
    let default = |host: &Host| {
        let (v4, v6) = (host.v4, host.v6);
        server.ip_batch(&format!(
            "route replace default via {v4}\nroute replace default via {v6}\n"
        ));
        for (address, family) in host.addresses().into_iter().zip(["v4", "v6"]) {
            let set = format!("gateway_{family}");
            let list = ["nft", "list", "set", "inet", "oneknock", &set];
            let only = format!("elements = {{ {address} }}");
            wait::until_true(&only, || server.run(&list).ok().contains(&only));
        }
    };
    default(&neighbour);
    is_barred(&site, &neighbour, 1000);
    for from in site.lab.net.addresses() {
        walk_at(&site, &site.lab.net, from, &STEPS);
        wait::until_true("it opens", || is_open(&site, from));
    }
    site.ctl(&["revoke", "--all"]).ok();
    default(&site.lab.net);
    site.ctl(&["reload", "--yes"]).ok();
    is_barred(&site, &site.lab.net, 1001);
}

#[test]
fn rules_alone_admit_nobody_as_the_gateway_of_the_machine_that_wrote_them() {
    let site = site();
    let rules = site.ctl(&["debug", "rules", "--sequence-only"]).ok();
    let (net, laptop, server) = (&site.lab.net, &site.lab.laptop, &site.lab.server);
    server.nft(&rules);
    for to in server.addresses() {
        let (from, walker): (IpAddr, _) = (net.address_like(to), laptop.address_like(to));
        walk_at(&site, net, from, &STEPS);
        walk_at(&site, laptop, walker, &STEPS);
        until_open(laptop, to, 22);
        assert_eq!(site.probe(net, to), Probe::Silent);
    }
}
