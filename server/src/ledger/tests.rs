use super::lease::PAGE;
use super::*;
use crate::config::{Config, Generation, Key, Policy, Service, Settings};
use crate::gate::{Gate, Place, Verdict};
use oneknock_shared::knock::{Action, Knock};
use oneknock_shared::packet::seal;
use oneknock_shared::secret::{Secret, ServerId, Subkeys, random};

const T0: u64 = 1_800_000_000_000;
const DAY: Duration = Duration::from_secs(86_400);

/// A state's folder, and a gate that feeds it.
struct Site {
    _dir: tempfile::TempDir,
    folder: PathBuf,
    settings: Settings,
    now: Now,
}

fn me() -> Owner {
    Owner {
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
    }
}

/// As the daemon tidies, until there is nothing more.
fn tidy(ledger: &mut Ledger, gate: &mut Gate, now: Now) -> usize {
    let mut more = || ledger.tidy(&gate.forgotten(now), DAY, now).unwrap();
    std::iter::repeat_with(&mut more)
        .take_while(|more| *more)
        .count()
}

fn count(ledger: &Ledger, table: &str) -> i64 {
    let count = format!("SELECT count(*) FROM {table}");
    let count = ledger.database.query_row(&count, [], |row| row.get(0));
    count.unwrap()
}

