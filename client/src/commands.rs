//! What each command does and prints. Results go to standard output, all else that is
//! said to standard error.

use crate::address::{self, Choice, Signing};
use crate::age;
use crate::cli::{self, Close, Command, Open, Sequence};
use crate::doctor;
use crate::door::{Door, first_tcp};
use crate::doors::Doors;
use crate::enter::{connect, sequence_of, walk_once};
use crate::error::{Error, hint, say};
use crate::import::{self, Imported};
use crate::knock::{self, Knocker};
use crate::open::Round;
use crate::relay;
use crate::resolve::{Family, resolve};
use crate::rotate;
use crate::sequence::{Steps, Via, Walk};
use crate::ssh;
use oneknock_shared::invitation::{AddressRule, Invitation, Service};
use oneknock_shared::knock::{Action, is_admissible};
use oneknock_shared::name::{Host, KeyName};
use oneknock_shared::port::Ports;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// How long `close` and `proxy`, which have no option for it, take at most for the name
/// and for the door, each.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Between the two packets of a close: one may be lost, and nothing would tell.
const CLOSE_AGAIN: Duration = Duration::from_millis(100);

/// Runs a command; gives the exit status of success.
pub fn run(command: Command) -> Result<ExitCode, Error> {
    let doors = Doors::of_this_user()?;
    match command {
        Command::Import {
            name,
            replace,
            file,
        } => import_door(&doors, name, replace, file.as_deref())?,
        Command::List => list(&doors)?,
        Command::Show { name } => show(&doors, &name)?,
        Command::Remove { name } => {
            doors.remove(&name)?;
            say(&format!("door {name} is removed"));
        }
        Command::Open(wanted) => in_runtime(open(&doors.load(&wanted.name)?, &wanted))?,
        Command::Sequence(wanted) => in_runtime(walk(&wanted))?,
        Command::Close(wanted) => in_runtime(close(&doors.load(&wanted.name)?, &wanted))?,
        Command::Proxy {
            name,
            host,
            port,
            mut via,
            next,
        } => {
            let mut door = doors.load(&name)?;
            if next {
                door.invitation = door.next.take().ok_or(Error::NoNext(name))?;
                // A sequence says nothing of the new generation.
                via = Via::Packet;
            }
            proxy(&door, host.as_ref(), port, via)?;
        }
        Command::Doctor { name } => {
            let door = doors.load(&name)?;
            let (said, is_open) = in_runtime(doctor::examine(&door))?;
            print(&said)?;
            return Ok(ExitCode::from(u8::from(!is_open)));
        }
        Command::Rotate(wanted) => rotate::rotate(&doors, &wanted)?,
        Command::Ssh { via, words } => {
            let (to, more) = cli::ssh_words(&words)?;
            return ssh::run(&doors.load(&to.door)?, &to, via, more);
        }
        Command::SshConfig { name } => print(&ssh::configuration(&doors.load(&name)?)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `println!` would panic where nobody reads any more.
fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|why| Error::System {
        what: "cannot write to standard output",
        why,
    })
}

fn in_runtime<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let failed = |why| Error::System {
        what: "cannot wait for the network",
        why,
    };
    let runtime = runtime.map_err(failed)?;
    let result = runtime.block_on(work);
    // A name that is still being looked up must not hold the program up.
    runtime.shutdown_background();
    result
}

fn import_door(
    doors: &Doors,
    name: Option<KeyName>,
    may_replace: bool,
    file: Option<&Path>,
) -> Result<(), Error> {
    let (source, from) = import::source(file)?;
    match import::import(doors, import::read(source, &from)?, name, may_replace)? {
        Imported::New(door) => {
            let (name, host) = (door.name(), &door.invitation.host);
            say(&format!("door {name} leads to {host}: {}", services(&door)));
            let ssh = door.service(None).is_ok_and(|s| s.name.as_str() == "ssh");
            let verb = if ssh { "ssh" } else { "open" };
            hint(&format!("oneknock {verb} {name}"));
        }
        Imported::Already(door) => say(&format!("door {} is there already", door.name())),
        Imported::Renewed(door, changed) => say(&format!(
            "door {} has the same secret, and takes over what is new: {}",
            door.name(),
            changed.join(", ")
        )),
        Imported::Replaced { door, before } => {
            let of =
                |i: &Invitation| format!("{}, key {} generation {}", i.host, i.key, i.generation);
            say(&format!(
                "door {} leads to {} now, in the place of {}",
                door.name(),
                of(&door.invitation),
                of(&before.invitation)
            ));
            if let Some(next) = before.next {
                say(&format!("gone too: the rotation to {}", of(&next)));
            }
        }
    }
    Ok(())
}

