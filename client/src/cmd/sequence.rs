//! `oneknock sequence`.

use super::TIMEOUT;
use crate::cli::Sequence;
use crate::error::Error;
use crate::knock::connect::walk_once;
use crate::knock::resolve::resolve;
use crate::knock::sequence::{Steps, Walk};
use crate::ui::message::note;

pub async fn run(wanted: &Sequence) -> Result<(), Error> {
    let addresses = resolve(&wanted.host, wanted.families.family(), TIMEOUT).await?;
    let walk = Walk {
        addresses,
        from: None,
        steps: Steps::Fixed(wanted.steps.clone()),
        delay: wanted.delay,
        // To other servers a step that comes again is a wrong one.
        copies: 1,
    };
    walk_once(&walk).await?;
    let (count, host) = (wanted.steps.len(), &wanted.host);
    note(&format!(
        "sent {count} steps to {host}; what they open cannot be seen from here"
    ));
    Ok(())
}
