//! The server as a whole machine: booted by systemd, with oneknock's units.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

mod doctor;
mod home;
mod life;
mod others;
mod packages;
mod readme;
mod start;
mod trial;
mod units;
