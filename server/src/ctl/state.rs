//! `oneknockctl new-state`.

use super::{Failure, say};
use crate::clock::Clock;
use crate::config::Usable;
use crate::files::Owner;
use crate::gate::Gate;
use crate::ledger::{Found, Ledger, Unusable};
use oneknock_shared::knock::Timestamp;
use std::path::Path;

/// Makes a state in which nothing is accepted that was made before now, as the daemon
/// does once the clock is synchronised. A state that is whole is left as it is.
pub fn new(dir: &Path) -> Result<(), Failure> {
    super::check_readable(dir)?;
    // A key that is left out has the floor too, when it is mended.
    let settings = Usable::load(dir).map_err(Failure::Mistakes)?.settings;
    let (folder, now) = (&settings.config.state, Clock::start().now());
    let failed = |error| match error {
        Unusable::Locked(_) => Failure::Failed(
            format!("there is no new state: {error}"),
            Some("stop oneknockd, then again; the guard stays up meanwhile".into()),
        ),
        error => Failure::new("there is no new state", error),
    };
    crate::files::make_folder(folder, Owner::of_state(), 0o700)
        .map_err(|error| Failure::new(folder.display(), error))?;
    let (mut ledger, found) = Ledger::open(folder, now).map_err(failed)?;
    let Found::Nothing(why) = found else {
        let what = format!(
            "the state in {} is whole: nothing was changed",
            folder.display()
        );
        return Err(Failure::Failed(what, None));
    };
    let skew = u64::try_from(settings.config.skew.as_millis()).unwrap_or(u64::MAX);
    let floor = Timestamp(now.wall.0.saturating_add(skew));
    let mut gate = Gate::new(&settings, now);
    gate.raise_floors(floor);
    let failed = |error| Failure::new("there is no new state", error);
    ledger.begin(&gate.forgotten(now), floor).map_err(failed)?;
    ledger.close().map_err(failed)?;
    say(format_args!(
        "{why}; a new state is made: knocks of the next {} s are refused",
        skew / 1000
    ));
    Ok(())
}
