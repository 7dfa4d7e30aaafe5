//! `oneknock doctor`: why a door does not open, as far as this side of it can tell. The
//! server says nothing; what is left is to look at everything else, and to try.

use crate::address::{Signing, is_global};
use crate::door::{Door, first_tcp};
use crate::error::{Error, say};
use crate::knock::{self, Knocker};
use crate::open::{Round, Shut};
use crate::resolve::{Family, resolve};
use oneknock_shared::invitation::AddressRule;
use oneknock_shared::knock::Action;
use std::fmt::Write;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

/// How long the name, and the door, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a port may take that is open without a knock.
const AT_ONCE: Duration = Duration::from_millis(900);

/// What was seen.
struct Seen {
    /// Each address of the server, and this machine's own on the way there.
    ways: Vec<(IpAddr, Result<IpAddr, String>)>,
    /// Whether this machine's clock is synchronised; `None` where nobody can say.
    clock: Option<bool>,
    /// Whether the port answered before any knock.
    was_open: bool,
    /// What became of the knock; `None` where that cannot be seen.
    outcome: Option<Result<(), Shut>>,
}

/// Looks, tries and says. Gives whether the door opened, as far as that can be seen.
pub async fn examine(door: &Door) -> Result<(String, bool), Error> {
    let of = &door.invitation;
    let service = door.service(None)?;
    let addresses = resolve(&of.host, Family::Any, PATIENCE).await?;
    let ways = addresses.iter().map(|&to| (to, way(to, of.port)));
    let mut seen = Seen {
        ways: ways.collect(),
        clock: is_synchronised(),
        was_open: false,
        outcome: None,
    };
    if let Some(port) = first_tcp(service) {
        let opens = |to: &IpAddr| TcpStream::connect_timeout(&SocketAddr::new(*to, port), AT_ONCE);
        seen.was_open = addresses.iter().any(|to| opens(to).is_ok());
        let rule = of.address;
        let signing = match rule {
            AddressRule::Any => Signing::IfGlobal,
            AddressRule::Signed => Signing::Always,
        };
        let round = Round {
            knocker: Knocker {
                keys: door.keys(),
                action: Action::Open { seconds: 0 },
                service: Some(service.name),
                from: None,
            },
            addresses,
            port: of.port,
            signing,
        };
        let fell_back = || say("the signed address did not open the door: trying without");
        let opened = round.open(port, PATIENCE, fell_back).await;
        seen.outcome = Some(opened.map(drop));
    }
    let is_open = matches!(seen.outcome, Some(Ok(())));
    Ok((text(door, &seen), is_open))
}

