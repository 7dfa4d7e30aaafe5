//! The power that fails: the daemon's state stands on a disk of its own, and what was not
//! synced when the power went is gone, or is there in part.
//!
//! The disk is a file with a file system in it, mounted where only the daemon sees it.
//! A copy of that file, made while the daemon is stopped, is what a real disk would hold:
//! everything that the file system was made to write, and nothing that waits in memory.

use crate::chance::Chance;
use crate::clock::{self, WallClock};
use crate::process::Running;
use crate::site::Site;
use crate::wait;
use nix::sys::signal::Signal;
use oneknock_shared::secret::random;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What becomes of that which was written and not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// All of it is lost.
    Lost,
    /// Each page of a file, each new file and each new name is kept or lost by chance.
    Torn,
    /// All of it is kept.
    Kept,
}

/// A file's content, and which file it is: a name may mean another one later.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    identity: (u64, SystemTime),
    mode: u32,
    bytes: Vec<u8>,
}

type Folder = BTreeMap<String, Content>;

/// The unit in which a kernel writes files back, in bytes.
const PAGE: usize = 4096;

/// A machine whose state is on a disk of its own.
#[derive(Debug)]
pub struct Machine<'s> {
    site: &'s Site,
    /// What the disk holds while the power is off.
    content: PathBuf,
    /// Where the disk is mounted, in the daemon's own view; the state in it stands where the
    /// daemon looks for it.
    mounted: PathBuf,
    image: PathBuf,
    boot_id: PathBuf,
    journal: bool,
    /// While the power is on: what holds the disk.
    on: Option<Running>,
}

impl<'s> Machine<'s> {
    /// Gives a site's state a disk. Without a journal the file system promises no more
    /// than it must: a name is on disk only when its folder was synced.
    pub fn new(site: &'s Site, journal: bool) -> Self {
        let folder = site.lab.dir().join("disk");
        let content = folder.join("content");
        let mounted = folder.join("mounted");
        for path in [&content, &mounted] {
            fs::create_dir_all(path).unwrap();
        }
        fs::rename(site.state(), content.join("state")).unwrap();
        fs::create_dir(site.state()).unwrap();
        Self {
            site,
            content,
            mounted,
            image: folder.join("image"),
            boot_id: folder.join("boot_id"),
            journal,
            on: None,
        }
    }

    /// A program that holds an image mounted, where nobody else sees it. The file system
    /// is not to make up for a file that was not synced before it got its name.
    fn holder(&self, image: &Path) -> Running {
        let script = r#"
            mount -o loop,noauto_da_alloc "$1" "$2" &&
            mount --bind "$2/state" "$4" &&
            mount --bind "$3" /proc/sys/kernel/random/boot_id &&
            echo on && read line"#;
        let state = self.site.state();
        let paths = [image, &self.mounted, &self.boot_id, &state];
        let paths = paths.map(|path| path.to_str().unwrap());
        let command = [&["sh", "-c", script, "sh"][..], &paths].concat();
        let mut holder = Running::start("disk", self.site.lab.server.command(&command));
        holder.expect("on");
        holder
    }

