//! Claims across restarts, and the history.

use super::*;

#[test]
fn claims_of_two_keys_on_one_address_survive_a_restart() {
    let site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    let phone = site.packet(1, Action::Open { seconds: 600 });
    assert!(site.knock(&mut gate, &mut ledger, &site.open(60)));
    assert!(site.knock(&mut gate, &mut ledger, &phone));
    drop(ledger);
    let (_, gate, _) = site.start();
    let claims = gate.memory().claims;
    let left = |c: &crate::gate::Claim| {
        let left = c.until.saturating_sub(site.now.mono);
        (c.key.to_string(), left.as_secs())
    };
    let mut claims: Vec<_> = claims.iter().map(left).collect();
    claims.sort();
    assert_eq!(claims, [("laptop".into(), 60), ("phone".into(), 600)]);
}

#[test]
fn another_key_under_an_old_name_inherits_no_claim_across_a_restart() {
    let mut site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    assert!(site.knock(&mut gate, &mut ledger, &site.open(60)));
    drop(ledger);
    site.settings.keys[0] = key("laptop");
    let (_, found) = Ledger::open(&site.folder, site.now).unwrap();
    let Found::State { memory, .. } = found else {
        panic!()
    };
    let mut gate = Gate::new(&site.settings, site.now);
    let lost = gate.resume(site.now, &memory.claims);
    assert_eq!(lost.claims.len(), 1);
    assert!(gate.memory().claims.is_empty());
}

#[test]
fn claims_end_with_the_machines_run() {
    let site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    assert!(site.knock(&mut gate, &mut ledger, &site.open(60)));
    ledger.close().unwrap();
    site.cut_power();
    let (_ledger, gate, _) = site.start();
    assert!(gate.memory().claims.is_empty());
    assert_eq!(site.history(), ["laptop ssh 0-0 lost x1"]);
}

#[test]
fn the_history_says_who_when_how_long_and_how_it_ended() {
    let mut site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    assert!(site.knock(&mut gate, &mut ledger, &site.open(60)));
    site.pass(10);
    assert!(site.knock(&mut gate, &mut ledger, &site.open(60)));
    assert_eq!(site.history(), ["laptop ssh 0-70 open x2"]);
    // A new grant after the end is a new line, also where nobody tidied between.
    site.pass(100);
    gate.tick(site.now);
    assert!(site.knock(&mut gate, &mut ledger, &site.open(60)));
    site.pass(5);
    assert!(site.knock(&mut gate, &mut ledger, &site.packet(0, Action::Close)));
    site.pass(1);
    assert!(site.knock(&mut gate, &mut ledger, &site.open(60)));
    site.settings.keys.remove(0);
    let lost = gate.reconfigure(&site.settings, site.now);
    ledger.lose(&lost, site.now).unwrap();
    assert_eq!(
        site.history(),
        [
            "laptop ssh 0-70 expired x2",
            "laptop ssh 110-115 closed x1",
            "laptop ssh 116-116 revoked x1",
        ]
    );
}

#[test]
fn the_history_is_kept_for_its_time_and_no_key_fills_it() {
    let mut site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    assert!(site.knock(&mut gate, &mut ledger, &site.open(1)));
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
        INSERT INTO history (key, service, address, number, opened, ended, how, knocks)
        SELECT 'phone', 'ssh', '192.0.2.9', 1, ?1 + i, ?1 + i, 'expired', 1 FROM n";
    ledger.database.execute(many, [T0.cast_signed()]).unwrap();
    site.pass(40);
    tidy(&mut ledger, &mut gate, site.now);
    let of = |name: &str| {
        let key = name.parse().unwrap();
        let rows = history(&site.folder, Some(&key), Timestamp(0));
        rows.unwrap()
            .iter()
            .map(|e| e.ended.0 - T0)
            .collect::<Vec<_>>()
    };
    assert_eq!(of("laptop"), [1000]);
    let phone = of("phone");
    assert_eq!((phone.len(), phone.last()), (20_000, Some(&30_000)));
    site.pass(2 * 86_400);
    tidy(&mut ledger, &mut gate, site.now);
    assert!(site.history().is_empty());
}

