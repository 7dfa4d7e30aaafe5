//! What the daemon's user cannot get at, which root does not notice when looking at it.

use super::{ConfigError, Paths, config_error};
use crate::files;
use nix::unistd::{User, getgrouplist};
use std::ffi::CString;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Somebody, as the kernel sees him.
struct Person {
    uid: u32,
    groups: Vec<u32>,
}

/// The permission to read a file.
const READ: u32 = 4;
/// The permission to get at what is in a folder.
const PASS: u32 = 1;

impl Person {
    /// The daemon's user, where the machine has one.
    fn daemon() -> Option<Self> {
        let user = User::from_name(files::DAEMON).ok().flatten()?;
        let groups = CString::new(files::DAEMON)
            .ok()
            .and_then(|name| getgrouplist(&name, user.gid).ok())
            .unwrap_or_else(|| vec![user.gid]);
        Some(Self {
            uid: user.uid.as_raw(),
            groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
        })
    }

    fn may(&self, what: u32, meta: &Metadata) -> bool {
        let of = if meta.uid() == self.uid {
            6
        } else if self.groups.contains(&meta.gid()) {
            3
        } else {
            0
        };
        meta.mode() >> of & what == what
    }
}

/// What the daemon, and the guard at the machine's start, cannot read of a configuration
/// folder. The keys are not among it: their owner and modes are a matter for themselves.
#[must_use]
pub fn unreachable(paths: &Paths) -> Vec<ConfigError> {
    Person::daemon().map_or_else(Vec::new, |daemon| out_of_reach(paths, &daemon))
}

fn out_of_reach(paths: &Paths, person: &Person) -> Vec<ConfigError> {
    let mut found = Vec::new();
    // As it is, and not as it is called: each folder on the way counts. One that is not there
    // is another error.
    let Ok(whole) = fs::canonicalize(paths.dir()) else {
        return found;
    };
    let may = |what, path: &Path| fs::metadata(path).is_ok_and(|meta| person.may(what, &meta));
    let mut folders: Vec<PathBuf> = whole.ancestors().map(Path::to_owned).collect();
    folders.reverse();
    for folder in folders.iter().filter(|folder| !may(PASS, folder)) {
        let word = files::shell_word(folder);
        found.push(config_error(
            folder,
            format!("the daemon's user does not get into it; mend it with: chmod a+x {word}"),
        ));
    }
    let file = paths.main_file();
    if file.is_file() && !may(READ, &file) {
        let word = files::shell_word(&file);
        let group = files::DAEMON;
        found.push(config_error(
            &file,
            format!(
                "the daemon's user cannot read it; mend it with: chgrp {group} {word} && chmod 0640 {word}"
            ),
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_the_daemons_user_cannot_get_at_is_found_with_the_command_that_mends_it() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::of(dir.path());
        let file = paths.main_file();
        fs::write(&file, "").unwrap();
        let mode =
            |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let gid = fs::metadata(&file).unwrap().gid();
        let [member, other] = [gid, gid + 1].map(|gid| Person {
            uid: 12345,
            groups: vec![gid],
        });
        let found = |person| {
            let found = out_of_reach(&paths, person);
            found
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        };
        mode(dir.path(), 0o755);
        mode(&file, 0o640);
        assert_eq!(found(&member), "");
        assert!(found(&other).contains("cannot read it; mend it with: chgrp oneknock "));
        mode(&file, 0o600);
        assert!(found(&member).contains("chmod 0640 "));
        mode(&file, 0o644);
        assert_eq!(found(&other), "");
        assert!(out_of_reach(&Paths::of(&dir.path().join("none")), &other).is_empty());
        mode(dir.path(), 0o700);
        assert!(found(&member).contains("chmod a+x "));
    }
}