/// This machine's own address on the way to another: that which the system would send from.
fn way(to: IpAddr, port: u16) -> Result<IpAddr, String> {
    let any: SocketAddr = match to {
        IpAddr::V4(_) => ([0; 4], 0).into(),
        IpAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let look = || -> io::Result<IpAddr> {
        let socket = UdpSocket::bind(any)?;
        socket.connect((to, port))?;
        Ok(socket.local_addr()?.ip())
    };
    look().map_err(|why| why.to_string())
}

/// As systemd knows it; elsewhere nobody is asked.
fn is_synchronised() -> Option<bool> {
    let mut ask = Command::new("timedatectl");
    let ask = ask.args(["show", "--property=NTPSynchronized", "--value"]);
    let output = ask.output().ok().filter(|output| output.status.success())?;
    match output.stdout.trim_ascii() {
        b"yes" => Some(true),
        b"no" => Some(false),
        _ => None,
    }
}

fn text(door: &Door, seen: &Seen) -> String {
    let of = &door.invitation;
    let mut text = format!(
        "door     {}: {}, udp/{}, key {} generation {}\n",
        door.name(),
        of.host,
        of.port,
        of.key,
        of.generation
    );
    for (to, way) in &seen.ways {
        let way = match way {
            Ok(own) if is_global(*own) => format!("from {own}"),
            Ok(own) => format!("from {own}, a private address: there is a NAT on the way"),
            Err(why) => format!("no way there: {why}"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "address  {to} {way}");
    }
    let clock = match seen.clock {
        Some(true) => "synchronised",
        Some(false) => "not synchronised",
        None => "nobody here can say whether it is synchronised",
    };
    let _ = writeln!(text, "clock    {}, {clock}", knock::clock());
    let outcome = match &seen.outcome {
        _ if seen.was_open => "the port answers without one".into(),
        None => "sent for udp alone: whether it opens cannot be seen".into(),
        Some(Ok(())) => "the door opens".into(),
        Some(Err(shut)) => shut.troubles.join(", "),
    };
    let _ = writeln!(text, "knock    {outcome}");
    let causes = causes(of.port, of.address, seen);
    for (at, cause) in causes.iter().enumerate() {
        let word = if at == 0 { "likely" } else { "or" };
        let _ = writeln!(text, "{word:<8} {cause}");
    }
    text
}

/// What may be the matter, the most likely first; nothing where nothing is.
fn causes(port: u16, rule: AddressRule, seen: &Seen) -> Vec<String> {
    let mut causes = Vec::new();
    if seen.was_open {
        causes.push("the guard is not up at the server, this machine is admitted already, or never needs to knock: for the first, \"oneknockctl doctor\" there".into());
        return causes;
    }
    let Some(Err(shut)) = &seen.outcome else {
        return causes;
    };
    let own: Vec<IpAddr> = seen
        .ways
        .iter()
        .filter_map(|(_, way)| way.clone().ok())
        .collect();
    if own.is_empty() {
        causes.push("this machine is not online, or has no way to the server".into());
        return causes;
    }
    if shut.troubles.iter().any(|t| t.contains("not permitted")) {
        causes.push(format!(
            "a firewall on this machine keeps packets to udp/{port} back"
        ));
    }
    if rule == AddressRule::Signed && !own.iter().any(|own| is_global(*own)) {
        causes.push("the server demands the address in the packet, and behind NAT this machine does not know its own: signed_address = false for its key at the server, and a new invitation".into());
    }
    if seen.clock == Some(false) {
        causes.push("this machine's clock is wrong: timedatectl set-ntp true".into());
    }
    if shut.knock_refused {
        causes.push(format!("nothing takes knocks at udp/{port}: oneknockd does not run, or the router passes the port on to another machine"));
    }
    if shut.refused {
        causes.push("the knock was taken, and the service behind the door does not run".into());
        return causes;
    }
    causes.push(format!("the packet does not arrive: the server is off, its router does not pass on udp/{port}, or another firewall stops it: \"oneknockctl doctor\" there"));
    causes.push("it arrives and is refused: \"oneknockctl why\" there says why".into());
    causes.push("the key is not the server's any more: import its newest invitation".into());
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(own: &str, clock: Option<bool>, shut: Shut) -> Seen {
        Seen {
            ways: vec![([192, 0, 2, 10].into(), own.parse().map_err(|_| own.into()))],
            clock,
            was_open: false,
            outcome: Some(Err(shut)),
        }
    }

    fn silent() -> Shut {
        Shut {
            refused: false,
            knock_refused: false,
            troubles: vec!["192.0.2.10 is silent".into()],
        }
    }

    fn first(rule: AddressRule, seen: &Seen) -> String {
        causes(45123, rule, seen).remove(0)
    }

    #[test]
    fn what_is_known_to_be_wrong_here_comes_before_what_may_be_wrong_there() {
        let any = AddressRule::Any;
        let online = "198.51.100.7";
        let offline = seen("Network is unreachable", Some(true), silent());
        assert!(first(any, &offline).contains("not online"));
        let clock = seen(online, Some(false), silent());
        assert!(first(any, &clock).contains("clock"));
        let behind_nat = seen("192.168.1.5", Some(true), silent());
        assert!(first(AddressRule::Signed, &behind_nat).contains("NAT"));
        assert!(first(any, &behind_nat).contains("does not arrive"));
        let dead = Shut {
            knock_refused: true,
            ..silent()
        };
        assert!(first(any, &seen(online, None, dead)).contains("oneknockd does not run"));
        let down = Shut {
            refused: true,
            ..silent()
        };
        assert!(first(any, &seen(online, None, down)).contains("service behind the door"));
    }

    #[test]
    fn where_it_opens_nothing_is_the_matter() {
        let mut well = seen("198.51.100.7", Some(true), silent());
        well.outcome = Some(Ok(()));
        assert!(causes(45123, AddressRule::Any, &well).is_empty());
        well.was_open = true;
        assert!(first(AddressRule::Any, &well).contains("guard is not up"));
    }
}