fn key(name: &str) -> Key {
    Key {
        name: name.parse().unwrap(),
        policy: Policy::new(vec!["ssh".parse().unwrap()]),
        generations: vec![Generation {
            number: 7,
            secret: Secret::generate().unwrap(),
            not_before: None,
            not_after: None,
            overlap_until: None,
            made: None,
        }],
    }
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("state");
        Ledger::create(&folder, me()).unwrap();
        let (name, host) = ("home".parse().unwrap(), "home.test".parse().unwrap());
        let id = ServerId::generate().unwrap();
        let mut config = Config::new(name, host, 45123, id, folder.clone());
        let ports = vec!["tcp/22".parse().unwrap()];
        config
            .services
            .push(Service::new("ssh".parse().unwrap(), ports));
        let settings = Settings {
            config,
            keys: vec![key("laptop"), key("phone")],
        };
        let now = Now {
            wall: Timestamp(T0),
            mono: Duration::from_secs(1000),
        };
        Self {
            _dir: dir,
            folder,
            settings,
            now,
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now.wall.0 += seconds * 1000;
        self.now.mono += Duration::from_secs(seconds);
    }

    /// Starts as the daemon does.
    fn start(&self) -> (Ledger, Gate, Found) {
        let (mut ledger, found) = Ledger::open(&self.folder, self.now).unwrap();
        let mut gate = Gate::new(&self.settings, self.now);
        if let Found::State { memory, floor } = &found {
            gate.restore(memory);
            gate.resume(self.now, &memory.claims);
            if let Some(floor) = floor {
                gate.raise_floors(*floor);
            }
            let floor = floor.unwrap_or(Timestamp(0));
            ledger.begin(&gate.forgotten(self.now), floor).unwrap();
        }
        (ledger, gate, found)
    }

    fn packet(&self, key: usize, action: Action) -> Vec<u8> {
        let secret = &self.settings.keys[key].generations[0].secret;
        let knock = Knock {
            action,
            timestamp: self.now.wall,
            address: None,
            service: None,
        };
        let subkeys = Subkeys::derive(secret, &self.settings.config.server_id);
        seal(&subkeys, &knock, random().unwrap()).to_vec()
    }

    fn open(&self, seconds: u16) -> Vec<u8> {
        self.packet(0, Action::Open { seconds })
    }

    fn knock(&self, gate: &mut Gate, ledger: &mut Ledger, packet: &[u8]) -> bool {
        match gate.handle(self.now, [192, 0, 2, 7].into(), packet) {
            Verdict::Accepted(accepted) => {
                ledger.record(&[accepted], self.now).unwrap();
                true
            }
            _ => false,
        }
    }

    fn history(&self) -> Vec<String> {
        let entries = history(&self.folder, None, Timestamp(0)).unwrap();
        let line = |e: &Entry| {
            let after = |at: Timestamp| (at.0 - T0) / 1000;
            let (opened, ended) = (after(e.opened), after(e.ended));
            format!(
                "{} {} {opened}-{ended} {} x{}",
                e.key, e.service, e.how, e.knocks
            )
        };
        entries.iter().map(line).collect()
    }

    /// What a power cut does to the note: another boot.
    fn cut_power(&self) {
        let path = self.folder.join("lease");
        let note = fs::read_to_string(&path).unwrap();
        let page = |page: &str| {
            let lines: Vec<&str> = page.lines().collect();
            let Some([_, number, until, _, state, _]) = lines.first_chunk() else {
                return page.to_owned();
            };
            let (number, until) = (number.parse().unwrap(), until.parse().unwrap());
            let clean = *state == "clean";
            lease::text(number, Timestamp(until), "another-boot", clean)
        };
        let (first, second) = note.split_at_checked(PAGE).unwrap_or((&note, ""));
        let whole = format!("{:\0<2$}{}", page(first), page(second), PAGE);
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn a_new_state_forbids_nothing() {
    let (_, _, found) = Site::new().start();
    let memory = Memory::default();
    assert_eq!(
        found,
        Found::State {
            memory,
            floor: None
        }
    );
}

#[test]
fn after_a_kill_what_was_accepted_is_refused_and_a_fresh_knock_is_not() {
    let site = Site::new();
    let packet = site.open(0);
    let (mut ledger, mut gate, _) = site.start();
    assert!(site.knock(&mut gate, &mut ledger, &packet));
    drop(ledger);
    let (mut ledger, mut gate, found) = site.start();
    assert!(matches!(found, Found::State { floor: None, .. }));
    assert!(!site.knock(&mut gate, &mut ledger, &packet));
    assert!(site.knock(&mut gate, &mut ledger, &site.open(0)));
}

#[test]
fn after_a_clean_stop_the_same() {
    let site = Site::new();
    let packet = site.open(0);
    let (mut ledger, mut gate, _) = site.start();
    assert!(site.knock(&mut gate, &mut ledger, &packet));
    ledger.close().unwrap();
    site.cut_power();
    let (mut ledger, mut gate, found) = site.start();
    assert!(matches!(found, Found::State { floor: None, .. }));
    assert!(!site.knock(&mut gate, &mut ledger, &packet));
    assert!(site.knock(&mut gate, &mut ledger, &site.open(0)));
}

#[test]
fn after_a_power_cut_the_lease_is_the_floor_although_the_last_commits_are_gone() {
    let mut site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    let (first, last) = (site.open(0), {
        site.pass(3);
        site.open(0)
    });
    for packet in [&first, &last] {
        assert!(site.knock(&mut gate, &mut ledger, packet));
    }
    drop(ledger);
    fs::remove_file(site.folder.join("ledger.db-wal")).ok();
    site.cut_power();
    let (mut ledger, mut gate, found) = site.start();
    let lease = Timestamp(T0 + 3_000 + 5_000);
    assert!(matches!(found, Found::State { floor: Some(floor), .. } if floor <= lease));
    for packet in [&first, &last] {
        assert!(!site.knock(&mut gate, &mut ledger, packet));
    }
    site.pass(6);
    assert!(site.knock(&mut gate, &mut ledger, &site.open(0)));
    // The floor outlives the next start of the same boot.
    drop(ledger);
    let (mut ledger, mut gate, _) = site.start();
    assert!(!site.knock(&mut gate, &mut ledger, &last));
}

#[test]
fn a_missing_or_damaged_state_is_never_taken_for_an_empty_one() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 7] = [
        ("ledger.db is missing", |f| {
            fs::remove_file(f.join("ledger.db")).unwrap();
        }),
        ("lease is missing", |f| {
            fs::remove_file(f.join("lease")).unwrap();
        }),
        ("lease is damaged", |f| {
            fs::write(f.join("lease"), "oneknock lease 3\n12").unwrap();
        }),
        ("ledger.db is damaged", |f| {
            fs::write(f.join("ledger.db"), "").unwrap();
        }),
        ("ledger.db is damaged", |f| {
            let mut bytes = fs::read(f.join("ledger.db")).unwrap();
            for byte in &mut bytes[4096..] {
                *byte = 0x55;
            }
            fs::write(f.join("ledger.db"), bytes).unwrap();
        }),
        ("ledger.db is damaged", |f| {
            let db = Connection::open(f.join("ledger.db")).unwrap();
            db.pragma_update(None, "user_version", 3).unwrap();
        }),
        ("ledger.db is damaged", |f| {
            let db = Connection::open(f.join("ledger.db")).unwrap();
            db.execute_batch("INSERT INTO closed VALUES ('../x', 'ssh', '192.0.2.7', 5)")
                .unwrap();
        }),
    ];
    for (what, harm) in harms {
        let site = Site::new();
        let (mut ledger, mut gate, _) = site.start();
        assert!(site.knock(&mut gate, &mut ledger, &site.open(0)));
        ledger.close().unwrap();
        harm(&site.folder);
        // Nor by the next start, after a stop before anything was begun.
        for first in [true, false] {
            let (ledger, _, found) = site.start();
            let Found::Nothing(why) = found else {
                panic!("{what}: {found:?}")
            };
            assert!(why.starts_with(what) || !first, "{what}: {why}");
            ledger.close().unwrap();
        }
        if what.starts_with("ledger.db is damaged") {
            assert!(site.folder.join("ledger.db.damaged").exists());
        }
    }
}