#[test]
fn a_packet_that_could_not_be_made_so_is_spent_and_its_claim_as_before() {
    let site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    assert!(site.knock(&mut gate, &mut ledger, &site.open(60)));
    let packet = site.open(600);
    let Verdict::Accepted(accepted) = gate.handle(site.now, [192, 0, 2, 7].into(), &packet) else {
        panic!()
    };
    let batch = [accepted];
    ledger.record(&batch, site.now).unwrap();
    gate.undo(&batch[0]);
    ledger.undo(&batch, site.now).unwrap();
    drop(ledger);
    let (mut ledger, mut gate, found) = site.start();
    let Found::State { memory, .. } = found else {
        panic!()
    };
    assert_eq!(
        memory.claims[0].until,
        site.now.mono + Duration::from_secs(60)
    );
    assert!(!site.knock(&mut gate, &mut ledger, &packet));
}

#[test]
fn a_batch_is_recorded_and_taken_back_as_a_whole() {
    let site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    assert!(site.knock(&mut gate, &mut ledger, &site.open(60)));
    let before = gate.memory().claims;
    // Renewed twice, closed and opened again, all at once.
    let close = site.packet(0, Action::Close);
    let packets = [site.open(600), site.open(700), close];
    let mut batch = Vec::new();
    for packet in &packets {
        let verdict = gate.handle(site.now, [192, 0, 2, 7].into(), packet);
        let Verdict::Accepted(accepted) = verdict else {
            panic!("{verdict:?}")
        };
        batch.push(accepted);
    }
    ledger.record(&batch, site.now).unwrap();
    for accepted in batch.iter().rev() {
        gate.undo(accepted);
    }
    ledger.undo(&batch, site.now).unwrap();
    assert_eq!(gate.memory().claims, before);
    drop(ledger);
    let (mut ledger, mut gate, found) = site.start();
    let Found::State { memory, .. } = found else {
        panic!()
    };
    assert_eq!(memory.claims, before);
    for packet in &packets {
        assert!(!site.knock(&mut gate, &mut ledger, packet));
    }
}

#[test]
fn a_reader_of_the_history_holds_nothing_up() {
    let site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    let reader = Connection::open(site.folder.join("ledger.db")).unwrap();
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM history")
        .unwrap();
    for _ in 0..10 {
        assert!(site.knock(&mut gate, &mut ledger, &site.open(60)));
    }
    // Not all could be moved: no mark of a clean stop.
    ledger.close().unwrap();
    site.cut_power();
    let (_, _, found) = site.start();
    assert!(
        matches!(found, Found::State { floor: Some(_), .. }),
        "{found:?}"
    );
}

#[test]
fn places_are_told_apart() {
    let site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    for address in ["192.0.2.7", "2001:db8::7"] {
        let address = address.parse().unwrap();
        let Verdict::Accepted(accepted) = gate.handle(site.now, address, &site.open(60)) else {
            panic!()
        };
        ledger.record(&[accepted], site.now).unwrap();
    }
    drop(ledger);
    let (_, gate, _) = site.start();
    let claims = gate.memory().claims;
    let mut places: Vec<Place> = claims.iter().map(|c| c.place).collect();
    places.sort();
    let places: Vec<String> = places.iter().map(|p| p.address.to_string()).collect();
    assert_eq!(places, ["192.0.2.7", "2001:db8::7"]);
}

#[test]
fn places_are_those_of_live_grants_and_of_the_history() {
    let mut site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    assert!(site.knock(&mut gate, &mut ledger, &site.open(60)));
    let (laptop, phone): (KeyName, KeyName) = ("laptop".parse().unwrap(), "phone".parse().unwrap());
    let count = |ledger: &Ledger, key, number| ledger.places(key, number, None).unwrap().len();
    assert_eq!(count(&ledger, Some(&laptop), Some(7)), 1);
    site.pass(61);
    let (forgotten, now) = (gate.forgotten(site.now), site.now);
    ledger.tidy(&forgotten, DAY, now).unwrap();
    assert_eq!(count(&ledger, Some(&laptop), None), 1);
    assert_eq!(count(&ledger, None, None), 1);
    assert_eq!(count(&ledger, Some(&laptop), Some(8)), 0);
    assert_eq!(count(&ledger, Some(&phone), None), 0);
    let other = Some([192, 0, 2, 9].into());
    assert!(ledger.places(None, None, other).unwrap().is_empty());
}
