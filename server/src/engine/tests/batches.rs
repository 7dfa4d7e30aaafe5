//! Packets that are judged, recorded and committed together; and what the store fails.

use super::*;

#[test]
fn spend_opens_nothing_before_it_is_committed() {
    let mut site = Site::new();
    let packet = site.packet(0, |_| ());
    let spend = site.spend(&packet);
    assert!(site.grants().is_empty());
    assert_eq!(*site.engine.desired(), Desired::default());
    assert!(site.events().is_empty());
    assert_eq!(site.send(&packet), "replayed");
    assert_eq!(site.commit(&[spend]), ["ssh 192.0.2.7 laptop 30"]);
}

#[test]
fn packet_that_the_store_failed_opens_nothing_and_is_spent() {
    let mut site = Site::new();
    site.knock(0, ask(60));
    let packet = site.packet(0, |knock| {
        ask(600)(knock);
        sign(LAPTOP)(knock);
    });
    let spend = site.spend(&packet);
    site.engine.reject(&[spend], Reason::StoreError);
    let events: Vec<Event> = site.engine.drain_events().collect();
    let want = Event::Rejected(Rejection {
        key: Arc::clone(&site.rules.keys[0].name),
        source: LAPTOP.into(),
        service: "ssh".parse().ok(),
        authenticated: false,
        reason: Reason::StoreError,
    });
    assert_eq!(events, [want]);
    assert_eq!(site.allowed(), ["ssh 192.0.2.7 laptop 60"]);
    assert_eq!(site.send(&packet), "replayed");
}

#[test]
fn close_that_the_store_failed_holds_nothing_back() {
    let mut site = Site::new();
    let (held, close) = (site.packet(0, |_| ()), site.packet(0, close));
    let spend = site.spend(&close);
    site.engine.reject(&[spend], Reason::StoreError);
    site.events();
    assert_eq!(site.send(&held), "ssh 192.0.2.7 laptop 30");
}

#[test]
fn packets_of_a_batch_are_committed_in_their_order() {
    let mut site = Site::edited(|key| key.max_grants = 1);
    let mut batch = Vec::new();
    for (last, edit) in [
        (1, open as fn(&mut Knock)),
        (2, open),
        (1, close),
        (2, open),
    ] {
        let packet = site.packet(0, edit);
        let now = site.now();
        let from = IpAddr::from([198, 51, 100, last]);
        batch.push(site.engine.judge(now, from, &packet).unwrap());
        site.pass(1);
    }
    let want = ["ssh", "grant-limit", "ssh", "ssh"];
    let is = site.commit(&batch);
    let is: Vec<&str> = is
        .iter()
        .map(|text| text.split(' ').next().unwrap())
        .collect();
    assert_eq!(is, want);
    assert_eq!(site.grants(), ["ssh 198.51.100.2 laptop 30"]);
}

fn open(knock: &mut Knock) {
    ask(30)(knock);
}

#[test]
fn key_removed_between_judge_and_commit_opens_nothing() {
    let mut site = Site::new();
    let packet = site.packet(0, |_| ());
    let spend = site.spend(&packet);
    let (now, name) = (site.now(), Arc::clone(&spend.key));
    site.engine.drop_key(now, &name);
    assert_eq!(site.commit(&[spend]), ["expired"]);
    assert!(site.grants().is_empty());
}

#[test]
fn generation_ended_between_judge_and_commit_opens_nothing() {
    let mut site = Site::edited(|key| key.generations[0].not_after = Some(Timestamp(T0)));
    let packet = site.packet(0, |_| ());
    let spend = site.spend(&packet);
    site.pass(1);
    assert_eq!(site.commit(&[spend]), ["expired"]);
}
