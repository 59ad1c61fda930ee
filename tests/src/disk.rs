//! Looking at a directory's bytes, and disks that can be full, fail, or lose their power.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::skip::skipped;
use crate::wait::{SOON, eventually};

/// Every file below a directory with its content. A file that goes away meanwhile is left out.
#[must_use]
pub fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().map_while(Result::ok) {
            let path = entry.path();
            if path.is_dir() {
                left.push(path);
            } else if let Ok(bytes) = fs::read(&path) {
                found.insert(path, bytes);
            }
        }
    }
    found
}

/// The files below a directory that hold these bytes.
#[must_use]
pub fn files_with(directory: &Path, needle: &[u8]) -> Vec<PathBuf> {
    files(directory).into_iter().filter(|(_, bytes)| contains(bytes, needle)).map(|(path, _)| path).collect()
}

/// Whether bytes occur in others.
#[must_use]
pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else { return true };
    let mut rest = haystack;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        if rest[at..].starts_with(needle) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// A small file system in memory.
#[derive(Debug)]
pub struct SmallDisk {
    directory: TempDir,
}

impl SmallDisk {
    /// Mounts one; `None`, with a line that says so, where this process may not mount.
    #[must_use]
    pub fn mount(megabytes: u32) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let options = format!("size={megabytes}m");
        let mut mount = Command::new("mount");
        if let Err(why) = run(mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(directory.path())) {
            skipped("a full disk needs the right to mount a small one", &why);
            return None;
        }
        Some(Self { directory })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        fill(&self.ballast());
    }

    /// Gives the room back.
    pub fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.directory.path()).status();
    }
}

/// A file system of a disk of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSystem {
    /// Ext4, which turns read-only when it finds an error.
    Ext4,
    /// XFS.
    Xfs,
}

/// A disk in a file, behind a loop device, with a real file system: it can lose its power, fill up and fail.
#[derive(Debug)]
pub struct LoopDisk {
    kind: FileSystem,
    image: PathBuf,
    mount: TempDir,
    _directory: TempDir,
}

impl LoopDisk {
    /// Makes one; `None`, with a line that says so, where this process may not mount.
    #[must_use]
    pub fn make(kind: FileSystem, megabytes: u64) -> Option<Self> {
        Self::make_in(&std::env::temp_dir(), kind, megabytes)
    }

    /// As [`Self::make`], with its bytes in a directory that may have less room than it promises.
    #[must_use]
    pub fn make_in(place: &Path, kind: FileSystem, megabytes: u64) -> Option<Self> {
        let directory = tempfile::tempdir_in(place).unwrap();
        let image = directory.path().join("image");
        fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        let made = match kind {
            FileSystem::Ext4 => run(Command::new("mkfs.ext4").arg("-q").arg(&image)),
            FileSystem::Xfs => run(Command::new("mkfs.xfs").arg("-q").arg(&image)),
        };
        let disk = Self { kind, image, mount: tempfile::tempdir().unwrap(), _directory: directory };
        // What cuts the power of either comes with XFS.
        let can_cut = || run(Command::new("xfs_io").arg("-V"));
        match made.and_then(|()| can_cut()).and_then(|()| disk.try_mount()) {
            Ok(()) => Some(disk),
            Err(why) => {
                skipped("a disk of its own needs the right to mount one, and the tools to make and cut it", &why);
                None
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.mount.path()
    }

    /// Cuts its power: whatever was not synced is gone, and every call fails from now on.
    pub fn cut(&self) {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(self.path())).unwrap();
    }

    /// Its power is back: mounts it anew, as after a boot. Nobody may use it meanwhile.
    pub fn come_back(&self) {
        eventually("the disk is let go", SOON, || run(Command::new("umount").arg(self.path())).ok());
        self.try_mount().unwrap();
    }

    /// The file system finds an error in itself, and turns read-only.
    ///
    /// # Panics
    /// On any other than ext4.
    pub fn find_error(&self) {
        assert_eq!(self.kind, FileSystem::Ext4, "only ext4 finds errors on demand");
        let source = Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(self.path()).output().unwrap();
        let device = String::from_utf8(source.stdout).unwrap();
        let device = device.trim().trim_start_matches("/dev/");
        fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1").unwrap();
    }

    /// Remounts it so that nobody may write, or may again.
    pub fn set_read_only(&self, is_read_only: bool) {
        let options = if is_read_only { "remount,ro" } else { "remount,rw" };
        eventually("the disk is remounted", SOON, || {
            run(Command::new("mount").args(["-o", options]).arg(self.path())).ok()
        });
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        fill(&self.ballast());
    }

    /// Gives the room back.
    pub fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    fn try_mount(&self) -> Result<(), String> {
        // The device goes by itself when it is no longer mounted.
        let options = match self.kind {
            FileSystem::Ext4 => "loop,errors=remount-ro",
            FileSystem::Xfs => "loop",
        };
        run(Command::new("mount").args(["-o", options]).arg(&self.image).arg(self.path()))
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

fn fill(path: &Path) {
    let chunk = vec![1; 64 * 1024];
    let mut file = fs::File::create(path).unwrap();
    while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
    // The last pages that a whole chunk does not fit into.
    while std::io::Write::write_all(&mut file, &chunk[..1]).is_ok() {}
}
