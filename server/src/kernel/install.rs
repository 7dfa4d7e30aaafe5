//! The guard is installed: in place of whatever is there, in one batch, keeping the sets
//! that stay. Between the old ruleset and the new one there is no moment without either.

use super::error::KernelError;
use super::guard::{Guard, GuardMode, OptionalPart};
use super::netlink::{RefusedBatch, kind};
use super::nftables::Kernel;
use super::plan::Plan;
use super::state::{InstalledTable, TableState, table_flag};
use crate::engine::{Desired, Now};
use nix::errno::Errno;

/// What [`Kernel::install`] has done.
#[derive(Debug)]
pub struct Installed {
    /// What was there before; `None` where there was no table.
    pub before: Option<InstalledTable>,
    /// Whether the kernel keeps other programs off the table from now on.
    pub exclusive: bool,
    /// Parts besides the guard itself that this kernel cannot have, each with the reason.
    /// The guard holds without them: it costs more against floods without the prefilter,
    /// and the port sequence opens nothing.
    pub skipped: Vec<(OptionalPart, KernelError)>,
}

/// How often an install is tried when another program changes the table at the same moment.
const MAX_RACES: usize = 3;

/// What earlier tries of the same install have shown.
pub(super) struct InstallAttempt {
    /// Whether the table may be owned.
    pub may_own: bool,
    /// What the kernel cannot have.
    pub skipped: Vec<(OptionalPart, KernelError)>,
    /// How often another program was faster.
    pub races: usize,
}

impl Kernel {
    /// Makes the table what the guard is to be, in one batch: all of it, or nothing on an
    /// error. With `allow` the allow sets hold exactly that, and it is clean; without, sets
    /// that stay keep their elements. With `grace`, TCP connections that are older than the
    /// guard get a minute to show themselves, where there was no guard before.
    pub fn install(
        &mut self,
        guard: &Guard,
        mut allow: Option<&mut Desired>,
        now: Now,
        grace: bool,
    ) -> Result<Installed, KernelError> {
        let mut attempt = InstallAttempt {
            may_own: guard.mode == GuardMode::Exclusive,
            skipped: Vec::new(),
            races: 0,
        };
        let Plan {
            ruleset, before, ..
        } = loop {
            let before = TableState::read(&mut self.netlink)?;
            if before.as_ref().is_some_and(|b| b.is_foreign(guard.server)) {
                return Err(KernelError::ForeignGuard);
            }
            let flags = flags(before.as_ref(), attempt.may_own, self.owned);
            let skipped = attempt.skipped.iter().map(|(part, _)| *part);
            let allow = allow.as_deref().map(|desired| (desired, now));
            let plan = Plan::new(guard, before, flags, skipped, allow, grace);
            match self.apply(&plan) {
                Ok(()) => break plan,
                Err(refused) => {
                    // Without the kernel's word on a message it may be applied all the same.
                    if refused.subject.is_none() {
                        self.known = None;
                    }
                    attempt.learn(&plan, refused)?;
                }
            }
        };
        self.sets = Some(ruleset.sets.iter().map(|set| set.name.clone()).collect());
        if let Some(desired) = &mut allow {
            desired.clean_all();
        }
        self.remember(|state| state.is_whole(&ruleset));
        if guard.mode == GuardMode::Monitored {
            self.disown();
        }
        Ok(Installed {
            before: before.map(|before| before.summary()),
            exclusive: self.owned,
            skipped: attempt.skipped,
        })
    }

    fn apply(&mut self, plan: &Plan<'_>) -> Result<(), RefusedBatch> {
        let owns = plan.flags & table_flag::OWNER != 0;
        if let Some(batch) = plan.flags_batch() {
            self.netlink.commit(batch)?;
            self.owned = owns;
        }
        self.netlink.commit(plan.batch())?;
        self.owned = owns;
        Ok(())
    }

    /// Lets go of the ownership, by a new socket; the table stays, since it is persistent.
    /// Without a new socket it stays owned, until the next install.
    fn disown(&mut self) {
        if self.owned
            && let Ok(netlink) = Kernel::socket()
        {
            (self.netlink, self.owned) = (netlink, false);
        }
    }
}

impl InstallAttempt {
    /// What to do otherwise in the next try; the error where there is nothing.
    pub fn learn(&mut self, plan: &Plan<'_>, refused: RefusedBatch) -> Result<(), KernelError> {
        let (subject, errno) = (refused.subject.as_ref(), refused.errno());
        let is_of = |of: &[u16]| subject.is_some_and(|subject| of.contains(&subject.kind));
        let is_lacking = [Errno::EOPNOTSUPP, Errno::EINVAL, Errno::ENOENT].contains(&errno);
        let is_race = [Errno::ENOENT, Errno::EEXIST, Errno::EBUSY].contains(&errno);
        let adds = [kind::NEW_CHAIN, kind::NEW_RULE, kind::NEW_SET];
        let part = subject.and_then(|subject| plan.ruleset.part_of(&subject.name));
        if is_of(&[kind::NEW_TABLE]) && self.may_own && is_lacking {
            self.may_own = false;
        } else if self.races < MAX_RACES && plan.before.is_some() && is_race {
            // What was read is not what is there any more.
            self.races += 1;
        } else if let Some(part) = part.filter(|_| is_of(&adds) && is_lacking) {
            self.skipped.push((part, refused.into()));
        } else {
            return Err(refused.into());
        }
        Ok(())
    }
}

/// The table's flags. A table becomes one that can be owned only when it is made, and
/// making it again would lose what is in it: one that cannot be stays monitored.
pub(super) fn flags(before: Option<&TableState>, may_own: bool, owned: bool) -> u32 {
    let both = table_flag::OWNER | table_flag::PERSIST;
    match before {
        None if may_own => both,
        None => 0,
        Some(before) => match before.flags & table_flag::PERSIST {
            0 => 0,
            // An owned table stays owned until its socket is closed.
            _ if may_own || owned => both,
            persist => persist,
        },
    }
}
