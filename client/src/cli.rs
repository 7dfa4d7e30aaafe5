//! The command line.

// Comments here are the help, which has no backticks.
#![allow(clippy::doc_markdown)]

use crate::knock::address::AddressArg;
use crate::knock::resolve::Family;
use crate::knock::sequence::{Via, read_step};
use crate::ssh::Destination;
use clap::{Args, Parser, Subcommand};
use oneknock_shared::name::{Host, KeyName, ServiceName};
use oneknock_shared::port::Ports;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// One signed packet, and the server's hidden port opens for this machine.
///
/// Exit status: 0 done, 1 tried and failed, 2 the command line or a profile is wrong and nothing
/// was tried. Of "oneknock ssh" it is ssh's own, and 127 where there is no ssh.
#[derive(Debug, Parser)]
#[command(name = "oneknock", version, max_term_width = 100)]
#[command(after_help = "Begin with: oneknock import, then oneknock ssh PROFILE")]
pub struct Cli {
    /// What is to be done.
    #[command(subcommand)]
    pub command: Command,
}

/// What `--address` means to a close.
const SHUT_OUT: &str = "The address to shut out: auto (the packet's source; this machine's own \
    where the server demands a signed one), source (always the packet's source), or an IP address";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a profile of an invitation
    ///
    /// The invitation is the one line that "oneknockctl key add" printed at the server.
    /// The profile is named after the server, or as --name says, and is kept in a file that
    /// only you can read. A profile that is there already is never overwritten;
    /// one with this very secret takes over what else the server says now.
    Import {
        /// What to call the profile, instead of what the server calls itself
        #[arg(long)]
        name: Option<KeyName>,
        /// Take the place of the profile of this name that is there, and of its secret
        #[arg(long)]
        replace: bool,
        /// The file with the invitation; standard input when absent or -
        file: Option<PathBuf>,
    },
    /// List the profiles, with how old each key is
    ///
    /// Warns of a key that ends within 14 days or has ended, and of a rotation that is not
    /// complete, and says what to do.
    List,
    /// Show a profile, all but its secret
    Show {
        /// The profile's name
        name: KeyName,
    },
    /// Remove a profile and the key in it
    Remove {
        /// The profile's name
        name: KeyName,
    },
    /// Knock, and wait until the port answers
    ///
    /// Sends a signed packet to every address of the profile's host and tries the service's
    /// first TCP port until a connection stands; then others can connect from this
    /// machine for as long as the server keeps the port open.
    ///
    /// Exit status: 0 it is open, 1 it did not open in time, 2 wrong usage or
    /// configuration.
    Open(Open),
    /// Walk a port sequence: connection attempts to these ports, in order
    ///
    /// For any knocking server, such as knockd or rules of your own. Needs no profile, sends
    /// each step once to every address of the host, and cannot see what it opened. Anybody
    /// on the way can record a sequence and walk it again.
    Sequence(Sequence),
    /// Close the port again for this machine
    ///
    /// Connections that stand are not ended. The server never answers, so nothing can be
    /// said about whether it did so.
    #[command(mut_arg("address", |arg| arg.help(SHUT_OUT)))]
    Close(Close),
    /// Say why a port does not open, the most likely cause first
    ///
    /// The server answers nothing to a stranger, so this looks at the name and its addresses,
    /// the ways there, the clock, and what becomes of a knock. It knocks as "oneknock open"
    /// does.
    ///
    /// Exit status: 0 the port opens, at one address at least, or is of UDP alone and the knock
    /// was sent; 1 it does not.
    Doctor {
        /// The profile's name
        name: KeyName,
    },
    /// Knock, connect, and relay standard input and output: ssh's ProxyCommand
    ///
    /// In ssh_config: ProxyCommand oneknock proxy PROFILE %h %p
    Proxy(Proxy),
    /// Knock, and run ssh through the open port
    ///
    /// Takes ssh's own options and arguments, so that it works as GIT_SSH_COMMAND and for
    /// "rsync -e". The destination is a profile's name, or the name of its host. Settings from
    /// your own Host block in ssh_config still apply. The exit status is ssh's; 127 where there
    /// is no ssh.
    #[command(
        override_usage = "oneknock ssh [--via METHOD] [SSH OPTIONS]... [USER@]PROFILE [SSH ARGUMENTS]..."
    )]
    Ssh {
        /// Knock method: auto, packet or sequence, as for open
        #[arg(long, value_name = "METHOD", default_value = "auto")]
        via: Via,
        /// The profile's name, with ssh's options before and its arguments after it
        #[arg(
            value_name = "[USER@]PROFILE",
            required = true,
            trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        words: Vec<OsString>,
    },
    /// Give the profile a new secret, over ssh through the profile itself
    ///
    /// Asks the server for a new secret, stores it beside the old one, goes in with the new
    /// one alone, and only then has the server end the old one and forgets it here. Wherever
    /// that breaks off the port still opens; run it again to complete it, within a week: the
    /// server may have begun it, and ends the old one then. "oneknock list" reminds of it.
    /// Other machines with the same profile need its new invitation then (oneknockctl key invite).
    ///
    /// oneknockctl must run at the server as root without asking for a password.
    #[command(
        override_usage = "oneknock rotate PROFILE [--user USER] [--command COMMAND] [-- SSH ARGUMENTS]"
    )]
    Rotate(Rotate),
    /// Print the ssh_config block for a profile
    ///
    /// With it in ~/.ssh/config, plain ssh, scp, sftp, rsync and git work:
    /// oneknock ssh-config PROFILE >> ~/.ssh/config
    SshConfig {
        /// The profile's name
        name: KeyName,
    },
}

