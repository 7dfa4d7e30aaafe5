//! The kernel beside the guard's table: connections, routes and the changes that other
//! programs make, each in network namespaces that the test makes.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

mod connections;
mod gap;
mod monitor;
mod nft;
mod peers;
mod routes;
