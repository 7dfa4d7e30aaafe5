mod codec;
mod damage;
mod disk;
mod kills;
mod mark;
mod model;
mod permissions;
mod restarts;
mod rotation;

use super::boot::BootId;
use super::codec::RECORD_LEN;
use super::record::MarkNote;
use super::*;
use crate::engine::{EndReason, Grant, Source, Target};
use oneknock_shared::knock::Action;
use oneknock_shared::packet::PacketId;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

pub(super) const T0: u64 = 1_800_000_000_000;
pub(super) const NOWHERE: Timestamp = Timestamp(0);

pub(super) fn me() -> Owner {
    Owner {
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
    }
}

pub(super) fn at(ms: u64) -> Timestamp {
    Timestamp(T0 + ms)
}

/// So many seconds after the beginning.
pub(super) fn after(seconds: u64) -> Now {
    Now {
        wall: at(seconds * 1000),
        mono: Duration::from_secs(1000 + seconds),
    }
}

pub(super) fn id(number: u64) -> PacketId {
    let digest = ring::digest::digest(&ring::digest::SHA256, &number.to_be_bytes());
    PacketId(digest.as_ref().try_into().unwrap())
}

pub(super) fn generation(number: u8) -> GenerationId {
    GenerationId([number; 16])
}

/// An open by the laptop's generation 7, unlike those of other numbers.
pub(super) fn open(number: u64, at: Timestamp) -> Spend {
    Spend {
        key: Arc::new("laptop".parse().unwrap()),
        generation: generation(7),
        number: 7,
        at,
        id: id(number),
        from: [192, 0, 2, 7].into(),
        source: Source::of([192, 0, 2, 7].into()),
        is_signed: false,
        action: Action::Open { seconds: 60 },
        service: Some("ssh".parse().unwrap()),
    }
}

pub(super) fn close(number: u64, at: Timestamp) -> Spend {
    Spend {
        action: Action::Close,
        ..open(number, at)
    }
}

/// What an open of ssh makes at this time, for so many seconds.
pub(super) fn grant(now: Now, seconds: u64) -> Grant {
    let spend = open(0, now.wall);
    Grant {
        key: spend.key,
        generation: spend.generation,
        number: spend.number,
        target: Target {
            service: "ssh".parse().unwrap(),
            source: spend.source,
        },
        opened: now.wall,
        until: now.mono + Duration::from_secs(seconds),
    }
}

pub(super) fn granted(grant: &Grant, now: Now) -> Event {
    Event::Granted {
        grant: grant.clone(),
        time: grant.until.saturating_sub(now.mono),
        renewed: false,
        from: [192, 0, 2, 7].into(),
    }
}

/// The same for another source.
pub(super) fn to(grant: &Grant, source: &str) -> Grant {
    let source: Source = source.parse().unwrap();
    Grant {
        target: Target {
            source,
            ..grant.target
        },
        ..grant.clone()
    }
}

/// Opens a store that no other has open.
pub(super) fn open_store(path: &Path, now: Now) -> (Store, Recovery) {
    let start = Instant::now();
    loop {
        match Store::open(path, now) {
            // A process that another test is just starting has the lock a moment longer.
            Err(StoreOpenError::Locked(_)) if start.elapsed() < Duration::from_secs(60) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            opened => return opened.unwrap(),
        }
    }
}

/// A state directory.
pub(super) struct Site {
    pub dir: tempfile::TempDir,
    pub path: PathBuf,
}

impl Site {
    pub fn new() -> Self {
        Self::within(tempfile::tempdir().unwrap())
    }

