//! A simulated network, without a socket: clients, a thief and a server whose clock,
//! disk and power fail, for a million datagrams; and every promise of `PROTOCOL.md` is
//! held against a model that is simple enough to be believed.
//!
//! `LAB_SEED` repeats a run; it is said at the start, and with what is wrong.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

mod disk;
mod fold;
mod history;
mod model;
mod server;
mod site;
mod world;

use oneknock_tests::chance::Chance;
use oneknock_tests::figure;
use world::World;

const DATAGRAMS: u64 = 1_000_000;

/// A run in which one of these did not come about has shown less than it should.
const OUTCOMES: [&str; 30] = [
    "address-not-signed",
    "address-not-source",
    "address-unusable",
    "at a server that is away",
    "clock-skew",
    "closed",
    "expired",
    "grant-limit",
    "generations that retired",
    "granted",
    "grants that expired",
    "grants that went on",
    "grants that were revoked",
    "grants whose key has changed",
    "length",
    "mac",
    "malformed",
    "no-such-service",
    "not-yet-valid",
    "rate-limited",
    "replay-floor",
    "replayed",
    "selector",
    "service-not-allowed",
    "sessions that did not",
    "sessions that got in",
    "source-is-gateway",
    "spent",
    "store-error",
    "superseded-by-close",
];

#[test]
fn a_million_datagrams_and_every_promise_is_kept() {
    let mut world = World::new(Chance::new("simulation"));
    world.run(DATAGRAMS);
    let counts = world.counts();
    let told: Vec<String> = counts
        .iter()
        .map(|(what, n)| format!("{what} {n}"))
        .collect();
    let (hours, told) = (world.hours(), told.join(", "));
    figure(format_args!(
        "simulation: {DATAGRAMS} datagrams in {hours} hours: {told}"
    ));
    let missing: Vec<_> = OUTCOMES
        .iter()
        .filter(|what| !counts.contains_key(*what))
        .collect();
    assert!(missing.is_empty(), "{missing:?} did not come about");
}
