use super::*;

const RIGHT: Binding = Binding::Signed;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn candidate(last: u8, bindings: Bindings) -> Candidate {
    Candidate {
        address: [192, 0, 2, last].into(),
        bindings: Ok(bindings),
        round_trip: None,
    }
}

/// A network in which each knock and each connection does what a test says.
struct World {
    engine: Engine,
    now: Duration,
    /// (when, what) that was sent.
    sent: Vec<(u128, usize, Binding)>,
    connects: Vec<(u128, usize)>,
    events: Vec<(Duration, Event)>,
}

impl World {
    fn new(goal: Goal, proof: Proof, candidates: Vec<Candidate>) -> Self {
        Self {
            engine: Engine::new(goal, proof, ms(10_000), candidates),
            now: Duration::ZERO,
            sent: Vec::new(),
            connects: Vec::new(),
            events: Vec::new(),
        }
    }

    fn one(bindings: Bindings) -> Self {
        Self::new(Goal::Connection, Proof::Ssh, vec![candidate(1, bindings)])
    }

    /// Runs to the end; `answer` says what follows a connection, after how long.
    fn run(&mut self, mut answer: impl FnMut(&Self, usize) -> Vec<(Duration, Event)>) -> Outcome {
        loop {
            match self.engine.next(self.now) {
                Step::Done(outcome) => return outcome,
                Step::Knock { endpoint, binding } => {
                    self.sent.push((self.now.as_millis(), endpoint, binding));
                }
                Step::Connect {
                    endpoint,
                    connection,
                } => {
                    self.connects.push((self.now.as_millis(), endpoint));
                    for (after, event) in answer(self, connection) {
                        self.events.push((self.now + after, event));
                    }
                }
                Step::Wait(until) => {
                    assert!(until > self.now, "it waits for what is over: {until:?}");
                    self.events.sort_by_key(|(at, _)| *at);
                    match self.events.first() {
                        Some((at, _)) if *at <= until => {
                            let (at, event) = self.events.remove(0);
                            self.now = at;
                            self.engine.notice(at, event);
                        }
                        _ => self.now = until,
                    }
                }
            }
        }
    }

    fn knows(&self, binding: Binding) -> bool {
        self.sent.iter().any(|(_, _, sent)| *sent == binding)
    }
}

fn nothing(_: &World, _: usize) -> Vec<(Duration, Event)> {
    Vec::new()
}

/// A handshake and the service's words, each after one round trip.
fn opens(connection: usize, round_trip: u64) -> Vec<(Duration, Event)> {
    vec![
        (ms(round_trip), Event::Connected(connection)),
        (ms(2 * round_trip), Event::Shown(connection)),
    ]
}

#[test]
fn the_first_attempt_is_2_ms_after_the_knock() {
    let mut world = World::one(Bindings::Only(RIGHT));
    let outcome = world.run(|_, connection| opens(connection, 1));
    assert!(matches!(outcome, Outcome::Open { .. }), "{outcome:?}");
    assert_eq!(world.sent, [(0, 0, RIGHT)]);
    assert_eq!(world.connects, [(2, 0)]);
}

#[test]
fn packets_of_both_kinds_go_out_within_a_third_of_a_second() {
    let mut world = World::one(Bindings::Both(Binding::Signed));
    assert_eq!(world.run(nothing), Outcome::NoAnswer);
    let kinds: Vec<(u128, Binding)> = world.sent.iter().map(|s| (s.0, s.2)).collect();
    assert_eq!(
        kinds[..4],
        [
            (0, Binding::Signed),
            (300, Binding::Source),
            (1000, Binding::Signed),
            (2500, Binding::Source)
        ]
    );
}

#[test]
fn a_demanded_signature_is_never_left_out() {
    let mut world = World::one(Bindings::Only(Binding::Signed));
    world.run(nothing);
    assert!(world.sent.len() >= 6, "{:?}", world.sent);
    assert!(!world.knows(Binding::Source));
}

#[test]
fn n1_a_handshake_alone_opens_nothing_and_the_other_packet_follows() {
    // A proxy answers at once; the server admits the proxy once the unsigned packet came.
    let mut world = World::one(Bindings::Both(Binding::Signed));
    let outcome = world.run(|world, connection| {
        let mut all = vec![(ms(1), Event::Connected(connection))];
        if world.knows(Binding::Source) {
            all.push((ms(3), Event::Shown(connection)));
        }
        all
    });
    let Outcome::Open { by, .. } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(by, Some(Binding::Source));
    assert!(world.now < ms(500), "{:?}", world.now);
    // The proxy was asked once for each packet.
    assert_eq!(world.connects.len(), 2);
}

