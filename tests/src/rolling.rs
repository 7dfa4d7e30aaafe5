//! Sequences that roll, as a program of the tests' own walks them.

use crate::Site;
use crate::sequence;
use crate::wait;
use crate::wire::{self, Key};
use oneknock_shared::port::Ports;
use oneknock_shared::rolling;
use oneknock_shared::secret::Subkeys;
use oneknock_shared::selector::Slot;
use std::fs;
use std::net::IpAddr;

/// Puts a sequence for ssh that rolls into the configuration, with more lines of its section.
pub fn configure(site: &Site, more: &str) {
    let text = fs::read_to_string(site.config()).unwrap();
    let section = format!("\n[sequence]\nservice = \"ssh\"\nrolling = true\n{more}\n");
    fs::write(site.config(), format!("{text}{section}")).unwrap();
}

/// The steps of a key so many minutes from now.
pub fn steps(key: &Key, minutes: i64) -> Vec<String> {
    steps_of(key, (wire::now() / 60_000).saturating_add_signed(minutes))
}

/// The steps of a key in that minute since 1970.
pub fn steps_of(key: &Key, slot: u64) -> Vec<String> {
    let keys = Subkeys::derive(&key.invitation.secret, &key.invitation.server_id);
    let steps = rolling::steps(&keys, Slot(slot));
    steps.iter().map(Ports::to_string).collect()
}

/// Sends these steps from an address, one after the other.
pub fn walk(site: &Site, from: IpAddr, steps: &[String]) {
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    sequence::walk(site, from, &steps);
}

/// Two keys none of whose sequences meet in the minutes that a test may see: of two that
/// have a port at the same step, one is left out.
pub fn two_keys(site: &Site, names: [&str; 2]) -> [Key; 2] {
    loop {
        let keys = names.map(|name| site.key(name, &["ssh"]));
        let minutes = keys
            .iter()
            .flat_map(|key| (-4..=4).map(|minutes| steps(key, minutes)));
        let all: Vec<Vec<String>> = minutes.collect();
        let meet = |a: &[String], b: &[String]| a.iter().zip(b).any(|(a, b)| a == b);
        let apart = (1..all.len()).all(|n| all[..n].iter().all(|other| !meet(other, &all[n])));
        if apart {
            return keys;
        }
        for name in names {
            site.ctl(&["key", "remove", name, "--force"]).ok();
        }
    }
}

/// Waits until a minute has enough left of it that a test's steps are all in it, and has
/// begun long enough ago that the kernel was told of the next.
pub fn early_in_a_minute() {
    // What is left of the minute is shorter than a test waits.
    let early = 3_000..45_000;
    wait::until_true("an early second", || {
        early.contains(&(wire::now() % 60_000))
    });
}
