//! `oneknock close`: end this key's grants for this computer.

use super::{TIMEOUT, bound, signing};
use crate::cli::Close;
use crate::error::Error;
use crate::knock::address::AddressBinding;
use crate::knock::packet::KnockRequest;
use crate::knock::plan::KnockPlan;
use crate::knock::resolve::resolve;
use crate::profile::Profile;
use crate::ui::message::{note, warning};
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
    let (from, family) = bound(choice, wanted.way.family())?;
    let plan = KnockPlan {
        request: KnockRequest {
            keys: profile.keys(),
            action: Action::Close,
            service,
            from,
        },
        addresses: resolve(&of.host, family, TIMEOUT).await?,
        port: of.port,
        signing,
    };
    let errors = knock_all(&plan);
    if errors.len() == plan.addresses.len() {
        return Err(Error::NotSent { errors });
    }
    for error in errors {
        warning(&format!("no packet was sent to {error}"));
    }
    tokio::time::sleep(CLOSE_AGAIN).await;
    // What could not be sent was named the first time.
    let _ = knock_all(&plan);
    note(&format!(
        "asked {} to close (the server never answers, so the result cannot be verified)",
        profile.name()
    ));
    Ok(())
}

/// Sends a packet to each address; what kept those from being sent that were not.
fn knock_all(plan: &KnockPlan) -> Vec<String> {
    let send = |address: &std::net::IpAddr| {
        let server = (*address, plan.port).into();
        let sent = plan.request.knock(server, plan.signing);
        Some(format!("{address}: {}", sent.err()?))
    };
    plan.addresses.iter().filter_map(send).collect()
}
