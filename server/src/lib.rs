//! The server's side of oneknock: the daemon `oneknockd` and the administration
//! `oneknockctl`.
//!
//! ```text
//! listener ──bytes, source──▶ gate ──Verdict──▶ ledger ──recorded──▶ firewall
//!  sockets    (what, from whom)  pure: keys,      what outlives       nftables set,
//!  only                          policy, replay   the process         kernel timeout
//! ```
//!
//! Beside that way stands `control`, the socket on which `oneknockctl` asks the daemon.
//!
//! `PROTOCOL.md` in the shared package says what a packet is; `gate` holds its rules.

pub mod clock;
pub mod config;
pub mod control;
pub mod ctl;
pub mod daemon;
pub mod doctor;
pub mod engine;
pub mod files;
pub mod firewall;
pub mod gate;
pub mod gateways;
pub mod ledger;
pub mod listener;
pub mod log;
mod proc_net;
mod program;
pub mod reasons;
mod running;
pub mod usage;
