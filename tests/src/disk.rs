//! Looking at a directory's bytes, and a disk that can be full.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

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
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(directory.path())
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            assert!(std::env::var_os("CI").is_none(), "CI must be able to mount a small disk, or it proves nothing");
            println!("skipped: a full disk needs the right to mount a small one");
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
        let chunk = vec![1; 64 * 1024];
        let mut file = fs::File::create(self.ballast()).unwrap();
        while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
        // The last pages that a whole chunk does not fit into.
        while std::io::Write::write_all(&mut file, &chunk[..1]).is_ok() {}
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
