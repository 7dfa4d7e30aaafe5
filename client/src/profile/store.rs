//! The profiles of this user, each in a file of its own.
//!
//! `$XDG_CONFIG_HOME/oneknock/profiles/NAME.toml`, else below `~/.config`; on Windows below
//! `%APPDATA%`. The file is private (0600 in a folder 0700) from its first byte on, and
//! one that others could read is refused.

use crate::error::Error;
use crate::profile::Profile;
use crate::profile::file::Fields;
use crate::profile::permissions;
use oneknock_shared::name::KeyName;
use std::fs;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// A profile's file is never larger than this, in bytes; an invitation's limit too.
pub const MAX_LEN: usize = 64 * 1024;

/// What a profile's file is called before it is complete; its name begins so.
const UNFINISHED: &str = ".new-";

/// The right to write a profile's file; another call waits until it is dropped.
#[derive(Debug)]
#[must_use]
struct DirLock {
    _lock: fs::File,
}

/// The folder of this user's profiles.
#[derive(Debug, Clone)]
pub struct ProfileStore {
    folder: PathBuf,
}

impl ProfileStore {
    /// Where the environment says.
    pub fn of_this_user() -> Result<Self, Error> {
        let absolute = |name| {
            let path = PathBuf::from(std::env::var_os(name)?);
            path.is_absolute().then_some(path)
        };
        let config = if cfg!(windows) {
            absolute("APPDATA")
        } else {
            absolute("XDG_CONFIG_HOME").or_else(|| {
                let home = std::env::home_dir().filter(|home| home.is_absolute())?;
                Some(home.join(".config"))
            })
        };
        let config = config.ok_or(Error::NoHome)?;
        Ok(Self::at(config.join("oneknock").join("profiles")))
    }

    /// In this folder, which need not exist yet.
    #[must_use]
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// A profile's file.
    #[must_use]
    pub fn path(&self, name: &KeyName) -> PathBuf {
        self.folder.join(format!("{name}.toml"))
    }

    /// Reads a profile, after looking at who could have read or changed its file.
    pub fn load(&self, name: &KeyName) -> Result<Profile, Error> {
        let path = self.path(name);
        let file = match permissions::open(&self.folder, &path) {
            Err(Error::File { why, .. }) if why.kind() == io::ErrorKind::NotFound => {
                return Err(self.unknown(name));
            }
            other => other?,
        };
        // At its final size from the start: a text that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(MAX_LEN + 1));
        let read = file.take(MAX_LEN as u64 + 1).read_to_string(&mut text);
        let broken = |why| Error::InvalidProfile {
            path: path.clone(),
            why,
        };
        read.map_err(|why| Error::File {
            what: "read",
            path: path.clone(),
            why,
        })?;
        if text.len() > MAX_LEN {
            return Err(broken(format!("it is larger than {MAX_LEN} bytes")));
        }
        let fields = Fields::read(&text).map_err(broken)?;
        fields.profile(name).map_err(broken)
    }

    fn unknown(&self, name: &KeyName) -> Error {
        // What cannot be read is another error's, and no name to offer.
        let all = self.all().unwrap_or_default().into_iter().flatten();
        Error::NoProfile {
            name: name.clone(),
            have: all.map(|profile| profile.name().to_string()).collect(),
        }
    }

    /// The profile that a destination of ssh's names: by its own name, or by its host's where
    /// no other has the same host.
    pub fn for_destination(&self, name: &KeyName) -> Result<Profile, Error> {
        let unknown = match self.load(name) {
            Err(unknown @ Error::NoProfile { .. }) => unknown,
            other => return other,
        };
        let host = name.as_str();
        let has_host = |p: &Profile| p.invitation.host.as_str().eq_ignore_ascii_case(host);
        let mut found = self.all()?.into_iter().flatten().filter(has_host);
        match (found.next(), found.next()) {
            (Some(profile), None) => Ok(profile),
            _ => Err(unknown),
        }
    }

    /// Writes a profile that is not there yet. It comes into being complete or not at all.
    pub fn add(&self, profile: &Profile) -> Result<(), Error> {
        let path = self.path(profile.name());
        let failed = |why| Error::File {
            what: "write",
            path: path.clone(),
            why,
        };
        permissions::make_folder(&self.folder).map_err(failed)?;
        let turn = self.turn()?;
        match self.write(&turn, profile)?.persist_noclobber(&path) {
            // Whoever has imported it removes the invitation.
            Ok(_) => permissions::sync_folder(&self.folder).map_err(failed),
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => Err(Error::ProfileExists {
                name: profile.name().clone(),
                path,
            }),
            Err(e) => Err(failed(e.error)),
        }
    }