#[test]
fn what_is_forgotten_leaves_its_floor() {
    let mut site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    let packet = site.open(0);
    assert!(site.knock(&mut gate, &mut ledger, &packet));
    site.pass(100);
    gate.tick(site.now);
    tidy(&mut ledger, &mut gate, site.now);
    drop(ledger);
    // The clock goes back while no daemon runs.
    site.now.wall = Timestamp(T0);
    let (mut ledger, mut gate, found) = site.start();
    let Found::State { memory, .. } = found else {
        panic!()
    };
    assert!(
        memory.seen.is_empty() && memory.floors.len() == 1,
        "{memory:?}"
    );
    assert!(!site.knock(&mut gate, &mut ledger, &packet));
    site.pass(1);
    assert!(site.knock(&mut gate, &mut ledger, &site.open(0)));
}

#[test]
fn what_has_become_much_goes_in_portions() {
    let mut site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120)
        INSERT INTO claim SELECT 'phone', 'ssh', '192.0.2.' || i, 1, 1, ?1, ?1, 1, 1 FROM n";
    assert!(site.knock(&mut gate, &mut ledger, &site.open(1)));
    ledger.database.execute(many, [T0.cast_signed()]).unwrap();
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 170)
        INSERT INTO accepted SELECT ?1, randomblob(32), 1 FROM n";
    ledger.database.execute(many, [T0.cast_signed()]).unwrap();
    site.pass(100);
    assert_eq!(count(&ledger, "claim"), 121);
    assert_eq!(count(&ledger, "accepted"), 171);
    assert_eq!(tidy(&mut ledger, &mut gate, site.now), 3);
    assert_eq!(count(&ledger, "claim"), 0);
    assert_eq!(count(&ledger, "accepted"), 0);
    assert_eq!(count(&ledger, "history"), 121);
}

