//! What doctor prints.

use super::causes::{Cause, causes};
use super::{Findings, Way};
use crate::cmd::JSON_VERSION;
use crate::knock::address::is_global;
use crate::knock::engine::{Binding, Outcome};
use crate::knock::packet;
use crate::profile::{Profile, first_tcp};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::net::IpAddr;

pub(super) fn text(profile: &Profile, seen: &Findings) -> String {
    let of = &profile.invitation;
    let tcp_port = profile.service(None).ok().and_then(first_tcp);
    let mut text = format!(
        "profile  {}: {}, udp/{}, key {} generation {}\n",
        profile.name(),
        of.host,
        of.port,
        of.key,
        of.generation
    );
    let mut line = |head: &str, rest: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{head:<8} {rest}");
    };
    match &seen.ways {
        Ok(ways) => {
            for way in ways {
                line("address", &from(way));
            }
            for (family, is_it) in [
                ("IPv4", IpAddr::is_ipv4 as fn(&IpAddr) -> bool),
                ("IPv6", IpAddr::is_ipv6),
            ] {
                if !ways.iter().any(|way| is_it(&way.to)) {
                    line("address", &format!("none of {family}"));
                }
            }
        }
        Err(why) => line("address", &format!("none of {}: {why}", of.host)),
    }
    let clock = match seen.clock {
        Some(true) => "synchronized",
        Some(false) => "not synchronized",
        None => "nobody here can say whether it is synchronized",
    };
    line("clock", &format!("{}, {clock}", packet::clock()));
    for way in seen.ways.iter().flatten() {
        line("knock", &outcome(way, of.port, tcp_port));
    }
    for last in seen.last_error.iter().flat_map(|text| text.lines()) {
        line("last", last);
    }
    for (at, cause) in causes(of.port, of.address, seen).iter().enumerate() {
        line(if at == 0 { "likely" } else { "or" }, &cause.text);
    }
    text
}

/// The same as one JSON object.
pub(super) fn json(profile: &Profile, seen: &Findings) -> Value {
    let of = &profile.invitation;
    let tcp_port = profile.service(None).ok().and_then(first_tcp);
    let address = |way: &Way| {
        json!({
            "address": way.to.to_string(),
            "from": way.from.as_ref().ok().map(ToString::to_string),
            "route_error": way.from.as_ref().err(),
            "open_before_knock": way.was_open(),
            "open": matches!(way.outcome, Outcome::Open { .. }),
            "verified": !matches!(way.outcome, Outcome::Sent),
            "finding": outcome(way, of.port, tcp_port),
        })
    };
    let causes = causes(of.port, of.address, seen);
    let cause = |cause: Cause| json!({"code": cause.code, "message": cause.text});
    json!({
        "version": JSON_VERSION,
        "profile": profile.name().to_string(),
        "host": of.host.to_string(),
        "host_error": seen.ways.as_ref().err(),
        "addresses": seen.ways.iter().flatten().map(address).collect::<Vec<_>>(),
        "clock": {"time": packet::clock(), "synchronized": seen.clock},
        "online": seen.is_online,
        "last_error": seen.last_error,
        "causes": causes.into_iter().map(cause).collect::<Vec<_>>(),
    })
}

fn from(way: &Way) -> String {
    let to = way.to;
    match &way.from {
        Ok(own) if is_global(*own) => format!("{to} from {own}, a global address"),
        Ok(own) if !is_global(to) => format!("{to} from {own}"),
        Ok(own) => format!("{to} from {own}, a private address: there is a NAT on the way"),
        Err(why) => format!("{to}: {why}"),
    }
}

fn outcome(way: &Way, knock_port: u16, tcp_port: Option<u16>) -> String {
    let to = way.to;
    match &way.outcome {
        _ if way.was_open() => format!("{to}: the port answers without one"),
        Outcome::Open {
            by: Some(Binding::Source),
            ..
        } => format!("{to}: the port opens, to a packet without this computer's address"),
        Outcome::Open { .. } => format!("{to}: the port opens"),
        Outcome::Sent => format!("{to}: sent (UDP only: the result cannot be verified)"),
        _ => format!("{to}: {}", way.known.describe(knock_port, tcp_port)),
    }
}
