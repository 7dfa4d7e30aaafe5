//! The journal: history and last use, for people, in a database. It decides nothing.
//!
//! A thread reads the spent log behind its writer, in the same files, and projects the records
//! to rows. So no packet waits for the database, a slow database loses nothing while the log is
//! there, and a lost journal is made again from the log.

mod database;
mod projector;
mod pruning;
mod read;
mod rows;

pub use read::{
    ConnectionFilter, GenerationUse, HistoryRow, granted_since_boot, history, knows_all_since_boot,
    opened_targets, uses,
};

pub(super) use database::{JournalError, create};
pub(super) use projector::Projector;

#[cfg(test)]
mod tests;
