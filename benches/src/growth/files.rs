//! Copies of a data directory that nobody has open: each run begins at the same state, and what it writes goes with it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Copies it into a directory. Tables are never written again and are linked, where the disk can.
///
/// # Errors
/// What the disk says.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("listing {}", from.display()))? {
        let entry = entry?;
        let (path, target, kind) = (entry.path(), to.join(entry.file_name()), entry.file_type()?);
        if kind.is_dir() {
            fs::create_dir(&target).with_context(|| format!("making {}", target.display()))?;
            fs::set_permissions(&target, entry.metadata()?.permissions())?;
            copy(&path, &target)?;
        } else if kind.is_file() {
            let is_table = path.extension().is_some_and(|ending| ending == "sst");
            if !(is_table && fs::hard_link(&path, &target).is_ok()) {
                fs::copy(&path, &target).with_context(|| format!("copying {}", path.display()))?;
            }
        }
    }
    Ok(())
}

/// Bytes of all files below a directory.
///
/// # Errors
/// What the disk says.
pub fn size_bytes(directory: &Path) -> Result<u64> {
    let mut bytes = 0_u64;
    for entry in fs::read_dir(directory).with_context(|| format!("listing {}", directory.display()))? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes = bytes.saturating_add(if metadata.is_dir() { size_bytes(&entry.path())? } else { metadata.len() });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn tables_are_linked_and_all_else_is_copied() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(from.path().join("db")).unwrap();
        for (name, text) in [("FORMAT", "1"), ("db/000007.sst", "table"), ("db/MANIFEST-000004", "list")] {
            fs::write(from.path().join(name), text).unwrap();
        }
        copy(from.path(), to.path()).unwrap();
        let inode = |directory: &Path, name| fs::metadata(directory.join(name)).unwrap().ino();
        let is_linked = |name| inode(from.path(), name) == inode(to.path(), name);
        assert!(is_linked("db/000007.sst") && !is_linked("db/MANIFEST-000004") && !is_linked("FORMAT"));
        assert_eq!(fs::read_to_string(to.path().join("db/MANIFEST-000004")).unwrap(), "list");
        assert_eq!(size_bytes(to.path()).unwrap(), 1 + 5 + 4);
        // What is written to the copy stays there.
        fs::write(to.path().join("FORMAT"), "22").unwrap();
        assert_eq!(size_bytes(from.path()).unwrap(), 1 + 5 + 4);
    }
}