/// The arguments of `open`.
#[derive(Debug, Args)]
pub struct Open {
    /// The profile's name
    pub name: KeyName,
    /// The service to open; without, the one called ssh, else the first with a TCP port
    #[arg(long)]
    pub service: Option<ServiceName>,
    /// How long the port is to stay open for new connections, such as 30s or 2h, at most
    /// 65535s; the server may allow less. Without, as the server says
    #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
    pub seconds: Option<u16>,
    #[command(flatten)]
    #[allow(missing_docs)] // A comment here would become the command's help.
    pub way: Way,
    /// Knock method: auto (the packet, then a rolling port sequence; a fixed one only where the
    /// profile's file says fallback = "sequence"), packet, or sequence
    #[arg(long, value_name = "METHOD", default_value = "auto")]
    pub via: Via,
    /// Knock once, and do not wait for the port to answer
    #[arg(long)]
    pub no_wait: bool,
    /// How long a connection that says nothing has to stand before it counts as open; a
    /// service called ssh, or on port 22, has to send its version
    #[arg(long, value_name = "TIME", default_value = "350ms", value_parser = settle)]
    pub settle: Duration,
    /// When to give up, such as 10s
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = timeout)]
    pub timeout: Duration,
}

/// The arguments of `proxy`.
#[derive(Debug, Args)]
pub struct Proxy {
    /// The profile's name
    pub name: KeyName,
    /// Where to knock and connect, instead of the profile's host
    #[arg(requires = "port")]
    pub host: Option<Host>,
    /// The TCP port to connect to; the service that has it is opened
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Knock method: auto, packet or sequence, as for open
    #[arg(long, value_name = "METHOD", default_value = "auto")]
    pub via: Via,
    /// How long a connection that says nothing has to stand before it counts as open
    #[arg(long, value_name = "TIME", default_value = "350ms", value_parser = settle)]
    pub settle: Duration,
    #[command(flatten)]
    #[allow(missing_docs)] // A comment here would become the command's help.
    pub families: Families,
    /// With the generation alone that a rotation brings
    #[arg(long, hide = true)]
    pub next: bool,
}

/// The arguments of `sequence`.
#[derive(Debug, Args)]
pub struct Sequence {
    /// The server's name or address
    pub host: Host,
    /// The steps: TCP ports, or UDP ports such as 8000/udp
    #[arg(required = true, value_name = "PORT[/udp]", value_parser = read_step)]
    pub steps: Vec<Ports>,
    /// How long each step takes, such as 500ms
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = delay)]
    pub delay: Duration,
    #[command(flatten)]
    #[allow(missing_docs)] // A comment here would become the command's help.
    pub families: Families,
}