#[test]
fn n2_a_lost_packet_behind_a_proxy_is_followed_by_another() {
    let mut world = World::one(Bindings::Only(Binding::Source));
    let outcome = world.run(|world, connection| {
        let mut all = vec![(ms(1), Event::Connected(connection))];
        if world.sent.len() >= 2 {
            all.push((ms(3), Event::Shown(connection)));
        }
        all
    });
    assert!(matches!(outcome, Outcome::Open { .. }), "{outcome:?}");
    assert!(world.now < ms(1000), "{:?}", world.now);
}

#[test]
fn n4_what_worked_last_goes_first() {
    let mut world = World::one(Bindings::Both(Binding::Source));
    let outcome = world.run(|_, connection| opens(connection, 1));
    assert!(matches!(
        outcome,
        Outcome::Open {
            by: Some(Binding::Source),
            ..
        }
    ));
    assert_eq!(world.sent, [(0, 0, Binding::Source)]);
}

#[test]
fn n6_a_round_trip_of_three_seconds_opens() {
    let mut world = World::one(Bindings::Only(RIGHT));
    let outcome = world.run(|_, connection| opens(connection, 3000));
    let Outcome::Open {
        connection,
        round_trip,
        ..
    } = outcome
    else {
        panic!("{outcome:?}")
    };
    assert_eq!((connection, round_trip), (0, Some(ms(3000))));
}

#[test]
fn n8_no_route_ends_it_at_once() {
    let mut unreachable = candidate(1, Bindings::Only(RIGHT));
    unreachable.bindings = Err("Network is unreachable".into());
    let mut world = World::new(Goal::Connection, Proof::Ssh, vec![unreachable]);
    assert_eq!(world.run(nothing), Outcome::NotSent);
    assert_eq!((world.now, world.sent.len()), (Duration::ZERO, 0));
}

#[test]
fn n11_with_a_known_round_trip_one_attempt_is_under_way() {
    let mut known = candidate(1, Bindings::Only(RIGHT));
    known.round_trip = Some(ms(100));
    let mut world = World::new(Goal::Connection, Proof::Ssh, vec![known]);
    world.run(|_, connection| opens(connection, 100));
    assert_eq!(world.connects, [(2, 0)]);
}

#[test]
fn n11_a_second_address_is_tried_later_than_the_first() {
    let both = vec![
        candidate(1, Bindings::Only(RIGHT)),
        candidate(2, Bindings::Only(RIGHT)),
    ];
    let mut world = World::new(Goal::Connection, Proof::Ssh, both);
    world.run(|_, connection| opens(connection, 1));
    assert_eq!(world.sent.len(), 2);
    assert_eq!(world.connects, [(2, 0)]);
}

#[test]
fn n7_udp_alone_gets_three_packets_and_a_refusal_is_known() {
    let mut world = World::new(
        Goal::Knock,
        Proof::Ssh,
        vec![candidate(1, Bindings::Only(RIGHT))],
    );
    assert_eq!(world.run(nothing), Outcome::Sent);
    let times: Vec<u128> = world.sent.iter().map(|s| s.0).collect();
    assert_eq!(times, [0, 400, 900]);
    assert!(world.connects.is_empty());

    let mut world = World::new(
        Goal::Knock,
        Proof::Ssh,
        vec![candidate(1, Bindings::Only(RIGHT))],
    );
    let refused = Event::KnockRefused {
        endpoint: 0,
        refusal: Refusal::PortUnreachable,
    };
    world.events.push((ms(1), refused));
    assert_eq!(world.run(nothing), Outcome::NoAnswer);
}

#[test]
fn a_port_that_refuses_in_two_rounds_ends_it_by_the_same_packet() {
    let mut world = World::one(Bindings::Both(Binding::Signed));
    let outcome = world.run(|_, connection| vec![(ms(1), Event::PortRefused(connection))]);
    assert_eq!(outcome, Outcome::PortRefused);
    assert!(!world.knows(Binding::Source), "{:?}", world.sent);
    // Until the third round is due it may still come up.
    assert_eq!((world.sent.len(), world.now), (2, ms(1000)));
}

