//! The lab: several hosts as network namespaces on one machine, a real OpenSSH server,
//! and the project's own binaries.
//!
//! ```text
//!   laptop ───┐
//!             ├── net (a router) ─── server
//!   stranger ─┘
//! ```
//!
//! Every host has IPv4 and IPv6, from the ranges that are set aside for documentation.
//! Each lab has names of its own, so labs run side by side, and removes itself when it
//! is dropped, after a panic too. It needs root.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`lab`], [`host`] | the namespaces, and running things in them |
//! | [`site`] | a server with its configuration, keys and daemon, ready to be knocked at |
//! | [`boot`] | a host as a whole machine, with systemd, that is switched on and off |
//! | [`process`], [`wait`] | programs that go on running; waiting with a deadline |
//! | [`ssh`] | sshd with keys made on the spot, and ssh's own configuration |
//! | [`clock`] | a daemon whose wall clock a test sets |
//! | [`record`] | knocks that are told apart, sent once and again |
//! | [`power`] | a disk for the daemon's state, and the power that fails |
//! | [`chance`] | random choices that a seed repeats |
//! | [`sequence`], [`rolling`] | port sequences, single packets from any address |
//! | [`relay`] | a transparent proxy |
//! | [`weather`] | a link that loses and reorders |
//! | [`control`] | the daemon's socket, for bytes that oneknockctl would not send |
//! | [`wire`] | knocks with any timestamp, address and service; probes of a port |
//! | [`packets`] | fragments, extension headers and segments that no system would send |
//! | [`manual`] | the manual's pages, from the definitions of the command lines |
//! | [`capture`] | what really passed on the wire |

// A lab that cannot be built is a failed test: a panic is how a test says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]
// A knock is sent for what it does as often as for the packet that it gives back.
#![allow(clippy::must_use_candidate)]

pub mod boot;
pub mod capture;
pub mod chance;
pub mod clock;
pub mod control;
pub mod host;
pub mod lab;
pub mod manual;
pub mod packets;
pub mod power;
pub mod process;
pub mod record;
pub mod relay;
pub mod rolling;
pub mod sequence;
pub mod site;
pub mod ssh;
pub mod table;
pub mod wait;
pub mod weather;
pub mod wire;

use std::io::Write;

/// Says a figure where it is seen although the test passes; nothing depends on it.
pub fn figure(text: impl std::fmt::Display) {
    // The lock keeps the line whole; a closed standard error is nobody's failure.
    let _ = writeln!(std::io::stderr().lock(), "figure: {text}");
}

pub use host::{Done, Host};
pub use lab::{Binaries, Lab};
pub use process::Running;
pub use site::{Guest, Site};

/// The lab's binaries: cargo names them only to this package's integration tests.
#[macro_export]
macro_rules! binaries {
    () => {
        $crate::Binaries {
            oneknock: env!("CARGO_BIN_EXE_lab-oneknock"),
            oneknockd: env!("CARGO_BIN_EXE_lab-oneknockd"),
            oneknockd_shifted: env!("CARGO_BIN_EXE_lab-oneknockd-shifted"),
            oneknockctl: env!("CARGO_BIN_EXE_lab-oneknockctl"),
        }
    };
}
