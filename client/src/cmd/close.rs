//! `oneknock close`.

use super::{TIMEOUT, bound, knock_once, signing};
use crate::cli::Close;
use crate::error::Error;
use crate::knock::address::AddressBinding;
use crate::knock::attempt::KnockPlan;
use crate::knock::packet::KnockRequest;
use crate::knock::resolve::resolve;
use crate::profile::Profile;
use crate::ui::message::say;
use oneknock_shared::knock::Action;
use std::time::Duration;

/// Between the two packets of a close: one may be lost, and nothing would tell.
const CLOSE_AGAIN: Duration = Duration::from_millis(100);

pub async fn run(profile: &Profile, wanted: &Close) -> Result<(), Error> {
    let service = match &wanted.service {
        Some(name) => Some(profile.service(Some(name))?.name),
        None => None,
    };
    let of = &profile.invitation;
    let choice = wanted.way.address;
    let signing = signing(profile, choice, AddressBinding::for_close)?;
    let (from, family) = bound(choice, wanted.way.family());
    let round = KnockPlan {
        knocker: KnockRequest {
            keys: profile.keys(),
            action: Action::Close,
            service,
            from,
        },
        addresses: resolve(&of.host, family, TIMEOUT).await?,
        port: of.port,
        signing,
    };
    knock_once(&round)?;
    tokio::time::sleep(CLOSE_AGAIN).await;
    // What could not be sent was named the first time.
    let _ = round.knock_once();
    say(&format!(
        "asked {} to close the port; the server never answers",
        profile.name()
    ));
    Ok(())
}
