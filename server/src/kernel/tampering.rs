//! Whether another program has changed the guard, by the kernel's own handles: what the
//! rules say need not be read for it.

use super::error::KernelError;
use super::nftables::Kernel;
use super::state::{self, KnownTable, TableState};

impl Kernel {
    /// What another program has changed in the table since [`Kernel::install`], in words.
    /// It costs nothing in exclusive mode, one question where nobody but this process has
    /// changed any table, and a few small dumps where others have.
    pub fn check_tampering(&mut self) -> Result<Option<String>, KernelError> {
        let Some(known) = &mut self.known else {
            return Ok(Some("it was not seen as it was installed".into()));
        };
        if self.owned {
            return Ok(None);
        }
        let expected = known.generation.wrapping_add(known.own_changes);
        if state::generation(&mut self.netlink)? == expected {
            return Ok(None);
        }
        // Where there is no whole picture, the next look will have one.
        let Some((state, generation)) = TableState::read_whole(&mut self.netlink)? else {
            return Ok(None);
        };
        let changed = known.state.changed(state.as_ref());
        if changed.is_none() {
            (known.generation, known.own_changes) = (generation, 0);
        }
        Ok(changed)
    }

    /// Remembers the table as it is now, where it is what it should be. Where it is not, or
    /// cannot be read, the next check says so.
    pub(super) fn remember(&mut self, is_whole: impl FnOnce(&TableState) -> bool) {
        let read = TableState::read_whole(&mut self.netlink);
        let whole = read.ok().flatten().and_then(|(state, generation)| {
            let state = state.filter(is_whole)?;
            Some(KnownTable {
                state,
                generation,
                own_changes: 0,
            })
        });
        self.known = whole;
    }
}
