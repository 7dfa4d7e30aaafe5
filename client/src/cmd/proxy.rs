//! `oneknock proxy`: what ssh runs as its `ProxyCommand`.

use super::{TIMEOUT, in_runtime, signing};
use crate::cli::Proxy;
use crate::error::Error;
use crate::knock::address::{AddressArg, AddressBinding};
use crate::knock::connect::{Limits, connect, waiting_text};
use crate::knock::drive::{Opened, Target};
use crate::knock::engine::Goal;
use crate::knock::packet::KnockRequest;
use crate::knock::plan::KnockPlan;
use crate::knock::proof::Proof;
use crate::knock::resolve::resolve;
use crate::profile::state::StateDir;
use crate::profile::{Profile, first_tcp};
use crate::ssh::relay;
use crate::ui::message;
use crate::ui::progress::Progress;
use oneknock_shared::knock::Action;

pub fn run(profile: &Profile, wanted: &Proxy) -> Result<(), Error> {
    let state = StateDir::of_this_user();
    let opened = open(profile, wanted, &state);
    match &opened {
        Ok(_) => state.keep_error(profile.name(), ""),
        Err(error) => {
            // With ControlPersist ssh sends standard error to nowhere.
            let (text, hints) = (error.to_string(), error.hints());
            message::announce_error(&text, &hints);
            let clock = crate::knock::packet::clock();
            let mut kept = format!("{clock}: {text}\n");
            kept.extend(hints.iter().map(|hint| message::line("hint", hint)));
            state.keep_error(profile.name(), &kept);
        }
    }
    let (stream, read) = opened?;
    relay::relay_standard(&stream, &read)
}

fn open(
    profile: &Profile,
    wanted: &Proxy,
    state: &StateDir,
) -> Result<(std::net::TcpStream, Vec<u8>), Error> {
    let of = &profile.invitation;
    let service = match wanted.port {
        Some(port) => profile.service_with(port)?,
        None => profile.service(None)?,
    };
    let port = wanted.port.or(first_tcp(service));
    let port = port.ok_or_else(|| Error::NoTcp {
        profile: profile.name().clone(),
        service: service.name,
    })?;
    let host = wanted.host.as_ref().unwrap_or(&of.host);
    let target = Target {
        goal: Goal::Connection,
        port,
        proof: Proof::of(&service.name, port, wanted.settle),
        is_wanted: true,
    };
    let limits = Limits {
        via: wanted.via,
        timeout: TIMEOUT,
    };
    let progress = Progress::new(waiting_text(profile.name(), port));
    let opened = in_runtime(async {
        let plan = KnockPlan {
            request: KnockRequest {
                keys: profile.keys(),
                action: Action::Open { seconds: 0 },
                service: Some(service.name),
                from: None,
            },
            addresses: resolve(host, wanted.families.family(), TIMEOUT).await?,
            port: of.port,
            signing: signing(profile, AddressArg::Auto, AddressBinding::for_open)?,
        };
        let opened = connect(profile, &plan, target, limits, state, &progress).await?;
        let lost = || Error::Relay {
            what: "the connection was lost",
            why: std::io::ErrorKind::NotConnected.into(),
        };
        let Opened { stream, read } = opened.ok_or_else(lost)?;
        let failed = |why| Error::Relay {
            what: "cannot take the connection over",
            why,
        };
        Ok((stream.into_std().map_err(failed)?, read))
    })?;
    Ok(opened)
}
