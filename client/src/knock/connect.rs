//! The way in: by a packet, by the sequence, or by the one and then the other, as the person
//! wants it and the profile allows; and what is said of it.

use crate::error::Error;
use crate::knock::drive::{self, Opened, Report, Target};
use crate::knock::engine::{Binding, Bindings, EndpointOutcome, Outcome};
use crate::knock::memory::{Memory, Remembered};
use crate::knock::packet;
use crate::knock::plan::KnockPlan;
use crate::knock::sequence::{self, Via, Walk};
use crate::profile::Profile;
use crate::profile::state::StateDir;
use crate::ui::message::{announce, note, warning};
use crate::ui::progress::Progress;
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::KeyName;
use std::net::IpAddr;
use std::time::Duration;

/// The sequence of the service that is to be opened, sent as our own server takes it.
pub fn sequence_of(profile: &Profile, plan: &KnockPlan) -> Result<Walk, Error> {
    let steps = profile.sequence(plan.request.service.as_ref());
    Ok(Walk {
        addresses: plan.addresses.clone(),
        from: plan.request.from,
        steps: steps.ok_or_else(|| Error::NoSequence {
            profile: profile.name().clone(),
            service: plan.request.service,
        })?,
        delay: sequence::DELAY,
        copies: sequence::COPIES,
    })
}

/// Sends a sequence once, and names the addresses where that could not be done. At one at
/// least it could.
pub async fn walk_once(walk: &Walk) -> Result<(), Error> {
    let walked = walk.walk().await;
    let failed = |(address, why): (IpAddr, Option<String>)| Some(format!("{address}: {}", why?));
    let errors: Vec<String> = walked.into_iter().filter_map(failed).collect();
    if errors.len() == walk.addresses.len() {
        return Err(Error::NotSent { errors });
    }
    for error in errors {
        warning(&format!("not every step was sent to {error}"));
    }
    Ok(())
}

/// The sequence that may follow a packet that met silence: one that cannot be used again by
/// whoever records it, or one that the profile asks for.
fn fallback(profile: &Profile, plan: &KnockPlan) -> Option<Walk> {
    let walk = sequence_of(profile, plan).ok()?;
    (walk.steps.is_rolling() || profile.falls_back).then_some(walk)
}

/// By which way, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The knock method.
    pub via: Via,
    /// When to give up.
    pub timeout: Duration,
}

/// What a person reads while the port is waited for.
#[must_use]
pub fn waiting_text(profile: &KeyName, port: u16) -> String {
    format!("knocking at {profile}: tcp/{port} does not answer yet")
}

/// Knocks by that way until the port is open; says it when another one is tried. Gives the
/// connection where it is wanted: then its service has shown itself.
pub async fn connect(
    profile: &Profile,
    plan: &KnockPlan,
    target: Target,
    Limits { via, timeout }: Limits,
    state: &StateDir,
    progress: &Progress,
) -> Result<Option<Opened>, Error> {
    let name = profile.name();
    let walk = match via {
        Via::Packet => None,
        Via::Auto => fallback(profile, plan),
        Via::Sequence => Some(sequence_of(profile, plan)?),
    };
    let by_packet = match (&walk, via) {
        (Some(_), Via::Sequence) => Duration::ZERO,
        (Some(_), _) => sequence::before_walk(timeout),
        (None, _) => timeout,
    };
    let before = state.memory(name);
    let mut memory = before.clone();
    let mut report = None;
    if !by_packet.is_zero() {
        let run = drive::run(plan, target, by_packet, &memory);
        let knocked = progress.during(run).await;
        learn(plan, &knocked, &mut memory);
        state.keep(name, &before, &memory);
        let is_over = matches!(knocked.outcome, Outcome::Open { .. })
            || knocked.outcome == Outcome::PortRefused
            || no_route(&knocked);
        if walk.is_none() || is_over {
            report = Some(knocked);
        }
    }
    let by_sequence = report.is_none();
    let report = match (report, walk) {
        (Some(report), _) => report,
        (None, Some(walk)) => {
            announce_sequence(name, &walk, via);
            let left = timeout.saturating_sub(by_packet);
            progress
                .during(walk.open(plan, target, left, &memory))
                .await
        }
        // Without a sequence the packet's report is there.
        (None, None) => return Err(Error::NotSent { errors: Vec::new() }),
    };
    let Report {
        outcome,
        endpoints,
        opened,
        ..
    } = report;
    if let Outcome::Open { .. } = outcome {
        return Ok(opened);
    }
    Err(failure(
        profile,
        plan,
        target,
        timeout,
        &outcome,
        endpoints,
        by_sequence,
    ))
}

