//! The disk a folder is on.

use std::path::Path;

/// A disk's size, and what of it is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes that can still be written.
    pub free_bytes: u64,
    /// Bytes there are in all.
    pub total_bytes: u64,
}

/// The disk that holds `dir`, or will hold it once it is made. `None`: the system does not say. Blocks on the disk.
pub fn disk_space(dir: &Path) -> Option<DiskSpace> {
    let known = |dir: &Path| {
        let (free_bytes, total_bytes) = (fs4::available_space(dir).ok()?, fs4::total_space(dir).ok()?);
        Some(DiskSpace { free_bytes, total_bytes })
    };
    dir.ancestors().find_map(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_made_yet_has_the_disk_of_its_parent() {
        let dir = tempfile::tempdir().unwrap();
        let space = disk_space(&dir.path().join("not/made/yet")).unwrap();
        assert!(space.free_bytes <= space.total_bytes && space.total_bytes > 0);
        assert_eq!(Some(space.total_bytes), disk_space(dir.path()).map(|space| space.total_bytes));
    }
}
