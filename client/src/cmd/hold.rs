//! `oneknock hold`: keeps ports open while it runs.

use super::{close, open};
use crate::cli::{Close, Hold as Wanted, Open, Way};
use crate::error::Error;
use crate::knock::address::{AddressArg, AddressBinding};
use crate::knock::engine::Binding;
use crate::knock::hold::{Clocks, Hold, HoldStep, Reason};
use crate::knock::packet;
use crate::knock::plan::{KnockPlan, Route};
use crate::knock::sequence::Via;
use crate::profile::Profile;
use crate::profile::state::StateDir;
use crate::ui::message::{note, warning};
use oneknock_shared::knock::Timestamp;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long one open may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Holds one profile's port open until `ended`, then closes it.
pub async fn run(
    profile: Profile,
    wanted: Wanted,
    mut ended: watch::Receiver<bool>,
) -> Result<(), Error> {
    let name = profile.name().clone();
    let service = profile.service(wanted.service.as_ref())?.name;
    let way = Way {
        address: AddressArg::Auto,
        families: wanted.families,
    };
    let opening = Open {
        names: Vec::new(),
        service: Some(service),
        seconds: None,
        way,
        via: Via::Packet,
        no_wait: false,
        settle: wanted.settle,
        timeout: PATIENCE,
        quiet: true,
    };
    let start = Instant::now();
    let mut hold = Hold::new(wanted.every);
    let mut plan = None;
    let mut is_open = false;
    loop {
        let now = clocks(start);
        let routes = match &plan {
            None => Vec::new(),
            Some(plan) => routes(plan, &profile),
        };
        let pause = match hold.next(now, &routes) {
            HoldStep::Wait(pause) => pause,
            HoldStep::Renew => {
                if let Some(plan) = &plan {
                    renew(plan, &profile);
                }
                hold.knocked(clocks(start).mono);
                Duration::ZERO
            }
            HoldStep::Open(reason) => {
                let opened = tokio::select! {
                    opened = try_open(&profile, &opening, &mut plan) => opened,
                    _ = ended.wait_for(|ended| *ended) => break,
                };
                let mono = clocks(start).mono;
                match opened {
                    Ok(()) => {
                        hold.knocked(mono);
                        is_open = true;
                        note(&format!("{name}: {service} is open{}", because(reason)));
                    }
                    Err(error) if reason == Reason::Start && error.status() != 1 => {
                        return Err(error);
                    }
                    Err(error) => {
                        hold.failed(mono);
                        if is_open || reason != Reason::Again {
                            warning(&error.to_string());
                        }
                        is_open = false;
                    }
                }
                // The routes of the plan are what later ones are held against.
                if let Some(plan) = &plan {
                    hold.next(clocks(start), &self::routes(plan, &profile));
                }
                Duration::ZERO
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = ended.wait_for(|ended| *ended) => break,
        }
    }
    let closing = Close {
        names: Vec::new(),
        service: Some(service),
        way,
    };
    close::run(&profile, &closing).await
}

async fn try_open(
    profile: &Profile,
    opening: &Open,
    plan: &mut Option<KnockPlan>,
) -> Result<(), Error> {
    // The name is looked up anew: it may lead elsewhere by now.
    let new = open::plan(profile, opening).await?;
    *plan = Some(new.clone());
    open::knock(profile, new, opening).await
}

fn because(reason: Reason) -> &'static str {
    match reason {
        Reason::Start => "",
        Reason::Network => " (the network changed)",
        Reason::Sleep => " (this computer slept)",
        Reason::Again => " again",
    }
}

fn routes(plan: &KnockPlan, profile: &Profile) -> Vec<Route> {
    let memory = StateDir::of_this_user().memory(profile.name());
    plan.routes(&memory, packet::now().unwrap_or(Timestamp(0)))
}

/// One packet to each address, of the kind that works there.
fn renew(plan: &KnockPlan, profile: &Profile) {
    let memory = StateDir::of_this_user().memory(profile.name());
    let now = packet::now().unwrap_or(Timestamp(0));
    for route in plan.routes(&memory, now) {
        let candidate = plan.candidate(&route, &memory, now);
        let Some(binding) = candidate.first_binding() else {
            continue;
        };
        let signing = match binding {
            Binding::Signed => plan.signing,
            Binding::Source => AddressBinding::Never,
        };
        let server = (route.to, plan.port).into();
        if let Err(why) = plan.request.knock(server, signing) {
            warning(&format!(
                "{}: no packet was sent to {}: {why}",
                profile.name(),
                route.to
            ));
        }
    }
}

fn clocks(start: Instant) -> Clocks {
    let wall = packet::now().unwrap_or(Timestamp(0));
    Clocks {
        mono: start.elapsed(),
        wall: Duration::from_millis(wall.0),
    }
}

/// Tells `end` when this program is asked to end.
pub async fn until_asked_to_end(end: watch::Sender<bool>) -> Result<(), Error> {
    let failed = |why| Error::System {
        what: "cannot wait for signals",
        why,
    };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        tokio::select! {
            _ = hangup.recv() => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.map_err(failed)?;
    // Nobody holds anything any more where telling fails.
    let _ = end.send(true);
    Ok(())
}
