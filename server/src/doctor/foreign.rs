//! Tables of other programs, as these save them: read, loaded into the sandbox, and named with what
//! fixes them.

use super::Finding;
use super::sandbox::{AddressPair, Sandbox};
use crate::kernel::{STANDALONE_TABLE, TABLE};
use crate::program;
use nftables::schema::{NfListObject, NfObject, Nftables};
use nftables::types::NfFamily;
use oneknock_shared::port::Transport;
use std::fs;
use std::io;
use std::process::Command;

/// Another table, as its own program saves it.
#[derive(Debug, PartialEq, Eq)]
pub struct ForeignTable {
    /// The family that it is for.
    pub family: String,
    /// Its name.
    pub name: String,
    /// Its rules.
    pub text: String,
    /// Whether it is of iptables-legacy.
    is_legacy: bool,
}

/// A table, or its name and why it cannot be read.
pub type Read = Result<ForeignTable, (String, io::Error)>;

/// Every table that nft lists, but ours, that packets for this machine may pass.
pub fn nft_tables() -> io::Result<Vec<Read>> {
    let listed = output("nft", &["--json", "list", "tables"])?;
    let tables = named(&listed)?.into_iter();
    let tables = tables.filter(|(family, name)| (*family, name.as_str()) != ("inet", TABLE));
    let read = |(family, name): (&str, String)| {
        let text = output("nft", &["--stateless", "list", "table", family, &name]);
        let text = text.map_err(|why| (format!("{family} {name}"), why))?;
        Ok(ForeignTable {
            family: family.into(),
            name,
            text,
            is_legacy: false,
        })
    };
    Ok(tables.map(read).collect())
}

/// The families and names in nft's list of tables, of those that packets for this machine may
/// pass.
fn named(listed: &str) -> io::Result<Vec<(&'static str, String)>> {
    let listed: Nftables = serde_json::from_str(listed).map_err(io::Error::other)?;
    let tables = listed.objects.iter().filter_map(|object| {
        let NfObject::ListObject(NfListObject::Table(table)) = object else {
            return None;
        };
        let family = match table.family {
            NfFamily::IP => "ip",
            NfFamily::IP6 => "ip6",
            NfFamily::INet => "inet",
            NfFamily::NetDev => "netdev",
            NfFamily::ARP | NfFamily::Bridge => return None,
        };
        Some((family, table.name.clone().into_owned()))
    });
    Ok(tables.collect())
}

/// The tables of iptables-legacy, which nft does not see.
pub fn legacy_tables() -> Vec<Read> {
    let mut others = Vec::new();
    for (family, program) in [("ip", "iptables"), ("ip6", "ip6tables")] {
        // The kernel's own list; it is not there where it knows of no such tables.
        let names = fs::read_to_string(format!("/proc/net/{family}_tables_names"));
        for name in names.unwrap_or_default().lines() {
            let text = output(&format!("{program}-legacy-save"), &["-t", name]);
            let text = text.map_err(|why| (format!("{family} {name}"), why));
            others.push(text.map(|text| ForeignTable {
                family: family.into(),
                name: name.into(),
                text,
                is_legacy: true,
            }));
        }
    }
    others
}

fn output(name: &str, args: &[&str]) -> io::Result<String> {
    let output = program::output(Command::new(name).args(args), b"", program::RULESET)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("{name}: {said}")))
}

impl ForeignTable {
    /// Loads it into the sandbox.
    pub fn load(&self, sandbox: &Sandbox) -> io::Result<()> {
        if self.is_legacy {
            let program = if self.family == "ip" {
                "iptables-legacy-restore"
            } else {
                "ip6tables-legacy-restore"
            };
            return sandbox.run(&[program], self.text.as_bytes());
        }
        let loaded = sandbox.run(&["nft", "-f", "-"], without_owner(&self.text).as_bytes());
        // What iptables made may be beyond what nft can say.
        let program = match self.family.as_str() {
            "ip" => "iptables",
            "ip6" => "ip6tables",
            _ => return loaded,
        };
        loaded.or_else(|error| {
            let _ = sandbox.run(&["nft", "flush", "ruleset"], b"");
            let saved = output(&format!("{program}-save"), &["-t", &self.name]);
            let saved = saved.map_err(|_| error)?;
            sandbox.run(&[&format!("{program}-restore")], saved.as_bytes())
        })
    }