    /// Where the state is as the holder of the disk sees it.
    fn state_of(&self, holder: &Running) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", holder.pid()));
        root.join(self.mounted.strip_prefix("/").unwrap())
            .join("state")
    }

    /// Switches the machine on: the boot is another, the disk holds what was left on it.
    pub fn boot(&mut self) {
        let (image, content) = (self.image.to_str().unwrap(), self.content.to_str().unwrap());
        let _ = fs::remove_file(&self.image);
        let journal = if self.journal {
            "has_journal"
        } else {
            "^has_journal"
        };
        let extra = "lazy_itable_init=0,lazy_journal_init=0";
        let make = ["mkfs.ext4", "-q", "-b", "4096", "-O", journal, "-E", extra];
        let make = [&make[..], &["-d", content, image, "16M"]].concat();
        self.site.lab.server.run(&make).ok();
        fs::write(&self.boot_id, boot_id_text()).unwrap();
        self.on = Some(self.holder(&self.image));
    }

    /// Starts the daemon by this clock and waits until it is ready.
    pub fn daemon(&self, clock: &WallClock) -> Running {
        let holder = self.on.as_ref().expect("the machine is on");
        let holder = holder.pid().to_string();
        let config = self.site.dir.to_str().unwrap();
        let enter = ["nsenter", "--mount", "--target", &holder, "--"];
        let daemon = ["oneknockd-shifted", "--config", config];
        let command = [&enter[..], &daemon].concat();
        let mut command = self.site.lab.server.command(&command);
        command.env(clock::FILE, clock.file());
        let mut daemon = Running::start("oneknockd", command);
        daemon.expect("oneknockd: ready ");
        daemon
    }

    /// The daemon stands still, whatever it was about: the moment of the cut.
    pub fn freeze(daemon: &Running) {
        daemon.signal(Signal::SIGSTOP);
        let tasks = format!("/proc/{}/task", daemon.pid());
        let stopped = |task: &Path| {
            fs::read_to_string(task.join("stat"))
                .unwrap()
                .contains(") T ")
        };
        wait::until_true("the daemon stands still", || {
            let mut tasks = fs::read_dir(&tasks).unwrap();
            tasks.all(|task| stopped(&task.unwrap().path()))
        });
    }

    /// The power fails, while the daemon stands still or has ended: what the disk holds
    /// then is what the next boot finds. The kernel's grants are still there, for the test
    /// to look at: see [`Machine::forget_grants`].
    pub fn cut(&mut self, daemon: &mut Running, unsynced: Unsynced, chance: &mut Chance) {
        let mut on = self.on.take().expect("the machine is on");
        let written = read(&self.state_of(&on));
        let image = self.image.with_extension("cut");
        fs::write(&image, self.still_image()).unwrap();
        if daemon.is_alive() {
            daemon.signal(Signal::SIGKILL);
            daemon.end();
        }
        on.signal(Signal::SIGKILL);
        on.end();
        if !self.journal {
            // 1: errors were found and mended, as they must be after a power cut.
            let check = ["e2fsck", "-f", "-y", image.to_str().unwrap()];
            let done = self.site.lab.server.run(&check);
            assert!(matches!(done.code, Some(0 | 1)), "{done}");
        }
        let mut holder = self.holder(&image);
        let synced = read(&self.state_of(&holder));
        holder.close_input();
        holder.end();
        let left = match unsynced {
            Unsynced::Lost => synced,
            Unsynced::Kept => written,
            Unsynced::Torn => torn(&synced, &written, chance),
        };
        write(&self.content.join("state"), &left);
    }

    /// The image, read until two readings are the same: none of its writes is half done.
    fn still_image(&self) -> Vec<u8> {
        let mut before = fs::read(&self.image).unwrap();
        wait::until("a disk at rest", || {
            let now = fs::read(&self.image).unwrap();
            let same = now == before;
            before.clone_from(&now);
            same.then_some(now)
        })
    }

    /// What a kernel that was switched off has forgotten: the guard and its grants.
    pub fn forget_grants(&self) {
        self.site.ctl(&["disable", "--until-reboot"]).ok();
    }
}

/// A random id, as the kernel writes its own.
fn boot_id_text() -> String {
    let [a, b] = [(); 2].map(|()| u64::from_be_bytes(random().unwrap()));
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}\n",
        a >> 32,
        a >> 16 & 0xffff,
        a & 0xfff,
        b >> 48 & 0xfff,
        b & 0xffff_ffff_ffff
    )
}

fn read(folder: &Path) -> Folder {
    let files = fs::read_dir(folder).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        let content = Content {
            identity: (meta.ino(), meta.created().unwrap()),
            mode: meta.mode() & 0o7777,
            bytes: fs::read(entry.path()).unwrap(),
        };
        (entry.file_name().into_string().unwrap(), content)
    });
    files.collect()
}

fn write(folder: &Path, files: &Folder) {
    for entry in fs::read_dir(folder).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (name, content) in files {
        let path = folder.join(name);
        fs::write(&path, &content.bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(content.mode)).unwrap();
    }
}

/// What a disk may hold that was made to write `synced`, and was about to write what
/// makes `written` of it.
fn torn(synced: &Folder, written: &Folder, chance: &mut Chance) -> Folder {
    let names: BTreeSet<&String> = synced.keys().chain(written.keys()).collect();
    let mut left = Folder::new();
    for name in names {
        let kept = [synced, written][usize::from(chance.percent(50))];
        let Some(kept) = kept.get(name) else { continue };
        // The same file, under whichever name it had.
        let is_it = |other: &&Content| other.identity == kept.identity;
        let new = written.values().find(is_it).unwrap_or(kept);
        let nothing = Content {
            bytes: Vec::new(),
            ..kept.clone()
        };
        let old = synced.values().find(is_it).unwrap_or(&nothing);
        left.insert(name.clone(), torn_file(old, new, chance));
    }
    left
}

fn torn_file(old: &Content, new: &Content, chance: &mut Chance) -> Content {
    let length = [old, new][usize::from(chance.percent(50))].bytes.len();
    let mut bytes = vec![0; length];
    for (n, page) in bytes.chunks_mut(PAGE).enumerate() {
        let from = [old, new][usize::from(chance.percent(50))];
        let from = from.bytes.get(n * PAGE..).unwrap_or_default();
        let size = from.len().min(page.len());
        page[..size].copy_from_slice(&from[..size]);
    }
    Content {
        bytes,
        ..new.clone()
    }
}
