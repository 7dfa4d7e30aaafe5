//! Carries out what the engine says: packets, connections and clocks.

use crate::knock::address::AddressBinding;
use crate::knock::engine::{Binding, EndpointOutcome, Engine, Event, Goal, Outcome, Refusal, Step};
use crate::knock::memory::Memory;
use crate::knock::packet::{self, NotSent, Sent};
use crate::knock::plan::{KnockPlan, Route, unspecified};
use crate::knock::proof::{Proof, Verdict};
use oneknock_shared::knock::Timestamp;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// A connection whose service has shown itself.
#[derive(Debug)]
pub struct Opened {
    /// The connection.
    pub stream: TcpStream,
    /// What the service has said already, which whoever uses the connection must get first.
    pub read: Vec<u8>,
}

/// How it went.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// What is known of each address.
    pub endpoints: Vec<(IpAddr, EndpointOutcome)>,
    /// The ways there, in the same order.
    pub routes: Vec<Route>,
    /// The connection, where there is one.
    pub opened: Option<Opened>,
}

/// What is to be reached.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// What is wanted.
    pub goal: Goal,
    /// The TCP port, where there is one; else the goal is [`Goal::Knock`].
    pub port: u16,
    /// What shows its service.
    pub proof: Proof,
    /// Whether the connection itself is wanted, and not only that the port is open.
    pub is_wanted: bool,
}

/// What a connection's task tells.
enum Told {
    Event(Event),
    Shown(usize, Opened),
}

/// Knocks and connects as the engine says, until it is done.
pub async fn run(plan: &KnockPlan, target: Target, limit: Duration, memory: &Memory) -> Report {
    let start = Instant::now();
    let now = packet::now().unwrap_or(Timestamp(0));
    let routes = plan.routes(memory, now);
    let candidates = routes.iter().map(|r| plan.candidate(r, memory, now));
    let mut engine = Engine::new(target.goal, target.proof, limit, candidates.collect());
    if !target.is_wanted {
        engine = engine.with_probe();
    }
    let (tell, mut told) = unbounded_channel();
    // Dropped at the end, and with it every connection that was not taken.
    let mut tasks = JoinSet::new();
    let mut sent: Vec<Vec<Sent>> = routes.iter().map(|_| Vec::new()).collect();
    let mut opened = None;
    let outcome = loop {
        // All that came meanwhile, before anything new is begun.
        while let Ok(now) = told.try_recv() {
            engine.notice(start.elapsed(), take_in(now, &mut opened));
        }
        let elapsed = start.elapsed();
        for event in refusals(&mut sent) {
            engine.notice(elapsed, event);
        }
        match engine.next(elapsed) {
            Step::Done(outcome) => break outcome,
            Step::Knock { endpoint, binding } => match knock(plan, routes[endpoint].to, binding) {
                Ok(packet) => sent[endpoint].push(packet),
                Err(event) => engine.notice(elapsed, event(endpoint)),
            },
            Step::Connect {
                endpoint,
                connection,
            } => {
                let route = &routes[endpoint];
                let local = sent[endpoint].last().map(|sent| sent.local.ip());
                let local = local.or(plan.request.from);
                let local = local.unwrap_or_else(|| unspecified(route.to));
                let server = SocketAddr::new(route.to, target.port);
                let tell = tell.clone();
                tasks.spawn(connection_task(
                    local,
                    server,
                    target.proof,
                    connection,
                    tell,
                ));
                // Its SYN leaves before anything else does.
                tokio::task::yield_now().await;
            }
            Step::Wait(until) => {
                if let Some(now) = wait(&mut told, start + until).await {
                    engine.notice(start.elapsed(), take_in(now, &mut opened));
                }
            }
        }
    };
    tasks.abort_all();
    let endpoints = engine.endpoints().map(|(a, o)| (a, o.clone())).collect();
    Report {
        outcome,
        endpoints,
        routes,
        opened,
    }
}

/// The event; a connection whose service has shown itself is kept, the first one alone.
fn take_in(told: Told, opened: &mut Option<Opened>) -> Event {
    match told {
        Told::Event(event) => event,
        Told::Shown(connection, found) => {
            opened.get_or_insert(found);
            Event::Shown(connection)
        }
    }
}

async fn wait(told: &mut UnboundedReceiver<Told>, until: Instant) -> Option<Told> {
    tokio::select! {
        biased;
        told = told.recv() => return told,
        () = sleep_until(until) => {}
    }
    // A computer under load wakes late: what has come by then goes first.
    tokio::task::yield_now().await;
    told.try_recv().ok()
}