    /// What is found where it blocks packets to a port.
    pub fn blocks(
        &self,
        what: &str,
        transport: Transport,
        port: u16,
        pair: &AddressPair,
    ) -> Finding {
        let family = if pair.own.is_ipv4() { "IPv4" } else { "IPv6" };
        let Self {
            family: of,
            name,
            text,
            is_legacy,
        } = self;
        // Knocks are kept from connection tracking.
        let untracked = match transport {
            Transport::Udp => ", and without \"ct state\"",
            Transport::Tcp => "",
        };
        let (whose, hint) = if text.contains("ufw") {
            ("ufw", format!("ufw allow {port}/{transport}"))
        } else if name == "firewalld" {
            let add = format!("--add-port={port}/{transport}");
            let hint = format!("firewall-cmd --permanent {add} && firewall-cmd --reload");
            ("firewalld", hint)
        } else if name == STANDALONE_TABLE {
            let hint = format!("nft delete table inet {STANDALONE_TABLE}");
            ("debug rules --sequence-only", hint)
        } else if *is_legacy {
            let program = if of == "ip" { "iptables" } else { "ip6tables" };
            let rule = format!("-p {transport} --dport {port} -j ACCEPT");
            let hint = format!("{program}-legacy -I INPUT {rule} # and where the rules are kept");
            ("iptables-legacy", hint)
        } else {
            let hint = format!(
                "add a rule that accepts {transport} dport {port} before the one that drops it{untracked}"
            );
            ("this machine's own rules", hint)
        };
        Finding::error(format!(
            "{what}: table {of} {name} ({whose}) blocks {transport}/{port} over {family}"
        ))
        .hint(hint)
    }
}

/// A table that belongs to its program would go with the nft that loads it.
fn without_owner(text: &str) -> String {
    let is_flag = |line: &&str| {
        let line = line.trim();
        line.starts_with("flags ") && (line.contains("owner") || line.contains("persist"))
    };
    let lines = text.lines().filter(|line| !is_flag(line));
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_named_whatever_their_names_hold() {
        let listed = r#"{"nftables": [
            {"metainfo": {"version": "1.0.6", "release_name": "x", "json_schema_version": 1}},
            {"table": {"family": "inet", "name": "a b\nc", "handle": 1}},
            {"table": {"family": "bridge", "name": "d", "handle": 2}}
        ]}"#;
        assert_eq!(named(listed).unwrap(), [("inet", "a b\nc".to_owned())]);
        assert!(named("table inet a").is_err());
    }

    #[test]
    fn table_that_its_program_owns_is_loaded_without_an_owner() {
        let text = "table inet firewalld { # progname firewalld\n\tflags owner,persist\n\tset s {\n\t\tflags interval\n\t}\n}\n";
        let copied = without_owner(text);
        assert!(!copied.contains("owner") && copied.contains("flags interval"));
    }

    #[test]
    fn hint_is_a_command_of_the_program_that_made_the_table() {
        let pair = AddressPair {
            interface: "eth0".into(),
            own: [192, 0, 2, 10].into(),
            other: [203, 0, 113, 254].into(),
        };
        for (name, text, is_legacy, hint) in [
            (
                "filter",
                "chain ufw-user-input {",
                false,
                "ufw allow 45123/udp",
            ),
            ("firewalld", "", false, "--add-port=45123/udp"),
            ("mine", "", false, "accepts udp dport 45123"),
            (
                "filter",
                "",
                true,
                "iptables-legacy -I INPUT -p udp --dport 45123",
            ),
        ] {
            let (name, text) = (name.to_owned(), text.to_owned());
            let family = "ip".to_owned();
            let other = ForeignTable {
                family,
                name,
                text,
                is_legacy,
            };
            let found = other.blocks("knocks do not arrive", Transport::Udp, 45123, &pair);
            assert!(found.hint.as_ref().unwrap().contains(hint), "{found}");
            assert!(
                found.is_error() && found.message.contains("over IPv4"),
                "{found}"
            );
        }
    }
}