#[test]
fn where_the_knock_is_refused_too_it_was_not_accepted() {
    let mut world = World::one(Bindings::Only(RIGHT));
    let refused = Event::KnockRefused {
        endpoint: 0,
        refusal: Refusal::PortUnreachable,
    };
    world.events.push((ms(1), refused));
    let outcome = world.run(|_, connection| vec![(ms(1), Event::PortRefused(connection))]);
    assert_eq!(outcome, Outcome::NoAnswer);
    let (_, known) = world.engine.endpoints().next().unwrap();
    assert_eq!(
        *known,
        EndpointOutcome::KnockRefused(Refusal::PortUnreachable)
    );
}

#[test]
fn every_address_that_was_knocked_on_has_to_refuse() {
    let both = vec![
        candidate(1, Bindings::Only(RIGHT)),
        candidate(2, Bindings::Only(RIGHT)),
    ];
    let mut world = World::new(Goal::Connection, Proof::Ssh, both);
    let outcome = world.run(|world, connection| match world.connects.last() {
        Some((_, 0)) => vec![(ms(1), Event::PortRefused(connection))],
        _ => Vec::new(),
    });
    assert_eq!(outcome, Outcome::NoAnswer);
}

#[test]
fn rounds_do_not_wait_for_a_service_that_may_say_nothing() {
    let settle = ms(350);
    let mut world = World::new(
        Goal::Connection,
        Proof::Stands(settle),
        vec![candidate(1, Bindings::Both(Binding::Signed))],
    );
    world.run(|_, connection| {
        vec![
            (ms(1), Event::Connected(connection)),
            (ms(1) + settle, Event::Shown(connection)),
        ]
    });
    assert!(world.knows(Binding::Source));
    assert_eq!(world.connects.len(), 1);
}

#[test]
fn attempts_are_never_far_apart_and_all_before_the_end() {
    let mut world = World::one(Bindings::Only(RIGHT));
    world.run(nothing);
    assert!(world.connects.is_sorted());
    assert!(world.connects.windows(2).all(|w| w[1].0 - w[0].0 <= 610));
    assert!(world.connects.iter().all(|(at, _)| *at < 10_000));
}

fn probing() -> World {
    let mut world = World::one(Bindings::Both(Binding::Signed));
    world.engine = Engine::new(
        Goal::Connection,
        Proof::Ssh,
        ms(10_000),
        vec![candidate(1, Bindings::Both(Binding::Signed))],
    )
    .with_probe();
    world
}

#[test]
fn n10_what_stands_while_the_probe_is_silent_was_let_in() {
    let mut world = probing();
    // Before the knock the port is silent; the service takes its time.
    let outcome = world.run(|_, connection| match connection {
        0 => Vec::new(),
        other => vec![
            (Duration::from_micros(200), Event::Connected(other)),
            (ms(30), Event::Shown(other)),
        ],
    });
    assert!(matches!(outcome, Outcome::Open { connection: 1, .. }));
    assert!(world.now < ms(3), "{:?}", world.now);
    assert_eq!(world.connects, [(0, 0), (2, 0)]);
}

#[test]
fn n10_what_answers_the_probe_too_has_to_show_itself() {
    let mut world = probing();
    let outcome = world.run(|world, connection| {
        let mut all = vec![(Duration::from_micros(200), Event::Connected(connection))];
        if world.knows(Binding::Source) {
            all.push((ms(3), Event::Shown(connection)));
        }
        all
    });
    let source = Some(Binding::Source);
    assert!(matches!(outcome, Outcome::Open { by, .. } if by == source));
}

#[test]
fn n10_on_a_long_way_the_probes_silence_proves_nothing() {
    let mut world = probing();
    // Both are answered by something between, and the first answer is lost.
    let outcome = world.run(|_, connection| match connection {
        0 => Vec::new(),
        other => vec![(ms(50), Event::Connected(other))],
    });
    assert_eq!(outcome, Outcome::NoAnswer);
}

#[test]
fn n10_a_port_that_is_open_already_is_knocked_on_too() {
    let mut world = probing();
    let outcome = world.run(|_, connection| opens(connection, 0));
    let open = matches!(
        outcome,
        Outcome::Open {
            connection: 0,
            by: None,
            ..
        }
    );
    assert!(open, "{outcome:?}");
    assert_eq!(world.sent, [(0, 0, Binding::Signed)]);
}
