//! `oneknock open`.

use super::{bound, knock_once, signing};
use crate::cli::Open;
use crate::error::Error;
use crate::knock::address::AddressArg;
use crate::knock::address::AddressBinding;
use crate::knock::attempt::KnockPlan;
use crate::knock::connect::{connect, sequence_of, walk_once};
use crate::knock::packet::KnockRequest;
use crate::knock::resolve::resolve;
use crate::knock::sequence::Via;
use crate::profile::{Profile, first_tcp};
use crate::ui::message::say;
use oneknock_shared::knock::Action;

pub async fn run(profile: &Profile, wanted: &Open) -> Result<(), Error> {
    let of = &profile.invitation;
    let service = profile.service(wanted.service.as_ref())?;
    let choice = wanted.way.address;
    let signing = signing(profile, choice, AddressBinding::for_open)?;
    let (from, family) = bound(choice, wanted.way.family());
    let round = KnockPlan {
        knocker: KnockRequest {
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
    };
    let unverified = match (choice, first_tcp(service)) {
        _ if wanted.no_wait => "not waiting for the port to answer".to_string(),
        (AddressArg::Given(ip), _) if from.is_none() => format!(
            "{ip} is not this machine's, so whether it is admitted cannot be seen from here"
        ),
        (_, None) => "it has udp ports only, so whether it is open cannot be seen".into(),
        (_, Some(port)) => {
            let opened = connect(profile, &round, wanted.via, port, wanted.timeout);
            return opened.await.map(drop);
        }
    };
    if wanted.via == Via::Sequence {
        walk_once(&sequence_of(profile, &round)?).await?;
    } else {
        knock_once(&round)?;
    }
    say(&format!(
        "knocked for {} at {}: {unverified}",
        service.name,
        profile.name()
    ));
    Ok(())
}