    /// Writes a profile in the place of the one that is there: it is the old one or the new
    /// one, whatever happens.
    pub fn replace(&self, profile: &Profile) -> Result<(), Error> {
        let path = self.path(profile.name());
        let failed = |why| Error::File {
            what: "write",
            path: path.clone(),
            why,
        };
        if path.symlink_metadata().map_err(failed)?.is_symlink() {
            // What it leads to would stay behind with the old secret.
            return Err(Error::InvalidProfile {
                path,
                why: "it is a link, and is not replaced".into(),
            });
        }
        let turn = self.turn()?;
        match self.write(&turn, profile)?.persist(&path) {
            Ok(_) => permissions::sync_folder(&self.folder).map_err(failed),
            Err(e) => Err(failed(e.error)),
        }
    }

    /// Takes the right to change a profile: nobody else has it until it is dropped.
    pub fn lock(&self, name: &KeyName) -> Result<fs::File, Error> {
        let path = self.folder.join(format!(".{name}.lock"));
        let mut options = fs::File::options();
        options.read(true).write(true).create(true).truncate(false);
        let taken = options.open(&path).and_then(|file| match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::Error(error)) if has_no_locks(&error) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        });
        taken.map_err(|why| match why.kind() {
            io::ErrorKind::ResourceBusy => Error::Rotating(name.clone()),
            _ => Error::File {
                what: "write",
                path,
                why,
            },
        })
    }

    /// Waits until nobody else writes a profile, and removes what killed calls have left: it
    /// may hold a secret.
    fn turn(&self) -> Result<DirLock, Error> {
        permissions::check_folder(&self.folder)?;
        let path = self.folder.join(".lock");
        let take = || {
            let mut options = fs::File::options();
            options.read(true).write(true).create(true).truncate(false);
            let lock = options.open(&path)?;
            match lock.lock() {
                // Some file systems have no locks; then two calls at once may be in each
                // other's way, and what was left stays.
                Err(why) if has_no_locks(&why) => return Ok(DirLock { _lock: lock }),
                other => other?,
            }
            for entry in fs::read_dir(&self.folder)? {
                let entry = entry?;
                let name = entry.file_name();
                if name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(DirLock { _lock: lock })
        };
        take().map_err(|why| Error::File {
            what: "write",
            path: path.clone(),
            why,
        })
    }

    /// Writes a profile to a file that has no name of its own yet.
    fn write(&self, _turn: &DirLock, profile: &Profile) -> Result<tempfile::NamedTempFile, Error> {
        let failed = |why| Error::File {
            what: "write",
            path: self.path(profile.name()),
            why,
        };
        let text = Fields::of(profile).to_text();
        // tempfile makes it 0600; nothing has to be changed afterwards.
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(&self.folder)
            .map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        Ok(file)
    }

    /// Removes a profile, a broken one too, and what killed calls have left.
    pub fn remove(&self, name: &KeyName) -> Result<(), Error> {
        let path = self.path(name);
        let _turn = if self.folder.is_dir() {
            Some(self.turn()?)
        } else {
            None
        };
        let removed = fs::remove_file(&path);
        match removed.and_then(|()| permissions::sync_folder(&self.folder)) {
            Ok(()) => Ok(()),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Err(self.unknown(name)),
            Err(why) => Err(Error::File {
                what: "remove",
                path,
                why,
            }),
        }
    }

    /// Every profile in the order of their names, the broken ones too. No folder: none.
    pub fn all(&self) -> Result<Vec<Result<Profile, Error>>, Error> {
        let failed = |why| Error::File {
            what: "read",
            path: self.folder.clone(),
            why,
        };
        let entries = match fs::read_dir(&self.folder) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut profiles = Vec::new();
        for entry in entries {
            let file = PathBuf::from(entry.map_err(failed)?.file_name());
            // `.new-…` is what a crash may leave; the locks are hidden too.
            let hidden = file.as_os_str().as_encoded_bytes().starts_with(b".");
            if !hidden && file.extension().is_some_and(|e| e == "toml") {
                profiles.push(file);
            }
        }
        profiles.sort();
        let load = |file: PathBuf| match file.file_stem().and_then(|s| s.to_str()?.parse().ok()) {
            Some(name) => self.load(&name),
            None => Err(Error::InvalidProfile {
                path: self.folder.join(&file),
                why: "the file's name is not a profile's".into(),
            }),
        };
        Ok(profiles.into_iter().map(load).collect())
    }
}

/// Whether the file system has no locks at all.
fn has_no_locks(why: &io::Error) -> bool {
    // As Linux has it from NFS without its lock service: ENOLCK.
    const NO_LOCK: i32 = 37;
    let is_nfs = cfg!(target_os = "linux") && why.raw_os_error() == Some(NO_LOCK);
    why.kind() == io::ErrorKind::Unsupported || is_nfs
}
