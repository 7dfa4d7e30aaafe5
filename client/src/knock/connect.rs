//! The way in: by a packet, by the sequence, or by the one and then the other, as the person
//! wants it; and what is said of it.

use crate::error::Error;
use crate::knock::attempt::{KnockPlan, OpenError};
use crate::knock::packet;
use crate::knock::schedule;
use crate::knock::sequence::{self, Via, Walk};
use crate::profile::Profile;
use crate::ui::message::say;
use crate::ui::progress::Progress;
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

/// The sequence of the service that is to be opened, walked as our own server takes it.
pub fn sequence_of(profile: &Profile, round: &KnockPlan) -> Result<Walk, Error> {
    let steps = profile.sequence(round.knocker.service.as_ref());
    Ok(Walk {
        addresses: round.addresses.clone(),
        from: round.knocker.from,
        steps: steps.ok_or_else(|| Error::NoSequence {
            profile: profile.name().clone(),
            service: round.knocker.service,
        })?,
        delay: sequence::DELAY,
        copies: sequence::COPIES,
    })
}

/// Walks, and names the addresses where that could not be done. At one at least it could.
pub async fn walk_once(walk: &Walk) -> Result<(), Error> {
    let walked = walk.walk().await;
    let trouble = |(address, why): (IpAddr, Option<String>)| Some(format!("{address}: {}", why?));
    let troubles: Vec<String> = walked.into_iter().filter_map(trouble).collect();
    if troubles.len() == walk.addresses.len() {
        return Err(Error::NotSent { troubles });
    }
    for trouble in troubles {
        say(&format!("not every step was sent to {trouble}"));
    }
    Ok(())
}

/// Knocks by that way until a connection stands; says it when another one is tried.
pub async fn connect(
    profile: &Profile,
    round: &KnockPlan,
    via: Via,
    port: u16,
    timeout: Duration,
) -> Result<TcpStream, Error> {
    let walk = match via {
        Via::Packet => None,
        Via::Auto => sequence_of(profile, round).ok(),
        Via::Sequence => Some(sequence_of(profile, round)?),
    };
    let progress = Progress::new(format!(
        "knocking at {}: tcp/{port} does not answer yet",
        profile.name()
    ));
    let fell_back = || {
        progress.take_away();
        say("the signed address did not open the profile: trying the packet's source instead");
    };
    let not_open = |shut: OpenError, by_sequence: bool| {
        let OpenError {
            refused,
            knock_refused,
            troubles,
            ..
        } = shut;
        let profile = profile.name().clone();
        if refused {
            return Error::NothingListens {
                profile,
                port,
                troubles,
            };
        }
        if by_sequence {
            return Error::SequenceInVain {
                profile,
                timeout,
                troubles,
            };
        }
        Error::NotOpen {
            profile,
            timeout,
            port: round.port,
            clock: packet::clock(),
            knock_refused,
            troubles,
        }
    };
    let by_packet = match &walk {
        Some(_) if via == Via::Sequence => Duration::ZERO,
        Some(_) => schedule::before_walk(timeout),
        None => timeout,
    };
    let mut opened = None;
    if !by_packet.is_zero() {
        let opening = round.open(port, by_packet, fell_back);
        match progress.during(opening).await {
            Ok(stream) => opened = Some(stream),
            // The knock was taken; by another way the port would refuse as well.
            Err(shut) if walk.is_none() || shut.refused => return Err(not_open(shut, false)),
            Err(_) => say(
                "the packet did not open the profile: trying the port sequence, which is weaker: whoever is on the way can record it and use it again",
            ),
        }
    }
    let stream = match (opened, walk) {
        (None, Some(walk)) => {
            let opening = walk.open(port, timeout.saturating_sub(by_packet));
            let shut = |shut| not_open(shut, true);
            progress.during(opening).await.map_err(shut)?
        }
        (Some(stream), _) => stream,
        (None, None) => unreachable!("without a sequence the packet opens or the port stays shut"),
    };
    let failed = |why| Error::Relay {
        what: "cannot take the connection over",
        why,
    };
    stream.into_std().map_err(failed)
}