fn services(door: &Door) -> String {
    let names = door.invitation.services.iter().map(|s| s.name.to_string());
    names.collect::<Vec<_>>().join(", ")
}

fn list(doors: &Doors) -> Result<(), Error> {
    let mut rows = vec![["NAME", "HOST", "PORT", "KEY", "SERVICES"].map(String::from)];
    let (mut broken, mut warnings) = (0, Vec::new());
    let now = knock::now().ok();
    for door in doors.all()? {
        match door {
            Ok(door) => {
                let of = &door.invitation;
                rows.push([
                    of.name.to_string(),
                    of.host.to_string(),
                    of.port.to_string(),
                    now.and_then(|now| age::old(of.made, now))
                        .unwrap_or_else(|| "-".into()),
                    services(&door),
                ]);
                warnings.extend(now.and_then(|now| age::warning(&door, now)));
            }
            Err(error) => {
                broken += 1;
                say(&error.to_string());
                error.hints().iter().for_each(|h| hint(h));
            }
        }
    }
    if rows.len() > 1 {
        print(&table(&rows))?;
    } else if broken == 0 {
        say("there is no door yet");
        hint("oneknock import makes one from an invitation");
    }
    for (warning, what_to_do) in warnings {
        say(&warning);
        hint(&what_to_do);
    }
    if broken > 0 {
        Err(Error::SomeBroken(broken))
    } else {
        Ok(())
    }
}

