//! The addresses of a host.

use crate::error::Error;
use oneknock_shared::name::Host;
use std::net::IpAddr;
use std::time::Duration;

/// Which addresses are wanted: the options `-4` and `-6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Both.
    Any,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

impl Family {
    fn admits(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

/// Every address of `host` of that family, at least one, none twice, in the resolver's
/// order. An IP literal is its own address; an IPv4 address written as IPv6 is IPv4. Fails when the resolver does, or takes
/// longer than `timeout`.
pub async fn resolve(host: &Host, family: Family, timeout: Duration) -> Result<Vec<IpAddr>, Error> {
    let failed = |why: &str| Error::NoAddress {
        host: host.clone(),
        why: why.into(),
    };
    let mut addresses = Vec::new();
    if let Ok(literal) = host.as_str().parse::<IpAddr>() {
        addresses.push(literal.to_canonical());
    } else {
        let found = tokio::net::lookup_host((host.as_str(), 0));
        match tokio::time::timeout(timeout, found).await {
            Err(_) => return Err(failed("the name service did not answer in time")),
            Ok(Err(why)) => return Err(failed(&why.to_string())),
            Ok(Ok(found)) => {
                for address in found.map(|a| a.ip().to_canonical()) {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
            }
        }
    }
    addresses.retain(|&address| family.admits(address));
    match (addresses.is_empty(), family) {
        (false, _) => Ok(addresses),
        (true, Family::Any) => Err(failed("the name service knows none")),
        (true, Family::V4) => Err(failed("there is none of IPv4")),
        (true, Family::V6) => Err(failed("there is none of IPv6")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_is_its_own_address_and_a_mapped_one_is_ipv4() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        for (host, family, want) in [
            ("192.0.2.7", Family::V4, "192.0.2.7"),
            ("2001:db8::7", Family::V6, "2001:db8::7"),
            ("::ffff:192.0.2.7", Family::V4, "192.0.2.7"),
        ] {
            let host: Host = host.parse().unwrap();
            let found = runtime.block_on(resolve(&host, family, Duration::from_secs(1)));
            assert_eq!(found.unwrap(), [want.parse::<IpAddr>().unwrap()], "{host}");
        }
    }
}