    /// As [`Site::new`], without a disk to wait for: where many are killed.
    pub fn in_memory() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self::within(dir.unwrap())
    }

    fn within(dir: tempfile::TempDir) -> Self {
        let path = dir.path().join("state");
        Store::create(&path, me()).unwrap();
        Self { dir, path }
    }

    pub fn directory(&self) -> StateDirectory {
        StateDirectory::at(&self.path).unwrap()
    }

    pub fn open(&self, now: Now) -> (Store, Recovery) {
        open_store(&self.path, now)
    }

    /// As the daemon starts: with the state as it was found, and the floors raised.
    pub fn start(&self, now: Now) -> (Store, State) {
        let (mut store, recovery) = self.open(now);
        let Recovery::State {
            mut state, floor, ..
        } = recovery
        else {
            panic!("{recovery:?}")
        };
        if let Some(floor) = floor {
            let known = state.seen.iter().map(|(generation, ..)| *generation);
            let known = known
                .chain([generation(7)])
                .chain(state.floors.iter().map(|f| f.0));
            let known: BTreeSet<_> = known.collect();
            state.floors = known.into_iter().map(|id| (id, floor)).collect();
            state.default_floor = state.default_floor.max(Some(floor));
            state.seen.clear();
        }
        store.begin(&state, floor.unwrap_or(NOWHERE), now).unwrap();
        (store, state)
    }

    /// What the next start would find.
    pub fn found(&self, now: Now) -> Recovery {
        self.open(now).1
    }

    pub fn state(&self, now: Now) -> State {
        match self.found(now) {
            Recovery::State { state, .. } => state,
            Recovery::Nothing(why) => panic!("{why}"),
        }
    }

    pub fn nothing(&self, now: Now) -> String {
        match self.found(now) {
            Recovery::Nothing(why) => why,
            Recovery::State { state, .. } => panic!("{state:?}"),
        }
    }

    pub fn segments(&self) -> BTreeSet<u32> {
        self.directory().segments().unwrap()
    }

    /// The last segment that has records after its state, or else the last one.
    pub fn current(&self) -> PathBuf {
        let directory = self.directory();
        let segments = self.segments();
        let paths = segments
            .iter()
            .rev()
            .map(|number| directory.segment(*number));
        let is_used = |path: &PathBuf| used(&fs::read(path).unwrap()) > start(path);
        let last = paths.clone().find(is_used).or(paths.clone().next());
        last.unwrap()
    }

    /// What another boot of the machine finds in the mark.
    pub fn reboot(&self) {
        let path = self.path.join("mark");
        let note = super::mark::read(&fs::read(&path).unwrap()).unwrap();
        let boot = BootId([7; 16]);
        fs::write(&path, super::mark::page(MarkNote { boot, ..note })).unwrap();
    }
}

/// Where the state ends that a segment begins with.
pub(super) fn start(segment: &Path) -> usize {
    let bytes = fs::read(segment).unwrap();
    let header = super::codec::decode_header(&bytes[..RECORD_LEN]).unwrap();
    (header.state as usize + 1) * RECORD_LEN
}

/// The end of what was written.
pub(super) fn used(bytes: &[u8]) -> usize {
    let blank = [0; 4096];
    let chunks = bytes.rchunks(blank.len());
    let zeros = chunks.take_while(|chunk| **chunk == blank[..chunk.len()]);
    let rest = bytes.len() - zeros.map(<[u8]>::len).sum::<usize>();
    bytes[..rest]
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1)
}

pub(super) fn spend_one(store: &mut Store, spend: &Spend, now: Now) -> bool {
    store.spend(std::slice::from_ref(spend), now).unwrap()[0]
}

/// Goes on in a new segment.
pub(super) fn rotate(store: &mut Store, state: &State, now: Now) {
    goes_on(store, now);
    store.rotate(state.clone(), now).unwrap();
    goes_on(store, now);
}

/// Waits until the segment that is being made, if any, is in use.
pub(super) fn goes_on(store: &mut Store, now: Now) {
    let start = Instant::now();
    while store.run.as_ref().unwrap().is_asked {
        store.note(&[], now).unwrap();
        let status = store.status();
        assert!(start.elapsed() < Duration::from_secs(60), "{status:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the log's thread has done this.
pub(super) fn until(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(1));
    }
}
