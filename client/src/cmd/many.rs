//! The same for several profiles, at the same time.

use super::in_runtime;
use crate::error::Error;
use crate::profile::Profile;
use crate::profile::store::ProfileStore;
use crate::ui::message;
use oneknock_shared::name::KeyName;
use tokio::task::JoinSet;

/// Runs `work` for each profile. Nothing is begun where one of them cannot be read. What failed
/// is said, and is the error where there is only one.
pub fn run<F>(
    profiles: &ProfileStore,
    names: &[KeyName],
    mut work: impl FnMut(Profile) -> F,
) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let mut all = Vec::new();
    for name in names {
        let profile = profiles.load(name)?;
        if !all.contains(&profile) {
            all.push(profile);
        }
    }
    let count = all.len();
    let failed = in_runtime(async {
        let mut running = JoinSet::new();
        for (number, profile) in all.into_iter().enumerate() {
            let working = work(profile);
            running.spawn(async move { (number, working.await) });
        }
        let mut done = running.join_all().await;
        done.sort_by_key(|(number, _)| *number);
        let done = done.into_iter().map(|(_, done)| done);
        Ok(done.filter_map(Result::err).collect::<Vec<_>>())
    })?;
    match <[Error; 1]>::try_from(failed) {
        Ok([error]) if count == 1 => Err(error),
        Ok([error]) => {
            say(&error);
            Err(Error::SomeFailed { failed: 1, count })
        }
        Err(none) if none.is_empty() => Ok(()),
        Err(several) => {
            several.iter().for_each(say);
            let failed = several.len();
            Err(Error::SomeFailed { failed, count })
        }
    }
}

fn say(error: &Error) {
    message::error(&error.to_string());
    for hint in error.hints() {
        message::hint(&hint);
    }
}
