//! What is kept between calls and is no configuration: what worked, and the last error.
//!
//! `$XDG_STATE_HOME/oneknock`, else `~/.local/state/oneknock`; on Windows below
//! `%LOCALAPPDATA%`. Nothing here is a secret, and nothing depends on it: where it cannot be
//! read or written, it is as if nothing were remembered.

use crate::knock::memory::Memory;
use crate::profile::permissions;
use oneknock_shared::name::KeyName;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The directory of one profile's state.
#[derive(Debug, Clone)]
pub struct StateDir(Option<PathBuf>);

impl StateDir {
    /// Where the environment says; nowhere, where it says nothing.
    #[must_use]
    pub fn of_this_user() -> Self {
        let absolute = |name| {
            let path = PathBuf::from(std::env::var_os(name)?);
            path.is_absolute().then_some(path)
        };
        let state = if cfg!(windows) {
            absolute("LOCALAPPDATA")
        } else {
            absolute("XDG_STATE_HOME").or_else(|| {
                let home = std::env::home_dir().filter(|home| home.is_absolute())?;
                Some(home.join(".local").join("state"))
            })
        };
        Self(state.map(|state| state.join("oneknock")))
    }

    /// What worked for a profile.
    #[must_use]
    pub fn memory(&self, profile: &KeyName) -> Memory {
        let text = self.read(&format!("{profile}.json"));
        text.map(|text| Memory::read(&text)).unwrap_or_default()
    }

    /// Keeps what worked, where it changed.
    pub fn keep(&self, profile: &KeyName, before: &Memory, now: &Memory) {
        if before != now {
            self.write(&format!("{profile}.json"), &now.to_text());
        }
    }

    /// The last error of a proxy, which may have had nobody to tell.
    #[must_use]
    pub fn last_error(&self, profile: &KeyName) -> Option<String> {
        self.read(&format!("{profile}.last-error"))
            .filter(|text| !text.is_empty())
    }

    /// Keeps the last error; an empty one takes it away.
    pub fn keep_error(&self, profile: &KeyName, text: &str) {
        let name = format!("{profile}.last-error");
        if !text.is_empty() {
            self.write(&name, text);
        } else if let Some(dir) = &self.0 {
            // Mostly there is none.
            let _ = fs::remove_file(dir.join(name));
        }
    }

    /// Forgets a profile.
    pub fn remove(&self, profile: &KeyName) {
        let Some(dir) = &self.0 else { return };
        for name in ["json", "last-error"] {
            let _ = fs::remove_file(dir.join(format!("{profile}.{name}")));
        }
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.0.as_ref()?.join(name)).ok()
    }

    fn write(&self, name: &str, text: &str) {
        let Some(dir) = &self.0 else { return };
        // What is lost here is learned anew.
        let _ = write(dir, name, text);
    }
}

fn write(dir: &Path, name: &str, text: &str) -> std::io::Result<()> {
    permissions::make_folder(dir)?;
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.persist(dir.join(name))?;
    Ok(())
}
