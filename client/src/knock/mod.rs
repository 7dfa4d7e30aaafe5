//! Knocking: what is sent, where to, when, and what comes of it.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`packet`] | one fresh packet to one address |
//! | [`address`] | which address is signed into a packet |
//! | [`resolve`] | the addresses of a host |
//! | [`schedule`] | when to knock, and when to try the port; no clock in it |
//! | [`attempt`] | knock and try until the port answers |
//! | [`sequence`] | the port sequence: the fallback, and for other knocking servers |
//! | [`connect`] | packet, sequence, or one after the other |

pub mod address;
pub mod attempt;
pub mod connect;
pub mod packet;
pub mod resolve;
pub mod schedule;
pub mod sequence;
