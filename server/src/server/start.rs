//! From what is on disk and in the kernel to a server that can accept.

use super::revoke::without_table;
use super::{Server, ServerSettings, Unwritten};
use crate::clock::Clock;
use crate::config::Paths;
use crate::engine::{EndReason, Engine, Event, Grant, Now};
use crate::kernel::{BlockedConnections, Kernel, KernelError};
use crate::observers::Observers;
use crate::store::{Recovery, Store, StoreError, StoreOpenError};
use oneknock_shared::knock::Timestamp;

/// Why a server cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state cannot be used at all.
    #[error(transparent)]
    State(#[from] StoreOpenError),
    /// The state cannot be written.
    #[error("cannot write the state: {0}")]
    Store(#[from] StoreError),
    /// The kernel does not say what the guard holds.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// A server, and what its state was like.
pub struct Opened {
    /// The server.
    pub server: Server,
    /// Why there was no state that could be read: nothing may be accepted until the clock is
    /// synchronized and [`Server::start_after_state_loss`] was called.
    pub lost: Option<String>,
    /// Until when nothing is accepted, since the machine stopped without warning.
    pub floor: Option<Timestamp>,
    /// The grants of the last run whose keys have no right to them any more.
    pub ended: Vec<Grant>,
}

impl Server {
    /// Reads the state and begins a run with it. The guard is in the kernel's hands already:
    /// nothing is changed there.
    pub fn open(
        paths: Paths,
        settings: ServerSettings,
        clock: Clock,
        mut kernel: Kernel,
        observers: Observers,
    ) -> Result<Opened, OpenError> {
        let now = clock.now();
        let (mut store, recovery) = Store::open(&paths.state(), now)?;
        store.set_history_retention(settings.config.history);
        let mut engine = Engine::new(settings.rules(), now);
        let (lost, floor, ended) = match recovery {
            Recovery::State {
                state,
                floor,
                ended,
            } => {
                engine.load(state, now);
                (None, floor, ended)
            }
            Recovery::Nothing(why) => (Some(why), None, Vec::new()),
        };
        let mut blocked = BlockedConnections::default();
        blocked.load(now.mono, &without_table(kernel.blocked())?);
        let mut server = Self {
            clock,
            paths,
            settings,
            engine,
            kernel,
            observers,
            store,
            blocked,
            prefilter_open: false,
            batch: Vec::new(),
            sync_error: None,
            unwritten: Unwritten::default(),
            unwritten_error: None,
            store_error: None,
            log_trouble: None,
            journal_trouble: None,
            journal_loss: None,
            told: Vec::new(),
        };
        let mut revoked = Vec::new();
        if lost.is_none() {
            server.begin(floor, now)?;
            let ended = ended.into_iter();
            let ended = ended.map(|(grant, why)| Event::Ended { grant, why });
            server.record_and_tell(now, ended.collect());
            let events: Vec<Event> = server.engine.drain_events().collect();
            revoked.extend(events.iter().filter_map(|event| match event {
                Event::Ended {
                    grant,
                    why: EndReason::KeyChanged,
                } => Some(grant.clone()),
                _ => None,
            }));
            server.record_and_tell(now, events);
        }
        Ok(Opened {
            server,
            lost,
            floor,
            ended: revoked,
        })
    }

    /// Begins the run: nothing that is not later than `floor` is accepted in it.
    fn begin(&mut self, floor: Option<Timestamp>, now: Now) -> Result<(), StoreError> {
        if let Some(floor) = floor {
            self.engine.raise_floors(floor);
        }
        let mark = floor.unwrap_or(Timestamp(0));
        self.store.begin(&self.engine.snapshot(now), mark, now)
    }

    /// The clock is right, and the state was lost: what was made before now is refused, since
    /// it may have been accepted before. Returns for how many seconds nothing is accepted.
    pub fn start_after_state_loss(&mut self, now: Now) -> Result<u64, StoreError> {
        let skew = u64::try_from(self.settings.config.skew.as_millis()).unwrap_or(u64::MAX);
        let floor = Timestamp(now.wall.0.saturating_add(skew));
        self.begin(Some(floor), now)?;
        Ok(skew.div_ceil(1000))
    }

    /// Applies the settings, whose guard is in the kernel already, to the engine.
    pub fn reconfigure(&mut self, now: Now) {
        self.engine.reconfigure(self.settings.rules(), now);
        self.checkpoint();
        self.carry_out(now);
    }

    /// Has the log hold what no packet says: floors of keys that were just loaded.
    fn checkpoint(&mut self) {
        let floors = self.engine.floors_without_record();
        let raised = self.store.raise_floors(&floors);
        self.note_store(raised);
    }
}