/// Says that a weaker way is taken, also to a person whom ssh hides standard error from.
fn announce_sequence(name: &impl std::fmt::Display, walk: &Walk, via: Via) {
    let what = if walk.steps.is_rolling() {
        "the rolling port sequence (an eavesdropper can replay it for two minutes)"
    } else {
        "the port sequence (an eavesdropper can replay it)"
    };
    announce(&match via {
        Via::Sequence => format!("{name}: sending {what}"),
        _ => format!("{name}: no response to the knock; trying {what}"),
    });
}

fn no_route(report: &Report) -> bool {
    let mut all = report.endpoints.iter();
    all.all(|(_, outcome)| matches!(outcome, EndpointOutcome::NotSent(_)))
}

/// Takes in what worked, or forgets what did not.
fn learn(plan: &KnockPlan, report: &Report, memory: &mut Memory) {
    let now = packet::now().unwrap_or(Timestamp(0));
    let expected = memory.clone();
    for route in &report.routes {
        if let Ok(from) = &route.from {
            let opened = match report.outcome {
                Outcome::Open { endpoint, .. } => report.routes[endpoint].from.as_ref().ok(),
                _ => None,
            };
            if opened != Some(from) {
                memory.forget(*from);
            }
        }
    }
    let Outcome::Open {
        endpoint,
        by: Some(by),
        round_trip,
        ..
    } = report.outcome
    else {
        return;
    };
    let route = &report.routes[endpoint];
    let Ok(from) = route.from else { return };
    let by_source = by == Binding::Source;
    let bindings = plan.candidate(route, &expected, now).bindings;
    if by_source && bindings == Ok(Bindings::Both(Binding::Signed)) {
        note(&format!(
            "opened without this computer's address in the packet: a NAT stands before {}",
            route.to
        ));
    }
    let round_trip_ms = round_trip.unwrap_or_default().as_millis();
    let worked = Remembered {
        address: route.to,
        by_source,
        round_trip_ms: u64::try_from(round_trip_ms).unwrap_or(u64::MAX),
        at: now.0,
    };
    memory.remember(from, worked);
}

fn failure(
    profile: &Profile,
    plan: &KnockPlan,
    target: Target,
    timeout: Duration,
    outcome: &Outcome,
    endpoints: Vec<(IpAddr, EndpointOutcome)>,
    by_sequence: bool,
) -> Error {
    let profile = profile.name().clone();
    let (port, knock_port) = (target.port, plan.port);
    match outcome {
        Outcome::PortRefused => Error::PortRefused {
            profile,
            port,
            endpoints,
        },
        Outcome::NotSent => Error::NotSent {
            errors: describe(&endpoints, knock_port, Some(port)),
        },
        _ => Error::NoAnswer {
            profile,
            timeout,
            port,
            knock_port,
            clock: packet::clock(),
            by_sequence,
            endpoints,
        },
    }
}

/// What is known of each address, a text each.
#[must_use]
pub fn describe(
    endpoints: &[(IpAddr, EndpointOutcome)],
    knock_port: u16,
    port: Option<u16>,
) -> Vec<String> {
    let all = endpoints.iter();
    all.map(|(address, outcome)| format!("{address}: {}", outcome.describe(knock_port, port)))
        .collect()
}
