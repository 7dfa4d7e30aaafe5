//! Step 8 of `PROTOCOL.md`: what a key may do. Nothing is changed here.

use super::grant::Source;
use super::reason::Reason;
use super::rules::{KeyRules, ServiceRules};
use oneknock_shared::knock::is_admissible;
use oneknock_shared::name::ServiceName;
use std::net::IpAddr;
use std::time::Duration;

/// The source to admit: the signed address, or the one that the packet came from. A key that
/// must sign it is held to it, and one that may not admit others to its own.
pub(super) fn source_to_admit(
    key: &KeyRules,
    from: IpAddr,
    signed: Option<IpAddr>,
) -> Result<Source, Reason> {
    match signed {
        None if key.require_signed_address => Err(Reason::AddressNotSigned),
        Some(signed) if signed != from && !key.allow_other_address => Err(Reason::AddressNotSource),
        // A link-local source is another host on every link; a signed one is malformed.
        None if !is_admissible(from) => Err(Reason::AddressUnusable),
        signed => Ok(Source::of(signed.unwrap_or(from))),
    }
}

/// The services that the packet asks for, at least one: the named one, or every one that the
/// key may open.
pub(super) fn services_asked<'r>(
    services: &'r [ServiceRules],
    key: &'r KeyRules,
    name: Option<ServiceName>,
) -> Result<impl Iterator<Item = &'r ServiceRules> + Clone, Reason> {
    let is_named = move |service: &&ServiceRules| name.is_none_or(|name| name == service.name);
    if name.is_some() && !services.iter().any(|service| is_named(&service)) {
        return Err(Reason::NoSuchService);
    }
    let is_allowed = |service: &&ServiceRules| key.services.contains(&service.name);
    let asked = services.iter().filter(is_named).filter(is_allowed);
    match asked.clone().next() {
        Some(_) => Ok(asked),
        None => Err(Reason::ServiceNotAllowed),
    }
}

/// For how long a knock opens the service: as asked, the default where it asks for no time,
/// and never longer than service and key allow.
pub(super) fn time_to_open(service: &ServiceRules, key: &KeyRules, seconds: u16) -> Duration {
    let asked = match seconds {
        0 => service.default_time,
        seconds => Duration::from_secs(seconds.into()),
    };
    asked
        .min(service.max_time)
        .min(key.max_time.unwrap_or(Duration::MAX))
}
