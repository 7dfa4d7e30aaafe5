//! Ports that this machine forwards to containers or other hosts, and whether they are guarded.

use super::Finding;
use crate::config::Config;
use oneknock_shared::port::{Ports, Transport};
use std::collections::BTreeSet;

/// The statements of a rule that forwards packets, as nft and iptables-save print them.
const FORWARDS: [&str; 6] = [
    "dnat",
    "redirect",
    "\"DNAT\"",
    "\"REDIRECT\"",
    "DNAT",
    "REDIRECT",
];

/// Ports that a ruleset, as nft or iptables-save prints it, forwards from outside.
pub fn forwarded(rules: &str) -> BTreeSet<(Transport, u16)> {
    let mut found = BTreeSet::new();
    for line in rules.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !words.iter().any(|word| FORWARDS.contains(word)) {
            continue;
        }
        let is_dport = |word: &&str| ["dport", "--dport", "--dports"].contains(word);
        let Some(at) = words.iter().position(is_dport) else {
            continue;
        };
        let transport = words[..at].iter().rev().find_map(|word| match *word {
            "tcp" => Some(Transport::Tcp),
            "udp" => Some(Transport::Udp),
            _ => None,
        });
        let Some(transport) = transport else { continue };
        let ports = match words[at + 1..] {
            ["map", name, ..] if name.starts_with('@') => keys(elements(rules, &name[1..])),
            ["map", "{", ..] => keys(line.rsplit_once("map {").map_or("", |(_, list)| list)),
            // One port, or several in braces.
            ref list => {
                let is_list =
                    |w: &&&str| w.chars().all(|c| c.is_ascii_digit() || "{},-:".contains(c));
                let list: Vec<&str> = list.iter().take_while(is_list).copied().collect();
                numbers(&list.concat())
            }
        };
        found.extend(ports.into_iter().map(|port| (transport, port)));
    }
    found
}

/// The elements of a map of its own in the ruleset.
fn elements<'r>(rules: &'r str, name: &str) -> &'r str {
    let list = || {
        let (_, map) = rules.split_once(&format!("map {name} {{"))?;
        let (map, _) = map.split_once("\n\t}")?;
        Some(map.split_once("elements = {")?.1)
    };
    list().unwrap_or_default()
}

/// The ports that a map says something of; what it says may have numbers in it too.
fn keys(map: &str) -> Vec<u16> {
    let elements = map.split(',');
    let keys = elements.filter_map(|element| Some(element.split_once(" : ")?.0));
    keys.flat_map(numbers).collect()
}

/// All ports in a text; of a range its ends.
fn numbers(text: &str) -> Vec<u16> {
    let numbers = text.split(|c: char| !c.is_ascii_digit());
    numbers.filter_map(|number| number.parse().ok()).collect()
}

/// Which of the forwarded ports are guarded, and which are not although one may think so.
pub fn examine(config: &Config, rules: &str) -> Vec<Finding> {
    let service_of = |transport: Transport, port: u16| {
        let has_it = |ports: &Ports| ports.contains(transport, port);
        let mut services = config.services.iter();
        services.find(|service| service.ports.iter().any(has_it))
    };
    let finding = |(transport, port): (Transport, u16)| {
        let what = format!("{transport}/{port} is forwarded to a container or another host");
        match service_of(transport, port) {
            Some(service) => {
                Finding::note(format!("{what}, and guarded by service {}", service.name))
            }
            None => Finding::note(format!("{what}, and not guarded")).hint(format!(
                "to guard it: ports = [\"{transport}/{port}\"] in a [[service]] of oneknockd.toml"
            )),
        }
    };
    forwarded(rules).into_iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_docker_and_of_people_are_understood() {
        let rules = "table ip nat {\n\
            \tchain DOCKER {\n\
            \t\tiifname \"docker0\" counter packets 0 bytes 0 return\n\
            \t\tiifname != \"docker0\" tcp dport 8080 counter packets 0 bytes 0 dnat to 172.17.0.2:80\n\
            \t\tip protocol udp udp dport 53 counter xt target \"DNAT\"\n\
            \t}\n\
            \tchain prerouting {\n\
            \t\ttcp dport { 8443, 9000-9010 } dnat to 192.0.2.20\n\
            \t\ttcp dport 2222 redirect to :22\n\
            \t\ttcp dport 25 accept\n\
            \t\tip saddr 192.0.2.1 dnat to 192.0.2.2\n\
            \t\tdnat ip to tcp dport map { 81 : 192.0.2.20 . 8081, 82-83 : 192.0.2.21 . 8082 }\n\
            \t\tdnat ip to udp dport map @games\n\
            \t}\n\
            \tmap games {\n\
            \t\ttype inet_service : ipv4_addr\n\
            \t\telements = { 27015 : 192.0.2.22,\n\
            \t\t\t     27016 : 192.0.2.23 }\n\
            \t}\n}\n\
            -A PREROUTING -p tcp -m tcp --dport 84 -j DNAT --to-destination 192.0.2.24:80\n\
            -A PREROUTING -p udp -m multiport --dports 85,86:87 -j REDIRECT --to-ports 80\n";
        let ports = |transport| {
            let of = forwarded(rules)
                .into_iter()
                .filter(move |(t, _)| *t == transport);
            of.map(|(_, port)| port).collect::<Vec<_>>()
        };
        assert_eq!(
            ports(Transport::Tcp),
            [81, 82, 83, 84, 2222, 8080, 8443, 9000, 9010]
        );
        assert_eq!(ports(Transport::Udp), [53, 85, 86, 87, 27015, 27016]);
    }
}
