//! The command line.

// Comments here are the help, which has no backticks.
#![allow(clippy::doc_markdown)]

mod values;

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
use values::{delay, every, seconds, settle, timeout};

/// Single packet authorization: one signed packet, and the server's port opens for this computer
///
/// Exit status: 0 done, 1 failed, 2 usage, 3 configuration invalid. For "oneknock ssh" it is
/// ssh's own, and 127 without ssh.
#[derive(Debug, Parser)]
#[command(name = "oneknock", version, max_term_width = 100)]
#[command(after_help = "Begin with: oneknock import, then oneknock ssh PROFILE")]
pub struct Cli {
    /// What is to be done.
    #[command(subcommand)]
    pub command: Command,
}

/// What `--address` means to a close.
const CLOSED_ADDRESS: &str = "The address to close the port for: auto (the packet's source; this \
    computer's own where the server demands a signed one), source (always the packet's source), \
    or an IP address";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a profile from an invitation
    ///
    /// The invitation is the one line that "oneknockctl key add" printed on the server. The
    /// profile is named after the server, or as --name says, and is kept in a file that only you
    /// can read. An existing profile is never overwritten; importing the same key again updates
    /// its host, port and services.
    Import {
        /// The name of the profile [default: what the server calls itself]
        #[arg(long)]
        name: Option<KeyName>,
        /// Replace the existing profile of this name, and its secret
        #[arg(long)]
        replace: bool,
        /// The file with the invitation [default: standard input]
        file: Option<PathBuf>,
    },
    /// List the profiles, with the age of each key
    ///
    /// Warns of a key that has expired or expires within 14 days, and of a rotation that is not
    /// complete.
    List {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show a profile without its secret
    Show {
        /// The profile
        #[arg(value_name = "PROFILE")]
        name: KeyName,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Remove a profile and its key
    Remove {
        /// The profile
        #[arg(value_name = "PROFILE")]
        name: KeyName,
    },
    /// Knock, and wait until the service answers
    ///
    /// Sends signed packets to every address of the profile's host, and connects to the
    /// service's first TCP port until the service shows itself. Then programs on this computer
    /// can connect for as long as the server keeps the port open. For a service of UDP alone
    /// three packets are sent over a second.
    Open(Open),
    /// Keep ports open while this runs
    ///
    /// Opens the service, renews the grant long before its end, and opens it again when this
    /// computer's address or route changes and after sleep. Ends with Ctrl-C or SIGTERM, and
    /// closes the ports then. For browsers, databases, WireGuard and mosh.
    Hold(Hold),
    /// Send a port sequence: connection attempts to these ports, in order
    ///
    /// For any knocking server, such as knockd or rules of your own. Needs no profile, sends
    /// each step once to every address of the host, and cannot verify the result. An
    /// eavesdropper can replay a port sequence.
    Sequence(Sequence),
    /// Close the port again for this computer
    ///
    /// Established connections go on. The server never answers, so the result cannot be
    /// verified.
    #[command(mut_arg("address", |arg| arg.help(CLOSED_ADDRESS)))]
    Close(Close),
    /// Find out why a port does not open, the most likely cause first
    ///
    /// Looks at the name and its addresses, the routes, the clock, and what becomes of a knock.
    /// It knocks as "oneknock open" does. Exit status: 0 the port opens at one address at least,
    /// or the service is of UDP alone and the knock was sent; 1 otherwise.
    Doctor {
        /// The profile
        #[arg(value_name = "PROFILE")]
        name: KeyName,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Knock, connect, and relay standard input and output: ssh's ProxyCommand
    ///
    /// In ssh_config: ProxyCommand oneknock proxy PROFILE %h %p
    Proxy(Proxy),
    /// Knock, and run ssh
    ///
    /// Takes ssh's own options and arguments, so that it works as GIT_SSH_COMMAND and for
    /// "rsync -e". The destination is a profile's name, or the name of its host. Settings from
    /// the Host block for PROFILE in your ssh_config still apply.
    #[command(
        override_usage = "oneknock ssh [--via METHOD] [SSH OPTIONS]... [USER@]PROFILE [SSH ARGUMENTS]..."
    )]
    Ssh {
        /// Knock method: auto, packet or sequence, as for open
        #[arg(long, value_name = "METHOD", default_value = "auto")]
        via: Via,
        /// The profile, with ssh's options before and its arguments after it
        #[arg(
            value_name = "[USER@]PROFILE",
            required = true,
            trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        words: Vec<OsString>,
    },
    /// Rotate the key of a profile, over ssh
    ///
    /// Asks the server for a new generation of the key, saves it beside the current one, logs in
    /// with the new one alone, and only then ends the old one. Wherever that breaks off one of
    /// the two still works; run it again within 7 days to complete it. Other computers with the
    /// same key need its new invitation then (oneknockctl key invite).
    ///
    /// oneknockctl must run on the server as root without asking for a password.
    #[command(
        override_usage = "oneknock rotate PROFILE [--user USER] [--command COMMAND] [-- SSH OPTIONS]"
    )]
    Rotate(Rotate),
    /// Print the ssh_config block for a profile
    ///
    /// With it in ~/.ssh/config, plain ssh, scp, sftp, rsync and git work:
    /// oneknock ssh-config PROFILE >> ~/.ssh/config
    SshConfig {
        /// The profile
        #[arg(value_name = "PROFILE")]
        name: KeyName,
    },
}

