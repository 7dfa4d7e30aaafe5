//! Where everything of one server is. All of it follows from the directory of the
//! configuration, so that the daemon is found also where a file in it is invalid.
//!
//! | what | of /etc/oneknock | of another DIR |
//! | --- | --- | --- |
//! | configuration, keys | /etc/oneknock | DIR |
//! | what outlives the daemon | /var/lib/oneknock | DIR/state |
//! | what ends with the daemon | /run/oneknock | DIR/run |

use super::{ConfigError, config_error};
use crate::files;
use std::path::{Path, PathBuf};

/// The directory that the units and the packages mean.
const DEFAULT: &str = "/etc/oneknock";
/// The kernel's limit for a socket's path is 107 bytes, and the socket is made under a name
/// that is 4 bytes longer.
const MAX_SOCKET_PATH: usize = 100;

/// The paths of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    dir: PathBuf,
    is_default: bool,
}

impl Paths {
    /// Those of the server whose configuration is in this directory.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        let is_default = std::path::absolute(dir).is_ok_and(|dir| dir == Path::new(DEFAULT));
        Self {
            dir: dir.into(),
            is_default,
        }
    }

    /// The directory of the configuration, as it was given.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether it is the directory that the units and the packages mean, however it is written.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.is_default
    }

    /// The main file, `oneknockd.toml`.
    #[must_use]
    pub fn main_file(&self) -> PathBuf {
        self.dir.join("oneknockd.toml")
    }

    /// The directory of the keys' files.
    #[must_use]
    pub fn keys(&self) -> PathBuf {
        self.dir.join("keys")
    }

    /// The file of the key with this name.
    #[must_use]
    pub fn key_file(&self, name: &str) -> PathBuf {
        self.keys().join(format!("{name}.toml"))
    }

    /// The marker of a server that enforces: [`super::enabled`].
    #[must_use]
    pub fn enabled(&self) -> PathBuf {
        self.dir.join("enabled")
    }

    /// The lock that a call of oneknockctl holds while it changes the configuration.
    #[must_use]
    pub fn edit_lock(&self) -> PathBuf {
        self.dir.join(".lock")
    }

    /// The directory of what outlives the daemon.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        if self.is_default {
            "/var/lib/oneknock".into()
        } else {
            self.dir.join("state")
        }
    }

    /// The last good copy of the main file. The daemon's user can write it.
    #[must_use]
    pub fn last_good(&self) -> PathBuf {
        self.state().join("last-good.toml")
    }

    /// The directory of what ends with the daemon.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        if self.is_default {
            "/run/oneknock".into()
        } else {
            self.dir.join("run")
        }
    }

    /// The socket on which oneknockctl asks the daemon.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.run().join("control")
    }

    /// How a person calls oneknockctl for this server.
    #[must_use]
    pub fn ctl(&self) -> String {
        format!("oneknockctl{}", self.option())
    }

    /// The option that a person gives to either program for this server, with a space before
    /// it; nothing for the default.
    #[must_use]
    pub fn option(&self) -> String {
        if self.is_default {
            String::new()
        } else {
            format!(" --config {}", files::shell_word(&self.dir))
        }
    }

    /// Why no server can have its configuration in this directory.
    #[must_use]
    pub fn unusable(&self) -> Option<ConfigError> {
        if self.dir.is_file() {
            let parent = self.dir.parent().unwrap_or(Path::new("/"));
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            let parent = files::shell_word(parent);
            let what = format!("is a file, and --config takes the directory: --config {parent}");
            return Some(config_error(&self.dir, what));
        }
        let length = self.control().as_os_str().len();
        (length > MAX_SOCKET_PATH).then(|| {
            let most = MAX_SOCKET_PATH.saturating_sub(length - self.dir.as_os_str().len());
            let what = format!(
                "is too long a path: the control socket is in it, whose path the kernel limits; use a directory with a path of at most {most} bytes"
            );
            config_error(&self.dir, what)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_directory_has_the_systems_own_places() {
        for dir in ["/etc/oneknock", "/etc/oneknock/", "/etc/./oneknock"] {
            let paths = Paths::of(Path::new(dir));
            assert_eq!(paths.state(), Path::new("/var/lib/oneknock"), "{dir}");
            assert_eq!(paths.control(), Path::new("/run/oneknock/control"), "{dir}");
            assert_eq!(paths.ctl(), "oneknockctl", "{dir}");
        }
    }

    #[test]
    fn another_directory_has_all_of_it_inside() {
        let paths = Paths::of(Path::new("/srv/my one"));
        for path in [paths.state(), paths.control(), paths.last_good()] {
            assert!(path.starts_with("/srv/my one"), "{}", path.display());
        }
        assert_eq!(paths.ctl(), "oneknockctl --config '/srv/my one'");
    }

    #[test]
    fn a_directory_too_long_for_a_socket_is_refused_with_the_limit() {
        let at = |length: usize| format!("/{}", "x".repeat(length - 1));
        let what = |dir: &str| Some(Paths::of(Path::new(dir)).unusable()?.what);
        assert_eq!(what(&at(88)), None);
        let found = what(&at(89)).unwrap();
        assert!(found.contains("at most 88 bytes"), "{found}");
    }
}
