use super::*;
use crate::kernel::ruleset::Set;

impl TableState {
    /// A table with these flags, base chains and sets.
    pub fn of(flags: u32, chains: &[(&str, Option<BaseHook>)], sets: &[(&str, &Set)]) -> Self {
        let chain = |(name, hook): &(&str, Option<BaseHook>)| {
            let state = ChainState {
                handle: 1,
                hook: hook.map(BaseHook::numbers),
                policy: ACCEPT,
                is_filter: true,
                flags: 0,
                rules: Vec::new(),
            };
            ((*name).to_owned(), state)
        };
        let set = |(name, of): &(&str, &Set)| {
            let (handle, kind) = (1, of.kind());
            ((*name).to_owned(), SetState { handle, kind })
        };
        Self {
            flags,
            handle: 1,
            chains: chains.iter().map(chain).collect(),
            sets: sets.iter().map(set).collect(),
        }
    }
}
