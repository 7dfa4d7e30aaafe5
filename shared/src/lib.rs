//! The oneknock protocol, version 1, as `PROTOCOL.md` beside this crate lays it down.
//!
//! This crate reads no socket, no file and no clock: bytes and time come in as
//! arguments, values come out. Randomness too is an argument where a test must be
//! able to choose it ([`packet::seal`] takes its nonce).
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`secret`] | the secret, the server's id, and the subkeys derived from them |
//! | [`selector`] | the first eight bytes of a packet, and the minute they belong to |
//! | [`knock`] | what a client asks for, and its 44 bytes |
//! | [`packet`] | sealing a knock; verifying and opening a packet |
//! | [`invitation`] | the line of text that brings a key to a client |
//! | [`name`], [`port`] | the grammar of names, hosts and ports |

pub mod invitation;
pub mod knock;
pub mod name;
pub mod packet;
pub mod port;
pub mod rolling;
pub mod secret;
pub mod selector;