impl Command {
    /// Whether standard output is to hold one JSON object.
    #[must_use]
    pub fn prints_json(&self) -> bool {
        match self {
            Self::List { json } | Self::Show { json, .. } | Self::Doctor { json, .. } => *json,
            _ => false,
        }
    }
}

/// The arguments of `open`.
#[derive(Debug, Clone, Args)]
pub struct Open {
    /// The profiles
    #[arg(required = true, value_name = "PROFILE")]
    pub names: Vec<KeyName>,
    /// The service to open [default: ssh, else the first with a TCP port]
    #[arg(long)]
    pub service: Option<ServiceName>,
    /// How long new connections are allowed, such as 30s or 2h; the server may cap it
    /// [default: set by the server]
    #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
    pub seconds: Option<u16>,
    #[command(flatten)]
    #[allow(missing_docs)] // A comment here would become the command's help.
    pub way: Way,
    /// Knock method: auto (the packet, then a rolling port sequence; a fixed one only where the
    /// profile's file says fallback = "sequence"), packet, or sequence
    #[arg(long, value_name = "METHOD", default_value = "auto")]
    pub via: Via,
    /// Only knock, and do not wait for the service
    #[arg(long)]
    pub no_wait: bool,
    /// How long a connection that says nothing has to stand before it counts as open; a
    /// service called ssh, or on port 22, has to send its version
    #[arg(long, value_name = "TIME", default_value = "350ms", value_parser = settle)]
    pub settle: Duration,
    /// When to give up, such as 10s
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = timeout)]
    pub timeout: Duration,
    /// Show no progress on a terminal
    #[arg(long, short)]
    pub quiet: bool,
}

/// The arguments of `hold`.
#[derive(Debug, Clone, Args)]
pub struct Hold {
    /// The profiles
    #[arg(required = true, value_name = "PROFILE")]
    pub names: Vec<KeyName>,
    /// The service to hold open [default: ssh, else the first with a TCP port]
    #[arg(long)]
    pub service: Option<ServiceName>,
    /// How often the grant is renewed: several times within what the server grants
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = every)]
    pub every: Duration,
    /// How long a connection that says nothing has to stand before it counts as open
    #[arg(long, value_name = "TIME", default_value = "350ms", value_parser = settle)]
    pub settle: Duration,
    #[command(flatten)]
    #[allow(missing_docs)] // A comment here would become the command's help.
    pub families: Families,
}

/// The arguments of `proxy`.
#[derive(Debug, Args)]
pub struct Proxy {
    /// The profile
    #[arg(value_name = "PROFILE")]
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
    /// Time between two steps, such as 500ms
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = delay)]
    pub delay: Duration,
    #[command(flatten)]
    #[allow(missing_docs)] // A comment here would become the command's help.
    pub families: Families,
}

/// The arguments of `rotate`.
#[derive(Debug, Args)]
pub struct Rotate {
    /// The profile
    #[arg(value_name = "PROFILE")]
    pub name: KeyName,
    /// The user to log in as, such as root [default: as ssh's configuration says]
    #[arg(long, value_parser = Destination::read_user)]
    pub user: Option<String>,
    /// The command that runs oneknockctl on the server, such as 'sudo oneknockctl'
    #[arg(long, default_value = "oneknockctl")]
    pub command: String,
    /// Options for ssh
    #[arg(last = true, value_name = "SSH OPTIONS")]
    pub more: Vec<OsString>,
}

/// The arguments of `close`.
#[derive(Debug, Clone, Args)]
pub struct Close {
    /// The profiles
    #[arg(required = true, value_name = "PROFILE")]
    pub names: Vec<KeyName>,
    /// The service to close [default: all that were opened with this key]
    #[arg(long)]
    pub service: Option<ServiceName>,
    #[command(flatten)]
    #[allow(missing_docs)] // A comment here would become the command's help.
    pub way: Way,
}

/// Which addresses, at both ends.
#[derive(Debug, Clone, Copy, Args)]
pub struct Way {
    /// The address to admit: auto (this computer's own where the server can see it, else the
    /// packet's source), source (always the packet's source), or an IP address
    #[arg(long, value_name = "auto|source|IP", default_value = "auto")]
    pub address: AddressArg,
    #[command(flatten)]
    #[allow(missing_docs)] // A comment here would become the command's help.
    pub families: Families,
}

impl Way {
    /// Which of the server's addresses are wanted.
    #[must_use]
    pub fn family(&self) -> Family {
        self.families.family()
    }
}

/// Which of the server's addresses.
#[derive(Debug, Clone, Copy, Args)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
