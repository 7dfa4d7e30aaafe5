//! `oneknock open`: knock, and wait until the service shows itself.

use super::{bound, signing};
use crate::cli::Open;
use crate::error::Error;
use crate::knock::address::{AddressArg, AddressBinding};
use crate::knock::connect::{Limits, connect, describe, sequence_of, waiting_text, walk_once};
use crate::knock::drive::{self, Target};
use crate::knock::engine::{Goal, Outcome};
use crate::knock::packet::KnockRequest;
use crate::knock::plan::KnockPlan;
use crate::knock::proof::Proof;
use crate::knock::resolve::resolve;
use crate::knock::sequence::Via;
use crate::profile::state::StateDir;
use crate::profile::{Profile, first_tcp};
use crate::ui::message::{note, warning};
use crate::ui::progress::Progress;
use oneknock_shared::knock::Action;
use oneknock_shared::name::ServiceName;

/// Opens one profile's service.
pub async fn run(profile: &Profile, wanted: &Open) -> Result<(), Error> {
    knock(profile, plan(profile, wanted).await?, wanted).await
}

/// What is to be asked, and of which addresses.
pub async fn plan(profile: &Profile, wanted: &Open) -> Result<KnockPlan, Error> {
    let of = &profile.invitation;
    let service = profile.service(wanted.service.as_ref())?;
    let choice = wanted.way.address;
    let signing = signing(profile, choice, AddressBinding::for_open)?;
    let (from, family) = bound(choice, wanted.way.family())?;
    if wanted.via == Via::Sequence && profile.sequence(Some(&service.name)).is_none() {
        return Err(Error::NoSequence {
            profile: profile.name().clone(),
            service: Some(service.name),
        });
    }
    Ok(KnockPlan {
        request: KnockRequest {
            keys: profile.keys(),
            action: Action::Open {
                seconds: wanted.seconds.unwrap_or(0),
            },
            service: Some(service.name),
            from,
        },
        addresses: resolve(&of.host, family, wanted.timeout).await?,
        port: of.port,
        signing,
    })
}

/// Knocks, and waits until the service shows itself where that can be seen.
pub async fn knock(profile: &Profile, plan: KnockPlan, wanted: &Open) -> Result<(), Error> {
    let name = profile.name();
    let service = profile.service(wanted.service.as_ref())?;
    let choice = wanted.way.address;
    let unverified = match (choice, first_tcp(service)) {
        _ if wanted.no_wait => "not waiting for the port to answer".to_string(),
        (AddressArg::Given(ip), _) if plan.request.from.is_none() => {
            format!("{ip} is another computer's, so the result cannot be verified from here")
        }
        (_, None) => "UDP only: the result cannot be verified".into(),
        (_, Some(port)) => {
            let target = Target {
                goal: Goal::Connection,
                port,
                proof: Proof::of(&service.name, port, wanted.settle),
                is_wanted: false,
            };
            let state = StateDir::of_this_user();
            let progress = if wanted.quiet {
                Progress::none()
            } else {
                Progress::new(waiting_text(name, port))
            };
            let limits = Limits {
                via: wanted.via,
                timeout: wanted.timeout,
            };
            let opened = connect(profile, &plan, target, limits, &state, &progress);
            return opened.await.map(drop);
        }
    };
    if wanted.via == Via::Sequence {
        walk_once(&sequence_of(profile, &plan)?).await?;
        note(&format!(
            "sent the port sequence for {} to {name} ({unverified})",
            service.name
        ));
        return Ok(());
    }
    knock_blindly(profile, &plan, service.name).await?;
    note(&format!(
        "sent the knock for {} to {name} ({unverified})",
        service.name
    ));
    Ok(())
}

/// Three packets over a second, where nothing can answer but an ICMP error.
async fn knock_blindly(
    profile: &Profile,
    plan: &KnockPlan,
    service: ServiceName,
) -> Result<(), Error> {
    let state = StateDir::of_this_user();
    let target = Target {
        goal: Goal::Knock,
        port: 0,
        proof: Proof::Ssh,
        is_wanted: false,
    };
    let memory = state.memory(profile.name());
    let report = drive::run(plan, target, std::time::Duration::ZERO, &memory).await;
    match report.outcome {
        Outcome::Sent => {
            for (address, outcome) in &report.endpoints {
                if outcome.is_known_failure() {
                    warning(&format!("{address}: {}", outcome.describe(plan.port, None)));
                }
            }
            Ok(())
        }
        Outcome::NotSent => Err(Error::NotSent {
            errors: describe(&report.endpoints, plan.port, None),
        }),
        _ => Err(Error::KnockRefused {
            profile: profile.name().clone(),
            service,
            knock_port: plan.port,
            endpoints: report.endpoints,
        }),
    }
}
