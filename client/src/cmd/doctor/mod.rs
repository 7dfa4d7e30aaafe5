//! `oneknock doctor`: why a port does not open, as far as this side of it can tell. The
//! server says nothing; what is left is to look at everything else, and to try.

mod causes;

use crate::error::Error;
use crate::knock::address::{AddressBinding, is_global};
use crate::knock::attempt::{KnockPlan, OpenError};
use crate::knock::packet::{self, KnockRequest};
use crate::knock::resolve::{Family, resolve};
use crate::profile::{Profile, first_tcp};
use crate::ui::message::say;
use causes::causes;
use oneknock_shared::invitation::{AddressRule, Service};
use oneknock_shared::knock::Action;
use std::fmt::Write;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// How long the name, the profile, and who knows of the clock may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a port may take that is open without a knock.
const AT_ONCE: Duration = Duration::from_millis(900);
/// Somebody far away, whom nothing is sent to (RFC 5737 and RFC 3849).
const FAR: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 254)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0xfe)),
];

/// What was seen.
struct Seen {
    /// The ways to the server's addresses; or why its name has none.
    ways: Result<Vec<Way>, String>,
    /// Whether there is a way to anywhere.
    is_online: bool,
    /// The command that goes without UDP, where the server has a port sequence.
    by_sequence: Option<String>,
    /// Whether this machine's clock is synchronised; `None` where nobody can say.
    clock: Option<bool>,
}

/// The way to one of the server's addresses.
struct Way {
    to: IpAddr,
    /// This machine's own address on it: that which the system would send from.
    from: Result<IpAddr, String>,
    /// Whether the port answered before any knock.
    was_open: bool,
    outcome: Outcome,
}

/// What became of the knock.
enum Outcome {
    /// It opened the port.
    Open,
    OpenError(OpenError),
    /// It was sent, to open UDP ports alone, which answer nothing.
    Sent,
}

/// Looks, tries and says. Gives whether the port opened, as far as that can be seen.
pub async fn examine(profile: &Profile) -> Result<(String, bool), Error> {
    let of = &profile.invitation;
    let service = profile.service(None)?;
    let ways = match resolve(&of.host, Family::Any, PATIENCE).await {
        Ok(addresses) => Ok(try_all(profile, service, addresses).await),
        Err(Error::NoAddress { why, .. }) => Err(why),
        Err(other) => return Err(other),
    };
    let seen = Seen {
        ways,
        is_online: FAR.iter().any(|&far| way(far, of.port).is_ok()),
        by_sequence: (of.sequence.is_some() || of.rolling)
            .then(|| format!("oneknock open {} --via sequence", profile.name())),
        clock: is_synchronised(),
    };
    let all = seen.ways.iter().flatten();
    let mut fine = all.filter(|way| !matches!(way.outcome, Outcome::OpenError(_)));
    Ok((text(profile, &seen), fine.next().is_some()))
}

/// Tries every address by itself, all at the same time.
async fn try_all(profile: &Profile, service: &Service, addresses: Vec<IpAddr>) -> Vec<Way> {
    let of = &profile.invitation;
    let tcp_port = first_tcp(service);
    let opens = |to: IpAddr, port| {
        let to = SocketAddr::new(to, port);
        TcpStream::connect_timeout(&to, AT_ONCE).is_ok()
    };
    // Before the first knock, which may admit this machine to every one of them.
    let before = addresses.into_iter().map(|to| {
        let was_open = tcp_port.is_some_and(|port| opens(to, port));
        (to, was_open)
    });
    let before: Vec<(IpAddr, bool)> = before.collect();
    let tries = before.into_iter().map(|(to, was_open)| {
        let round = KnockPlan {
            knocker: KnockRequest {
                keys: profile.keys(),
                action: Action::Open { seconds: 0 },
                service: Some(service.name),
                from: None,
            },
            addresses: vec![to],
            port: of.port,
            signing: match of.address {
                AddressRule::Any => AddressBinding::IfGlobal,
                AddressRule::Signed => AddressBinding::Always,
            },
        };
        tokio::spawn(async move {
            Way {
                to,
                from: way(to, round.port),
                was_open,
                outcome: knock(&round, tcp_port).await,
            }
        })
    });
    let tries: Vec<_> = tries.collect();
    let mut ways = Vec::new();
    for tried in tries {
        match tried.await {
            Ok(way) => ways.push(way),
            Err(why) => std::panic::resume_unwind(why.into_panic()),
        }
    }
    ways
}

/// Knocks at one address.
async fn knock(round: &KnockPlan, tcp_port: Option<u16>) -> Outcome {
    let Some(port) = tcp_port else {
        return match round.knock_once() {
            (0, troubles) => Outcome::OpenError(OpenError {
                refused: false,
                knock_refused: false,
                knock_rejected: false,
                troubles,
            }),
            _ => Outcome::Sent,
        };
    };
    let to = round.addresses.first();
    let fell_back = || {
        let to = to.map(ToString::to_string).unwrap_or_default();
        say(&format!(
            "{to}: the signed address did not open the profile: trying without"
        ));
    };
    match round.open(port, PATIENCE, fell_back).await {
        Ok(_) => Outcome::Open,
        Err(shut) => Outcome::OpenError(shut),
    }
}

/// This machine's own address on the way to another.
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
    let mut asked = ask
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut out = asked.stdout.take()?;
    let (tell, told) = sync_channel(1);
    std::thread::spawn(move || {
        let mut said = Vec::new();
        // Nobody waits for it any more where telling fails.
        let _ = out.read_to_end(&mut said).map(|_| tell.send(said));
    });
    let said = told.recv_timeout(PATIENCE).ok();
    // One that says nothing, or does not end, is not waited for.
    let _ = asked.kill();
    let _ = asked.wait();
    match said?.trim_ascii() {
        b"yes" => Some(true),
        b"no" => Some(false),
        _ => None,
    }
}

fn text(profile: &Profile, seen: &Seen) -> String {
    let of = &profile.invitation;
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
        Some(true) => "synchronised",
        Some(false) => "not synchronised",
        None => "nobody here can say whether it is synchronised",
    };
    line("clock", &format!("{}, {clock}", packet::clock()));
    for way in seen.ways.iter().flatten() {
        line("knock", &outcome(way));
    }
    for (at, cause) in causes(of.port, of.address, seen).iter().enumerate() {
        line(if at == 0 { "likely" } else { "or" }, cause);
    }
    text
}

fn from(way: &Way) -> String {
    let to = way.to;
    match &way.from {
        Ok(own) if is_global(*own) => format!("{to} from {own}, a global address"),
        Ok(own) => format!("{to} from {own}, a private address: there is a NAT on the way"),
        Err(why) => format!("{to} no way there: {why}"),
    }
}

fn outcome(way: &Way) -> String {
    let to = way.to;
    match &way.outcome {
        _ if way.was_open => format!("{to}: the port answers without one"),
        Outcome::Open => format!("{to}: the port opens"),
        Outcome::Sent => format!("{to}: sent, for udp alone: whether it opens cannot be seen"),
        Outcome::OpenError(shut) => shut.troubles.join(", "),
    }
}