#[test]
fn a_close_holds_across_a_restart() {
    let mut site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    let held_back = site.open(0);
    site.pass(1);
    assert!(site.knock(&mut gate, &mut ledger, &site.packet(0, Action::Close)));
    drop(ledger);
    let (mut ledger, mut gate, _) = site.start();
    assert!(!site.knock(&mut gate, &mut ledger, &held_back));
}

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
fn what_a_renewed_database_has_already_is_recorded_again_without_harm() {
    let site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    let packet = site.open(60);
    let verdict = gate.handle(site.now, [192, 0, 2, 7].into(), &packet);
    let Verdict::Accepted(accepted) = verdict else {
        panic!("{verdict:?}")
    };
    ledger.renew(&gate.memory(), site.now).unwrap();
    ledger.record(&[accepted], site.now).unwrap();
    drop(ledger);
    let (mut ledger, mut gate, _) = site.start();
    assert!(!site.knock(&mut gate, &mut ledger, &packet));
}

#[test]
fn a_damaged_database_is_renewed_while_the_daemon_runs() {
    let mut site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    let old = site.open(0);
    assert!(site.knock(&mut gate, &mut ledger, &old));
    site.pass(100);
    gate.tick(site.now);
    let recent = site.open(60);
    assert!(site.knock(&mut gate, &mut ledger, &recent));
    let before = gate.memory();
    let aside = ledger.renew(&before, site.now).unwrap();
    assert!(site.folder.join(aside).exists());
    drop(ledger);
    site.now.wall = Timestamp(T0);
    let (mut ledger, mut gate, found) = site.start();
    let Found::State {
        memory,
        floor: None,
    } = found
    else {
        panic!()
    };
    assert_eq!(memory, before);
    for packet in [&old, &recent] {
        assert!(!site.knock(&mut gate, &mut ledger, packet));
    }
}

#[test]
fn one_daemon_at_a_time() {
    let site = Site::new();
    let _first = Ledger::open(&site.folder, site.now).unwrap();
    let second = Ledger::open(&site.folder, site.now);
    assert!(matches!(second, Err(Unusable::Locked(_))));
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
fn what_is_written_of_a_generation_gives_its_secret_not_away() {
    let site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    assert!(site.knock(&mut gate, &mut ledger, &site.open(60)));
    let secret = &site.settings.keys[0].generations[0].secret;
    let text = secret.to_base64();
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, &*text).unwrap();
    let mut files = 0;
    for file in fs::read_dir(&site.folder).unwrap() {
        let content = fs::read(file.unwrap().path()).unwrap();
        files += 1;
        for needle in [&bytes[..8], text.as_bytes()] {
            let found = content.windows(needle.len()).any(|window| window == needle);
            assert!(!found);
        }
    }
    assert!(files >= 3, "{files}");
}

