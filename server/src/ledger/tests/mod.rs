mod claims;
mod damage;
mod restarts;

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
