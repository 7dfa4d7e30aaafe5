//! Creates the state, and reads it back.

use super::directory::{MARK, StateDirectory};
use super::fold::Fold;
use super::journal;
use super::mark::{self, HighWaterMark, MarkState};
use super::permissions::InsecurePath;
use super::record::{FileHeader, FileKind};
use super::recovery::{LastRun, NoLog, read_log};
use super::segment::Segment;
use super::snapshot;
use crate::engine::{EndReason, Grant, Now, State};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::secret::random;
use std::io;
use std::path::Path;

/// What [`super::Store::open`] has read back.
#[derive(Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The state of the last run.
    State {
        /// What was recorded. Its grants have not ended.
        state: State,
        /// After a power cut: the replay floor of every generation that there is or will be.
        floor: Option<Timestamp>,
        /// The grants that have ended since they were recorded.
        ended: Vec<(Grant, EndReason)>,
    },
    /// No state: it was missing or damaged. The text says which, and what became of it. Packets
    /// may have been accepted that nothing is known of.
    Nothing(String),
}

/// Creates the empty state, where there is no part of one.
pub(super) fn create(directory: &StateDirectory) -> io::Result<()> {
    let files = directory.log_files()?;
    let has_log = !files.segments.is_empty() || !files.snapshots.is_empty();
    let mark = directory.file(MARK);
    if has_log || mark.symlink_metadata().is_ok() {
        return Ok(());
    }
    let run = random().map_err(io::Error::other)?;
    Segment::create(directory, run, 1, 0, std::iter::empty())?;
    let header = FileHeader {
        kind: FileKind::Snapshot,
        run,
        number: 1,
        first: 1,
    };
    snapshot::write(directory, header, &State::default())?;
    journal::create(directory).map_err(io::Error::other)?;
    mark::create(directory)
}

/// The parts of a store that was opened.
pub(super) struct Recovered {
    pub mark: HighWaterMark,
    /// Whether the last run was in this boot of the machine.
    pub same_boot: bool,
    pub recovery: Recovery,
}

/// Reads the state. Files that are damaged, or that others could have written, are moved aside.
pub(super) fn recover(
    directory: &StateDirectory,
    insecure: &[InsecurePath],
    now: Now,
) -> io::Result<Recovered> {
    let of_mark = untrusted(insecure, directory, |path| path == directory.file(MARK));
    let of_log = untrusted(insecure, directory, |path| {
        let extension = path.extension().unwrap_or_default();
        extension == "log" || extension == "snapshot"
    });
    let (mark, state) = HighWaterMark::open(directory, of_mark.is_none())?;
    let log = match (&of_log, state) {
        (Some(why), _) => Err(NoLog::Damaged(format!("it is not trusted: {why}"))),
        (
            None,
            MarkState::Run {
                until,
                clean,
                same_boot,
            },
        ) => {
            let last = match (clean, same_boot) {
                (true, _) => LastRun::Clean,
                (false, true) => LastRun::Killed,
                (false, false) => LastRun::PowerCut,
            };
            let floor = (last == LastRun::PowerCut).then_some(until);
            read_log(directory, last).map(|fold| (fold, floor, same_boot))
        }
        _ => Ok((Fold::default(), None, false)),
    };
    let log = match log {
        Ok(log) => Ok(log),
        Err(NoLog::Io(error)) => return Err(error),
        Err(NoLog::Missing) => Err("the log is missing".to_owned()),
        Err(NoLog::Damaged(why)) => {
            directory.move_log_aside()?;
            Err(format!(
                "the log is damaged ({why}); it was moved to *.damaged"
            ))
        }
    };
    let same_boot = matches!(
        state,
        MarkState::Run {
            same_boot: true,
            ..
        }
    );
    let recovery = match (state, log) {
        (MarkState::Missing, _) => Recovery::Nothing("mark is missing".into()),
        (MarkState::Damaged, _) => {
            let why = of_mark.unwrap_or_else(|| "it cannot be read".into());
            Recovery::Nothing(format!(
                "mark is damaged ({why}); it was moved to mark.damaged"
            ))
        }
        (_, Err(why)) => Recovery::Nothing(why),
        (_, Ok((fold, floor, same_boot))) => {
            let (state, ended) = fold.finish(now, same_boot);
            Recovery::State {
                state,
                floor,
                ended,
            }
        }
    };
    Ok(Recovered {
        mark,
        same_boot,
        recovery,
    })
}

/// Why a file is not trusted: others could write it, or put another one in its place.
pub(super) fn untrusted(
    insecure: &[InsecurePath],
    directory: &StateDirectory,
    is_it: impl Fn(&Path) -> bool,
) -> Option<String> {
    let is_open =
        |one: &&InsecurePath| one.writable && (one.path == directory.path || is_it(&one.path));
    insecure.iter().find(is_open).map(InsecurePath::what)
}
