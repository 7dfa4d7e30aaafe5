//! Knocking: what is sent, where to, when, and what comes of it.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`engine`] | what is sent next, and when to stop; pure |
//! | [`proof`] | what shows that a service answers; pure |
//! | [`hold`] | when a port that is held open is knocked for again; pure |
//! | [`memory`] | what worked in which network; pure |
//! | [`plan`] | what is asked, and what may go to which address |
//! | [`drive`] | carries out what the engine says |
//! | [`packet`] | one fresh packet to one address |
//! | [`address`] | which address is signed into a packet |
//! | [`resolve`] | the addresses of a host |
//! | [`sequence`] | the port sequence: the fallback, and for other knocking servers |
//! | [`connect`] | packet, sequence, or one after the other |

pub mod address;
pub mod connect;
pub mod drive;
pub mod engine;
pub mod hold;
pub mod memory;
pub mod packet;
pub mod plan;
pub mod proof;
pub mod resolve;
pub mod sequence;
