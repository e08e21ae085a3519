//! What is on disk, seen without Sampan's help.

use std::collections::BTreeMap;
use std::path::Path;

use sampan_oci::Digest;

/// The files under `blobs/sha256` of a cache folder: name (64 hex digits) to size in bytes. Empty where there is none.
pub fn held(cache: &Path) -> BTreeMap<String, u64> {
    let Ok(folder) = std::fs::read_dir(cache.join("blobs/sha256")) else { return BTreeMap::new() };
    let entries = folder.map(|entry| entry.expect("the folder can be read"));
    let sized = entries.map(|entry| {
        let size = entry.metadata().expect("a held blob stays where it is").len();
        (entry.file_name().to_string_lossy().into_owned(), size)
    });
    sized.collect()
}

/// The sum of the sizes of those files.
pub fn held_bytes(cache: &Path) -> u64 {
    held(cache).values().sum()
}

/// What `du` counts for those files: a second opinion, by a program that knows nothing of Sampan.
pub fn du_bytes(cache: &Path) -> u64 {
    let mut du = std::process::Command::new("du");
    // Folders have sizes of their own, so the files are counted one by one.
    let files = held(cache).into_keys().map(|name| cache.join("blobs/sha256").join(name));
    let output = crate::finish(du.args(["--bytes", "--total"]).args(files));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let total = text.lines().last().and_then(|line| line.split_whitespace().next());
    total.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("du said {text:?}"))
}

/// Hashes every file under `blobs/sha256`. Returns the names of those whose bytes are something else, and how many
/// files there are.
pub fn wrong_blobs(cache: &Path) -> (Vec<String>, usize) {
    let names = held(cache);
    let count = names.len();
    let folder = cache.join("blobs/sha256");
    let wrong = names.into_keys().filter(|name| {
        let bytes = std::fs::read(folder.join(name)).expect("a held blob can be read");
        Digest::of(&bytes).hex() != *name
    });
    (wrong.collect(), count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_what_its_name_says_is_found() {
        let cache = crate::scratch();
        assert_eq!(wrong_blobs(cache.path()), (Vec::new(), 0), "an empty cache has none");
        let folder = cache.path().join("blobs/sha256");
        std::fs::create_dir_all(&folder).unwrap();
        let (right, wrong) = (Digest::of(b"right").hex(), Digest::of(b"wrong").hex());
        std::fs::write(folder.join(&right), b"right").unwrap();
        std::fs::write(folder.join(&wrong), b"wrong!").unwrap();
        assert_eq!(wrong_blobs(cache.path()), (vec![wrong], 2));
        assert_eq!((held_bytes(cache.path()), du_bytes(cache.path())), (11, 11));
    }
}
