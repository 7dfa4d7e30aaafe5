//! `oneknock doctor`: why a port does not open, as far as this side of it can tell. The
//! server says nothing; what is left is to look at everything else, and to try.

mod causes;
mod clock;
mod text;

use crate::error::Error;
use crate::knock::address::AddressBinding;
use crate::knock::drive::{self, Target};
use crate::knock::engine::{EndpointOutcome, Goal, Outcome};
use crate::knock::memory::Memory;
use crate::knock::packet::KnockRequest;
use crate::knock::plan::{self, KnockPlan};
use crate::knock::proof::{Proof, SETTLE};
use crate::knock::resolve::{Family, resolve};
use crate::profile::state::StateDir;
use crate::profile::{Profile, first_tcp};
use oneknock_shared::invitation::{AddressRule, Service};
use oneknock_shared::knock::Action;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use tokio::task::JoinSet;

/// How long the name, the port, and who knows of the clock may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a port may take that is open without a knock.
const AT_ONCE: Duration = Duration::from_millis(900);
/// Somebody far away, whom nothing is sent to (RFC 5737 and RFC 3849).
const FAR: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 254)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0xfe)),
];

/// What was seen.
struct Findings {
    /// The ways to the server's addresses; or why its name has none.
    ways: Result<Vec<Way>, String>,
    /// Whether there is a way to anywhere.
    is_online: bool,
    /// The command that goes without UDP, where the server has a port sequence.
    by_sequence: Option<String>,
    /// Whether this computer's clock is synchronised; `None` where nobody can say.
    clock: Option<bool>,
    /// The last error of a proxy, which may have had nobody to tell.
    last_error: Option<String>,
}

/// The way to one of the server's addresses.
struct Way {
    to: IpAddr,
    /// This computer's own address on it: that which the system would send from.
    from: Result<IpAddr, String>,
    /// What the port answered before any knock.
    before: EndpointOutcome,
    /// How the knock ended.
    outcome: Outcome,
    /// What is known of the address then.
    known: EndpointOutcome,
}

impl Way {
    /// Whether the service showed itself before any knock.
    fn was_open(&self) -> bool {
        self.before == EndpointOutcome::Shown
    }

    /// Whether the knock was in vain.
    fn failed(&self) -> bool {
        !matches!(self.outcome, Outcome::Open { .. } | Outcome::Sent)
    }
}

/// Looks, tries and says. Gives whether the port opened, as far as that can be seen.
pub async fn examine(profile: &Profile, as_json: bool) -> Result<(String, bool), Error> {
    let of = &profile.invitation;
    let service = profile.service(None)?;
    let ways = match resolve(&of.host, Family::Any, PATIENCE).await {
        Ok(addresses) => Ok(try_all(profile, service, addresses).await),
        Err(Error::NoAddress { why, .. }) => Err(why),
        Err(other) => return Err(other),
    };
    let findings = Findings {
        ways,
        is_online: FAR
            .iter()
            .any(|&far| plan::route(None, (far, of.port).into()).is_ok()),
        by_sequence: (of.sequence.is_some() || of.rolling)
            .then(|| format!("oneknock open {} --via sequence", profile.name())),
        clock: clock::is_synchronised(),
        last_error: StateDir::of_this_user().last_error(profile.name()),
    };
    let all = findings.ways.iter().flatten();
    let is_fine = all.filter(|way| !way.failed()).count() > 0;
    let said = if as_json {
        super::to_json(&text::json(profile, &findings))
    } else {
        text::text(profile, &findings)
    };
    Ok((said, is_fine))
}

/// Tries every address by itself, all at the same time.
async fn try_all(profile: &Profile, service: &Service, addresses: Vec<IpAddr>) -> Vec<Way> {
    let of = &profile.invitation;
    let plan = |to| KnockPlan {
        request: KnockRequest {
            keys: profile.keys(),
            action: Action::Open { seconds: 0 },
            service: Some(service.name),
            from: None,
        },
        addresses: vec![to],
        port: of.port,
        signing: match of.address {
            AddressRule::Any => AddressBinding::IfGlobal,
            AddressRule::Signed => AddressBinding::Always,
        },
    };
    let plans: Vec<KnockPlan> = addresses.into_iter().map(plan).collect();
    let tcp = first_tcp(service);
    let target = |goal| Target {
        goal: if tcp.is_some() { goal } else { Goal::Knock },
        port: tcp.unwrap_or_default(),
        proof: Proof::of(&service.name, tcp.unwrap_or_default(), SETTLE),
        is_wanted: true,
    };
    // Before the first knock, which may admit this computer to every one of them.
    let before = if tcp.is_some() {
        run_all(&plans, target(Goal::ConnectionWithoutKnock), AT_ONCE).await
    } else {
        Vec::new()
    };
    let after = run_all(&plans, target(Goal::Connection), PATIENCE).await;
    let mut before = before.into_iter();
    let ways = plans.iter().zip(after).map(|(plan, (outcome, known))| {
        let to = plan.addresses.first().copied();
        let to = to.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Way {
            to,
            from: plan::route(None, (to, plan.port).into()),
            before: before
                .next()
                .map_or(EndpointOutcome::Silent, |(_, known)| known),
            outcome,
            known,
        }
    });
    ways.collect()
}

/// Runs each plan, all at the same time; what is known of each one's address.
async fn run_all(
    plans: &[KnockPlan],
    target: Target,
    limit: Duration,
) -> Vec<(Outcome, EndpointOutcome)> {
    let mut runs = JoinSet::new();
    for (number, plan) in plans.iter().cloned().enumerate() {
        runs.spawn(async move {
            let report = drive::run(&plan, target, limit, &Memory::default()).await;
            let known = report.endpoints.into_iter().next();
            let known = known.map_or(EndpointOutcome::Silent, |(_, known)| known);
            (number, report.outcome, known)
        });
    }
    let mut all = runs.join_all().await;
    all.sort_by_key(|(number, ..)| *number);
    let all = all.into_iter();
    all.map(|(_, outcome, known)| (outcome, known)).collect()
}