/// Sends one packet; the event of its failure.
fn knock(
    plan: &KnockPlan,
    to: IpAddr,
    binding: Binding,
) -> Result<Sent, impl FnOnce(usize) -> Event + use<>> {
    let signing = match binding {
        Binding::Signed => plan.signing,
        Binding::Source => AddressBinding::Never,
    };
    let sent = plan.request.knock((to, plan.port).into(), signing);
    sent.map_err(|why| {
        move |endpoint| match why {
            // As this computer's own firewall answers.
            NotSent::Network(why) if why.kind() == io::ErrorKind::PermissionDenied => {
                let refusal = Refusal::NotPermitted;
                Event::KnockRefused { endpoint, refusal }
            }
            why => Event::NotSent {
                endpoint,
                why: why.to_string(),
            },
        }
    })
}

/// The ICMP errors that have come for packets, each told once.
fn refusals(sent: &mut [Vec<Sent>]) -> Vec<Event> {
    let mut events = Vec::new();
    for (endpoint, packets) in sent.iter_mut().enumerate() {
        for packet in packets {
            let Ok(Some(error)) = packet.socket.take_error() else {
                continue;
            };
            let refusal = match error.kind() {
                io::ErrorKind::ConnectionRefused => Refusal::PortUnreachable,
                // As firewalls reject: "prohibited", over IPv4 and over IPv6; or there is no
                // such host any more.
                _ => Refusal::Prohibited,
            };
            events.push(Event::KnockRefused { endpoint, refusal });
        }
    }
    events
}

/// One connection, from its SYN until its service has shown itself.
async fn connection_task(
    local: IpAddr,
    server: SocketAddr,
    proof: Proof,
    connection: usize,
    tell: UnboundedSender<Told>,
) {
    // Telling fails only where the engine is done, and nobody needs it any more.
    let event = |event| drop(tell.send(Told::Event(event)));
    let stream = match connect(local, server).await {
        Ok(stream) => stream,
        Err(why) if why.kind() == io::ErrorKind::ConnectionRefused => {
            return event(Event::PortRefused(connection));
        }
        // The system's own word for a SYN that met silence, as is assumed anyway.
        Err(why) if why.kind() == io::ErrorKind::TimedOut => return,
        Err(why) => {
            let why = why.to_string();
            return event(Event::Failed { connection, why });
        }
    };
    // One that is given up ends at once, without leaving half of it to the server.
    let _ = stream.set_zero_linger();
    event(Event::Connected(connection));
    match prove(&stream, proof).await {
        Some(read) => {
            // The deprecated part is a time to wait; this takes it away.
            #[allow(deprecated)]
            let _ = stream.set_linger(None);
            let _ = tell.send(Told::Shown(connection, Opened { stream, read }));
        }
        None => event(Event::Closed(connection)),
    }
}

/// Reads until the service has shown itself; `None` where it ended or is another.
async fn prove(stream: &TcpStream, proof: Proof) -> Option<Vec<u8>> {
    if proof == Proof::Stands(Duration::ZERO) {
        // The handshake is enough.
        return Some(Vec::new());
    }
    let mut read = Vec::new();
    let reading = async {
        loop {
            let mut chunk = [0; 1024];
            stream.ready(Interest::READABLE).await.ok()?;
            match stream.try_read(&mut chunk) {
                Ok(0) => return None,
                Ok(n) => read.extend_from_slice(&chunk[..n]),
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => return None,
            }
            match proof.judge(&read) {
                Verdict::Shown => return Some(()),
                Verdict::Unknown => {}
                Verdict::Other => return None,
            }
        }
    };
    match proof {
        Proof::Ssh => reading.await?,
        Proof::Stands(settle) => {
            if let Ok(shown) = tokio::time::timeout(settle, reading).await {
                shown?;
            }
        }
    }
    Some(read)
}

/// From the address that was signed, or that the packet came from; any other would not
/// be admitted.
async fn connect(local: IpAddr, server: SocketAddr) -> io::Result<TcpStream> {
    let socket = if server.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // What ssh itself would do; through a relay its TCPKeepAlive has no socket to set.
    socket.set_keepalive(true)?;
    socket.bind(SocketAddr::new(local, 0))?;
    socket.connect(server).await
}
