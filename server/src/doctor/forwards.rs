//! Ports that this machine passes on, to containers or other hosts: whether the guard
//! stands before them.

use super::Finding;
use crate::config::Config;
use oneknock_shared::port::Transport;
use std::collections::BTreeSet;

/// Ports that a ruleset, as nft prints it, passes on from outside.
pub fn passed_on(rules: &str) -> BTreeSet<(Transport, u16)> {
    let mut found = BTreeSet::new();
    for line in rules.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let goes_on = words
            .iter()
            .any(|w| ["dnat", "redirect", "\"DNAT\"", "\"REDIRECT\""].contains(w));
        let Some(at) = words.iter().position(|w| *w == "dport").filter(|_| goes_on) else {
            continue;
        };
        let transport = match words.get(at.wrapping_sub(1)) {
            Some(&"tcp") => Transport::Tcp,
            Some(&"udp") => Transport::Udp,
            _ => continue,
        };
        // One port, or several in braces; of a range its ends.
        let list = words[at + 1..]
            .iter()
            .take_while(|w| w.chars().all(|c| c.is_ascii_digit() || "{},-".contains(c)));
        let is_number = |c: char| !c.is_ascii_digit();
        let numbers = list.flat_map(|word| word.split(is_number));
        found.extend(numbers.filter_map(|n| Some((transport, n.parse().ok()?))));
    }
    found
}

/// What passes by the guard although somebody may think that it does not.
pub fn examine(config: &Config, rules: &str) -> Vec<Finding> {
    let is_guarded = |transport: Transport, port: u16| {
        let mut ports = config.services.iter().flat_map(|service| &service.ports);
        ports.any(|ports| ports.contains(transport, port))
    };
    let open = passed_on(rules)
        .into_iter()
        .filter(|(t, port)| !is_guarded(*t, *port));
    let what = |port: &str| {
        Finding::note(
            format!(
                "{port} is passed on to a container or another host, and no service has it: everybody gets there"
            ),
            format!(
                "if it is to be guarded, add ports = [\"{port}\"] to a [[service]] of oneknockd.toml"
            ),
        )
    };
    open.map(|(transport, port)| what(&format!("{transport}/{port}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_and_people_write_is_understood() {
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
            \t}\n}\n";
        let ports = |transport| {
            let of = passed_on(rules)
                .into_iter()
                .filter(move |(t, _)| *t == transport);
            of.map(|(_, port)| port).collect::<Vec<_>>()
        };
        assert_eq!(ports(Transport::Tcp), [2222, 8080, 8443, 9000, 9010]);
        assert_eq!(ports(Transport::Udp), [53]);
    }
}
