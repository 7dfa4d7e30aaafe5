//! `oneknockctl debug reset-state`.

use super::Failure;
use super::output::say;
use crate::clock::Clock;
use crate::config::Paths;
use crate::engine::Engine;
use crate::files::Owner;
use crate::server::ServerSettings;
use crate::store::{Recovery, Store, StoreOpenError};
use oneknock_shared::knock::Timestamp;

/// Makes a state in which nothing is accepted that was made before now, as the daemon
/// does once the clock is synchronized. A state that is whole is left as it is.
pub fn reset(paths: &Paths) -> Result<(), Failure> {
    super::check_readable(paths)?;
    // A key that is skipped has the floor too, when its file is fixed.
    let settings = ServerSettings::load_for_start(paths).map_err(Failure::Config)?;
    let (dir, now) = (&paths.state(), Clock::start().now());
    let failed = |error| match error {
        StoreOpenError::Locked(_) => Failure::Failed(
            format!("the state was not reset: {error}"),
            Some("stop oneknockd first; the guard stays meanwhile".into()),
        ),
        error => Failure::new("the state was not reset", error),
    };
    crate::files::make_folder(dir, Owner::of_state(), 0o700)
        .map_err(|error| Failure::new(dir.display(), error))?;
    let (mut store, recovery) = Store::open(dir, now).map_err(failed)?;
    let Recovery::Nothing(why) = recovery else {
        let what = format!(
            "the state in {} is intact: nothing was changed",
            dir.display()
        );
        return Err(Failure::Failed(what, None));
    };
    let skew = u64::try_from(settings.config.skew.as_millis()).unwrap_or(u64::MAX);
    let floor = Timestamp(now.wall.0.saturating_add(skew));
    let mut engine = Engine::new(settings.rules(), now);
    engine.raise_floors(floor);
    let failed = |error| Failure::new("the state was not reset", error);
    let begun = store.begin(&engine.snapshot(now), floor, now);
    begun.map_err(failed)?;
    store.close().map_err(failed)?;
    say(format_args!(
        "reset the state ({why}): knocks of the next {} s are refused",
        skew / 1000
    ));
    Ok(())
}
