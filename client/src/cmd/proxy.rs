//! `oneknock proxy`.

use super::{TIMEOUT, in_runtime, signing};
use crate::error::Error;
use crate::knock::address::{AddressArg, AddressBinding};
use crate::knock::attempt::KnockPlan;
use crate::knock::connect::connect;
use crate::knock::packet::KnockRequest;
use crate::knock::resolve::{Family, resolve};
use crate::knock::sequence::Via;
use crate::profile::{Profile, first_tcp};
use crate::ssh::relay;
use oneknock_shared::knock::Action;
use oneknock_shared::name::Host;

pub fn run(
    profile: &Profile,
    host: Option<&Host>,
    port: Option<u16>,
    via: Via,
) -> Result<(), Error> {
    let of = &profile.invitation;
    let service = match port {
        Some(port) => profile.service_with(port)?,
        None => profile.service(None)?,
    };
    let tcp_port = port.or(first_tcp(service)).ok_or_else(|| Error::NoTcp {
        profile: profile.name().clone(),
        service: service.name,
    })?;
    let host = host.unwrap_or(&of.host);
    let stream = in_runtime(async {
        let round = KnockPlan {
            knocker: KnockRequest {
                keys: profile.keys(),
                action: Action::Open { seconds: 0 },
                service: Some(service.name),
                from: None,
            },
            addresses: resolve(host, Family::Any, TIMEOUT).await?,
            port: of.port,
            signing: signing(profile, AddressArg::Auto, AddressBinding::for_open)?,
        };
        connect(profile, &round, via, tcp_port, TIMEOUT).await
    })?;
    relay::relay_standard(&stream)
}