#[test]
fn what_a_first_use_brings_forward_is_there_after_a_kill_and_in_a_new_database() {
    let mut site = Site::new();
    let end = Timestamp(T0 + 1_000_000_000);
    site.settings.keys[0].generations[0].not_after = Some(end);
    let newer = Generation::generate(8, site.now.wall).unwrap();
    // In front: `packet` seals with the first.
    site.settings.keys[0].generations.insert(0, newer);
    let (mut ledger, mut gate, _) = site.start();
    assert!(site.knock(&mut gate, &mut ledger, &site.open(60)));
    let want = site.now.wall.0 + 24 * 3600 * 1000;
    let retires = |memory: &Memory| {
        memory
            .retires
            .iter()
            .map(|(_, at)| at.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(retires(&gate.memory()), [want]);
    ledger.renew(&gate.memory(), site.now).unwrap();
    drop(ledger);
    let (_ledger, gate, _) = site.start();
    assert_eq!(retires(&gate.memory()), [want]);
    let known = uses::read(&site.folder).unwrap();
    assert!(
        known
            .values()
            .any(|known| known.retires == Some(Timestamp(want)))
    );
}

#[test]
fn a_ledger_of_version_1_is_taken_up() {
    let site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    let packet = site.open(60);
    assert!(site.knock(&mut gate, &mut ledger, &packet));
    ledger.close().unwrap();
    let database = Connection::open(site.folder.join(FILE)).unwrap();
    let old = "ALTER TABLE generation DROP COLUMN retires; PRAGMA user_version = 1";
    database.execute_batch(old).unwrap();
    drop(database);
    let (mut ledger, mut gate, found) = site.start();
    assert!(matches!(found, Found::State { .. }), "{found:?}");
    assert!(!site.knock(&mut gate, &mut ledger, &packet));
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

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// A state that was begun and left cleanly.
fn left_cleanly() -> Site {
    let site = Site::new();
    let (mut ledger, _) = Ledger::open(&site.folder, site.now).unwrap();
    let nothing = Gate::new(&site.settings, site.now).forgotten(site.now);
    ledger.begin(&nothing, Timestamp(0)).unwrap();
    ledger.close().unwrap();
    site
}

#[test]
fn what_others_could_only_read_is_made_private_and_counts() {
    let site = left_cleanly();
    for (name, loose, wanted) in [
        ("", 0o755, 0o700),
        ("lease", 0o644, 0o600),
        (FILE, 0o640, 0o600),
    ] {
        let path = site.folder.join(name);
        set_mode(&path, loose);
        let (ledger, found) = Ledger::open(&site.folder, site.now).unwrap();
        assert!(matches!(found, Found::State { .. }), "{name}: {found:?}");
        assert_eq!(ledger.was_loose().len(), 1, "{name}");
        assert_eq!(mode(&path), wanted, "{name}");
    }
}

#[test]
fn what_others_could_write_is_no_state() {
    for (name, loose, says) in [
        ("", 0o777, "ledger.db is damaged (not to be trusted"),
        (
            "lease",
            0o666,
            "lease is not trusted: others may write it (mode 0666)",
        ),
        (
            FILE,
            0o620,
            "ledger.db is damaged (not to be trusted: others may write it (mode 0620))",
        ),
    ] {
        let site = left_cleanly();
        let path = site.folder.join(name);
        set_mode(&path, loose);
        let (ledger, found) = Ledger::open(&site.folder, site.now).unwrap();
        let Found::Nothing(why) = found else {
            panic!("{name}: {found:?}");
        };
        assert!(why.starts_with(says), "{name}: {why}");
        drop(ledger);
        assert_eq!(mode(&site.folder), 0o700, "{name}");
        // Nor is it one the next time, before a run has begun.
        let (_, found) = Ledger::open(&site.folder, site.now).unwrap();
        assert!(matches!(found, Found::Nothing(_)), "{name}: {found:?}");
    }
}

#[test]
fn a_link_in_the_databases_place_leads_nowhere() {
    let site = Site::new();
    let (there, away) = (site.folder.join(FILE), site.folder.join("away"));
    fs::rename(&there, &away).unwrap();
    std::os::unix::fs::symlink(&away, &there).unwrap();
    assert!(history(&site.folder, None, Timestamp(0)).is_err());
    assert!(uses(&site.folder).is_err());
    fs::remove_file(&there).unwrap();
    fs::rename(&away, &there).unwrap();
    // The folder itself may be one.
    let link = site.folder.with_file_name("link");
    std::os::unix::fs::symlink(&site.folder, &link).unwrap();
    assert!(history(&link, None, Timestamp(0)).unwrap().is_empty());
}

#[test]
fn an_end_that_no_ledger_writes_is_no_history() {
    let site = Site::new();
    let lie = Connection::open(site.folder.join(FILE)).unwrap();
    lie.pragma_update(None, "ignore_check_constraints", true)
        .unwrap();
    let row = "INSERT INTO history (key, service, address, number, opened, ended, how, knocks)
        VALUES ('laptop', 'ssh', '192.0.2.7', 1, 1, 2, char(27) || '[2J', 1)";
    lie.execute(row, []).unwrap();
    assert!(history(&site.folder, None, Timestamp(0)).is_err());
}
