//! The control socket: what oneknockctl asks of a running daemon.

pub mod answers;
mod bind;
mod lock;
pub mod protocol;
mod socket;
mod time;
pub mod watch;

pub use bind::{NoSocket, is_alive};
pub use socket::{Reply, Request, Socket};
