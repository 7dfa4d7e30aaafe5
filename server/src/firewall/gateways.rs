//! The default gateways, as whom the port sequence admits nobody: a router that rewrites
//! sources shows everybody under its own address.

use super::elements::{self, emptied};
use super::names::{FAMILIES, family_of, gateway_set};
use super::netlink::{Netlink, Step};
use crate::config::Config;
use netlink_packet_netfilter::nftables::NfTablesMessage;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

/// Which of these gateways are not to be admitted.
#[must_use]
pub fn barred(config: &Config, gateways: &[IpAddr]) -> BTreeSet<IpAddr> {
    if config.admit_gateway || config.sequence.is_none() {
        return BTreeSet::new();
    }
    gateways.iter().copied().collect()
}

/// Makes these, and no others, the sources that are nobody's.
pub fn bar(netlink: &mut Netlink, barred: &BTreeSet<IpAddr>) -> io::Result<()> {
    let steps = FAMILIES.into_iter().flat_map(|[family, ..]| {
        let set = gateway_set(family);
        let of = barred.iter().filter(|ip| family_of(**ip) == family);
        let of: Vec<_> = of.map(|ip| vec![elements::key(*ip)]).collect();
        let added = (!of.is_empty()).then(|| {
            let message = elements::many(&set, of);
            Step::create(NfTablesMessage::NewSetElement(message))
        });
        [Some(emptied(&set)), added].into_iter().flatten()
    });
    netlink.commit(&steps.collect::<Vec<_>>())
}
