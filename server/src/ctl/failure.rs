//! How a command ends: its exit status, and on standard error why.

use super::output::say;
use crate::config::{ConfigError, Paths};
use crate::files;
use oneknock_shared::name::KeyName;
use serde_json::{Value, json};
use std::fmt::{self, Display};
use std::io;
use std::path::Path;

/// Every exit status that there is; `oneknockctl --help` says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// The command line is wrong, or names what there is not.
    Usage = 2,
    /// oneknockd.toml or a key's file is invalid.
    InvalidConfig = 3,
    /// oneknockd is not running.
    NotRunning = 4,
    /// It was refused, since it would do harm.
    Refused = 5,
    /// Of `status` and `debug boot-guard`: the guard is on trial.
    OnTrial = 6,
    /// Of the same: the guard does not enforce.
    NotEnforcing = 7,
}

/// Why a command did not do its work.
#[derive(Debug)]
pub enum Failure {
    /// Configuration or keys are invalid.
    Config(Vec<ConfigError>),
    /// The command line is wrong; with a hint.
    Usage(String, Option<String>),
    /// There is no such key; with a hint.
    NoKey(String, String),
    /// It failed, or the daemon did not do it; with a hint.
    Failed(String, Option<String>),
    /// It would do harm; with a hint.
    Refused(String, Option<String>),
    /// oneknockd is not running; with a hint.
    NotRunning(String, Option<String>),
    /// All is said already.
    Ended(Exit),
}

impl Failure {
    /// A failure with its reason.
    pub fn new(what: impl Display, why: impl Display) -> Self {
        Self::Failed(format!("{what}: {why}"), None)
    }

    /// A file or directory that could not be read or written.
    #[must_use]
    pub fn io(path: &Path, why: &io::Error) -> Self {
        let what = format!("{}: {why}", path.display());
        if why.kind() == io::ErrorKind::PermissionDenied {
            Self::needs_root(what)
        } else {
            Self::Failed(what, None)
        }
    }

    /// What only root may do, with the command that does it.
    #[must_use]
    pub fn needs_root(what: String) -> Self {
        let is_root = nix::unistd::geteuid().is_root();
        Self::Failed(what, (!is_root).then(as_root))
    }

    /// The same, with a hint where there is none.
    pub(super) fn with_hint(self, hint: String) -> Self {
        match self {
            Self::Failed(what, None) => Self::Failed(what, Some(hint)),
            other => other,
        }
    }

    /// The exit status, and the stable name of what happened; none where all is said already.
    fn kind(&self) -> (Exit, Option<&'static str>) {
        match self {
            Self::Config(_) => (Exit::InvalidConfig, Some("E-CONFIG")),
            Self::Usage(..) => (Exit::Usage, Some("E-USAGE")),
            Self::NoKey(..) => (Exit::Usage, Some("E-NO-KEY")),
            Self::Failed(..) => (Exit::Failed, Some("E-FAILED")),
            Self::Refused(..) => (Exit::Refused, Some("E-REFUSED")),
            Self::NotRunning(..) => (Exit::NotRunning, Some("E-NOT-RUNNING")),
            Self::Ended(exit) => (*exit, None),
        }
    }

    /// The exit status.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.kind().0
    }

    fn parts(&self) -> (&[ConfigError], Option<&str>, Option<&str>) {
        match self {
            Self::Config(errors) => (errors, None, None),
            Self::NoKey(what, hint) => (&[], Some(what), Some(hint)),
            Self::Usage(what, hint)
            | Self::Failed(what, hint)
            | Self::Refused(what, hint)
            | Self::NotRunning(what, hint) => (&[], Some(what), hint.as_deref()),
            Self::Ended(_) => (&[], None, None),
        }
    }

    /// Says it on standard error.
    pub(super) fn say(&self) {
        let (errors, what, hint) = self.parts();
        for error in errors {
            say(format_args!("error: {error}"));
        }
        if let Some(what) = what {
            say(format_args!("error: {what}"));
        }
        if let Some(hint) = hint {
            say(format_args!("hint: {hint}"));
        }
    }

    /// What `--json` prints in the place of the answer; none where all is said already.
    pub(super) fn json(&self) -> Option<Value> {
        let code = self.kind().1?;
        let (errors, what, hint) = self.parts();
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let what = what.unwrap_or("the configuration is invalid");
        let error = json!({"code": code, "message": what, "hint": hint, "errors": errors});
        Some(json!({"version": super::output::VERSION, "error": error}))
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (errors, what, _) = self.parts();
        match (what, errors.first()) {
            (Some(what), _) => f.write_str(what),
            (None, Some(error)) => write!(f, "{error}"),
            (None, None) => f.write_str("it failed"),
        }
    }
}

/// This very call, as root.
fn as_root() -> String {
    let args = std::env::args_os().skip(1);
    let words = args.map(|arg| files::shell_word(Path::new(&arg)));
    let words: Vec<String> = ["sudo oneknockctl".to_owned()]
        .into_iter()
        .chain(words)
        .collect();
    words.join(" ")
}

/// There is no such key.
pub(super) fn no_key(paths: &Paths, name: &KeyName) -> Failure {
    let hint = format!("{} key list", paths.ctl());
    Failure::NoKey(format!("there is no key {name}"), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_a_status_and_a_code() {
        let what = || "what".to_owned();
        let failures = [
            (Failure::Failed(what(), None), 1, "E-FAILED"),
            (Failure::Usage(what(), None), 2, "E-USAGE"),
            (Failure::NoKey(what(), what()), 2, "E-NO-KEY"),
            (Failure::Config(Vec::new()), 3, "E-CONFIG"),
            (Failure::NotRunning(what(), None), 4, "E-NOT-RUNNING"),
            (Failure::Refused(what(), None), 5, "E-REFUSED"),
        ];
        for (failure, status, code) in failures {
            assert_eq!(failure.exit() as u8, status);
            let json = failure.json().unwrap();
            assert_eq!(
                (&json["version"], &json["error"]["code"]),
                (&1.into(), &code.into())
            );
            for member in ["message", "hint", "errors"] {
                assert!(json["error"].get(member).is_some(), "{json}");
            }
        }
        assert_eq!(Failure::Ended(Exit::OnTrial).json(), None);
    }
}