fn table(rows: &[[String; 5]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let [a, b, c, d] = [width(0), width(1), width(2), width(3)];
    let mut text = String::new();
    for [name, host, port, age, services] in rows {
        let _ = writeln!(
            text,
            "{name:a$}  {host:b$}  {port:c$}  {age:d$}  {services}"
        );
    }
    text
}

fn show(doors: &Doors, name: &KeyName) -> Result<(), Error> {
    let door = doors.load(name)?;
    let of = &door.invitation;
    let ports = |list: &[Ports]| {
        list.iter()
            .map(Ports::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut rows = vec![
        ("name", name.to_string()),
        ("host", of.host.to_string()),
        ("port", format!("udp/{}", of.port)),
        ("key", of.key.to_string()),
        ("generation", of.generation.to_string()),
        ("server id", of.server_id.to_string()),
        ("address", of.address.as_str().into()),
    ];
    rows.extend(of.made.map(|at| ("made", age::date(at))));
    rows.extend(of.not_after.map(|at| ("ends", age::date(at))));
    if let Some(next) = &door.next {
        rows.push(("rotation", format!("to generation {}", next.generation)));
    } else if let Some(begun) = door.begun {
        rows.push(("rotation", format!("begun at {}", age::date(begun))));
    }
    for Service { name, ports: list } in &of.services {
        rows.push(("service", format!("{name}: {}", ports(list))));
    }
    if let Some(sequence) = &of.sequence {
        rows.push(("sequence", ports(sequence)));
    } else if of.rolling {
        rows.push(("sequence", "rolls every minute".into()));
    }
    rows.push(("file", doors.path(name).display().to_string()));
    let lines = rows
        .iter()
        .map(|(field, value)| format!("{field:<10}  {value}\n"));
    print(&lines.collect::<String>())
}

/// What is said about the address, within what can be.
fn signing(
    door: &Door,
    choice: Choice,
    rule: fn(Choice, AddressRule) -> Option<Signing>,
) -> Result<Signing, Error> {
    match choice {
        Choice::Given(ip) if !is_admissible(ip) => Err(Error::Inadmissible(ip)),
        _ => rule(choice, door.invitation.address)
            .ok_or_else(|| Error::SourceRefused(door.name().clone())),
    }
}

/// The local address to send from where one was given, and the family that it demands.
fn bound(choice: Choice, family: Family) -> (Option<IpAddr>, Family) {
    match choice {
        Choice::Given(ip) if address::is_here(ip) => {
            let own = if ip.is_ipv4() { Family::V4 } else { Family::V6 };
            (Some(ip), if family == Family::Any { own } else { family })
        }
        _ => (None, family),
    }
}

async fn open(door: &Door, wanted: &Open) -> Result<(), Error> {
    let of = &door.invitation;
    let service = door.service(wanted.service.as_ref())?;
    let choice = wanted.way.address;
    let signing = signing(door, choice, Signing::for_open)?;
    let (from, family) = bound(choice, wanted.way.family());
    let round = Round {
        knocker: Knocker {
            keys: door.keys(),
            action: Action::Open {
                seconds: wanted.seconds.unwrap_or(0),
            },
            service: Some(service.name),
            from,
        },
        addresses: resolve(&of.host, family, wanted.timeout).await?,
        port: of.port,
        signing,
    };
    let unverified = match (choice, first_tcp(service)) {
        _ if wanted.no_wait => "not waiting for the port to answer".to_string(),
        (Choice::Given(ip), _) if from.is_none() => format!(
            "{ip} is not this machine's, so whether it is admitted cannot be seen from here"
        ),
        (_, None) => "it has udp ports only, so whether it is open cannot be seen".into(),
        (_, Some(port)) => {
            let opened = connect(door, &round, wanted.via, port, wanted.timeout);
            return opened.await.map(drop);
        }
    };
    if wanted.via == Via::Sequence {
        walk_once(&sequence_of(door, &round)?).await?;
    } else {
        knock_once(&round)?;
    }
    say(&format!(
        "knocked for {} at {}: {unverified}",
        service.name,
        door.name()
    ));
    Ok(())
}

/// Sends a packet to each address; those that got none are named. At least one did.
fn knock_once(round: &Round) -> Result<(), Error> {
    let (sent, troubles) = round.knock_once();
    if sent == 0 {
        return Err(Error::NotSent { troubles });
    }
    for trouble in troubles {
        say(&format!("no packet was sent to {trouble}"));
    }
    Ok(())
}

async fn walk(wanted: &Sequence) -> Result<(), Error> {
    let addresses = resolve(&wanted.host, wanted.families.family(), TIMEOUT).await?;
    let walk = Walk {
        addresses,
        from: None,
        steps: Steps::Fixed(wanted.steps.clone()),
        delay: wanted.delay,
        // To other servers a step that comes again is a wrong one.
        copies: 1,
    };
    walk_once(&walk).await?;
    let (count, host) = (wanted.steps.len(), &wanted.host);
    say(&format!(
        "sent {count} steps to {host}; what they open cannot be seen from here"
    ));
    Ok(())
}

async fn close(door: &Door, wanted: &Close) -> Result<(), Error> {
    let service = match &wanted.service {
        Some(name) => Some(door.service(Some(name))?.name),
        None => None,
    };
    let of = &door.invitation;
    let choice = wanted.way.address;
    let signing = signing(door, choice, Signing::for_close)?;
    let (from, family) = bound(choice, wanted.way.family());
    let round = Round {
        knocker: Knocker {
            keys: door.keys(),
            action: Action::Close,
            service,
            from,
        },
        addresses: resolve(&of.host, family, TIMEOUT).await?,
        port: of.port,
        signing,
    };
    knock_once(&round)?;
    tokio::time::sleep(CLOSE_AGAIN).await;
    // What could not be sent was named the first time.
    let _ = round.knock_once();
    say(&format!(
        "asked {} to shut the door; the server never answers",
        door.name()
    ));
    Ok(())
}

fn proxy(door: &Door, host: Option<&Host>, port: Option<u16>, via: Via) -> Result<(), Error> {
    let of = &door.invitation;
    let service = match port {
        Some(port) => door.service_with(port)?,
        None => door.service(None)?,
    };
    let tcp_port = port.or(first_tcp(service)).ok_or_else(|| Error::NoTcp {
        door: door.name().clone(),
        service: service.name,
    })?;
    let host = host.unwrap_or(&of.host);
    let stream = in_runtime(async {
        let round = Round {
            knocker: Knocker {
                keys: door.keys(),
                action: Action::Open { seconds: 0 },
                service: Some(service.name),
                from: None,
            },
            addresses: resolve(host, Family::Any, TIMEOUT).await?,
            port: of.port,
            signing: signing(door, Choice::Auto, Signing::for_open)?,
        };
        connect(door, &round, via, tcp_port, TIMEOUT).await
    })?;
    relay::relay_standard(&stream)
}
