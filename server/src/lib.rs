//! The server's side of oneknock: the daemon `oneknockd` and the administration
//! `oneknockctl`.
//!
//! ```text
//! listener ─bytes─▶ engine ──Spend──▶ store ──durable──▶ engine ──dirty──▶ kernel ──▶ events
//!  sockets          judge             append             commit            sync       │
//!  only             pure              one write          pure              one batch  ▼
//!                                                     observers: log, counters, watchers, journal
//! ```
//!
//! [`server::Server`] is that picture as code. `daemon` runs it behind sockets; `ctl` asks the
//! daemon over the [`control`] socket, or runs it where no daemon does.
//!
//! `PROTOCOL.md` in the shared package says what a packet is; `ARCHITECTURE.md` walks one through
//! this crate.

pub mod clock;
pub mod config;
pub mod control;
pub mod ctl;
pub mod daemon;
pub mod doctor;
pub mod engine;
pub mod files;
pub mod kernel;
pub mod listener;
pub mod observers;
mod proc_net;
mod program;
pub mod reasons;
pub mod server;
pub mod store;
pub mod usage;