/// The arguments of `rotate`.
#[derive(Debug, Args)]
pub struct Rotate {
    /// The profile's name
    #[arg(value_name = "PROFILE")]
    pub name: KeyName,
    /// The user to log in as, such as root; without, as ssh's configuration says
    #[arg(long, value_parser = Destination::read_user)]
    pub user: Option<String>,
    /// What runs oneknockctl at the server, such as 'sudo oneknockctl'
    #[arg(long, default_value = "oneknockctl")]
    pub command: String,
    /// What is for ssh itself
    #[arg(last = true, value_name = "SSH ARGUMENTS")]
    pub more: Vec<OsString>,
}

/// The arguments of `close`.
#[derive(Debug, Args)]
pub struct Close {
    /// The profile's name
    pub name: KeyName,
    /// The service to shut; without, every one that was opened with this key
    #[arg(long)]
    pub service: Option<ServiceName>,
    #[command(flatten)]
    #[allow(missing_docs)] // A comment here would become the command's help.
    pub way: Way,
}

/// Which addresses, at both ends.
#[derive(Debug, Args)]
pub struct Way {
    /// The address to admit: auto (this machine's own where it is global, else the
    /// packet's source), source (always the packet's source), or an IP address
    #[arg(long, value_name = "auto|source|IP", default_value = "auto")]
    pub address: AddressArg,
    #[command(flatten)]
    families: Families,
}

impl Way {
    /// Which of the server's addresses are wanted.
    #[must_use]
    pub fn family(&self) -> Family {
        self.families.family()
    }
}

/// Which of the server's addresses.
#[derive(Debug, Args)]
pub struct Families {
    /// Knock over IPv4 alone
    #[arg(short = '4', conflicts_with = "v6")]
    v4: bool,
    /// Knock over IPv6 alone
    #[arg(short = '6')]
    v6: bool,
}

impl Families {
    /// Which of the server's addresses are wanted.
    #[must_use]
    pub fn family(&self) -> Family {
        match (self.v4, self.v6) {
            (true, _) => Family::V4,
            (_, true) => Family::V6,
            _ => Family::Any,
        }
    }
}

/// Whole seconds that fit the packet's field; 0 there means what the server's policy
/// says, and is not for asking.
fn seconds(text: &str) -> Result<u16, String> {
    let time = humantime::parse_duration(text).ok();
    let seconds = time.filter(|time| time.subsec_nanos() == 0);
    let seconds = seconds.and_then(|time| u16::try_from(time.as_secs()).ok());
    seconds
        .filter(|&seconds| seconds > 0)
        .ok_or_else(|| "write it as 30s or 2h, whole seconds from 1s to 65535s".into())
}

/// Within what firewalls take for one sequence.
fn delay(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(1)..=Duration::from_secs(60);
    let time = humantime::parse_duration(text).ok();
    time.filter(|time| range.contains(time))
        .ok_or_else(|| "write it as 100ms or 1s, from 1ms to 1m".into())
}

/// From nothing at all to what a person waits for.
fn settle(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).ok();
    time.filter(|time| *time <= Duration::from_secs(60))
        .ok_or_else(|| "write it as 350ms or 2s, from 0s to 1m".into())
}

/// Long enough for one attempt, short enough for a person to wait.
fn timeout(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(100)..=Duration::from_secs(3600);
    let time = humantime::parse_duration(text).ok();
    time.filter(|time| range.contains(time))
        .ok_or_else(|| "write it as 10s or 1m, from 100ms to 1h".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn the_time_to_stay_open_is_whole_seconds_in_the_fields_range() {
        for (text, want) in [("1s", 1), ("30s", 30), ("2h", 7200), ("65535s", 65535)] {
            assert_eq!(seconds(text), Ok(want));
        }
        for text in ["", "0s", "30", "-1s", "1500ms", "65536s", "1d", "x"] {
            assert!(seconds(text).is_err(), "{text:?}");
        }
    }
}
