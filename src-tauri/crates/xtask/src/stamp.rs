//! Remembering what a step was done for, so that it is not done again: a hash in `<target>/xtask/`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::environment::Environment;

/// Remembers one step's inputs (or a person's answer).
#[derive(Debug)]
pub(crate) struct Stamp(PathBuf);

impl Stamp {
    pub(crate) fn new(environment: &Environment, name: &str) -> Self {
        Self(environment.target.join("xtask").join(name))
    }

    /// Whether the step was last done for this state.
    pub(crate) fn is(&self, state: &str) -> bool {
        fs::read_to_string(&self.0).is_ok_and(|held| held == state)
    }

    /// The step was done for this state.
    pub(crate) fn set(&self, state: &str) -> Result<()> {
        let write = || -> io::Result<()> {
            if let Some(folder) = self.0.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(&self.0, state)
        };
        write().with_context(|| format!("cannot write {}", self.0.display()))
    }
}

/// One hash over names and contents of files and folders; what does not exist counts as nothing.
/// Names in `skipped` are left out at any depth.
///
/// # Errors
/// A file that exists cannot be read.
pub(crate) fn hash(paths: &[PathBuf], skipped: &[&str]) -> Result<String> {
    let mut hasher = Sha256::new();
    for path in paths {
        add(&mut hasher, path, skipped).with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(hex::encode(hasher.finalize()))
}

/// The hash of one file's bytes.
///
/// # Errors
/// It cannot be read.
pub(crate) fn bytes(file: &Path) -> Result<String> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(hex::encode(Sha256::digest(bytes)))
}

fn add(hasher: &mut Sha256, path: &Path, skipped: &[&str]) -> io::Result<()> {
    if path.is_dir() {
        let mut entries = fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?;
        entries
            .retain(|entry| !entry.file_name().is_some_and(|name| skipped.iter().any(|skip| name == *skip)));
        entries.sort();
        return entries.iter().try_for_each(|entry| add(hasher, entry, skipped));
    }
    if path.is_file() {
        let bytes = fs::read(path)?;
        let name = path.to_string_lossy();
        // Lengths keep "ab"+"c" and "a"+"bc" apart.
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(&bytes);
    }
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_changed_a_new_and_a_renamed_file_change_the_hash_but_a_skipped_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let root = vec![folder.path().to_path_buf()];
        let hash = || hash(&root, &["dist"]).unwrap();
        fs::create_dir_all(folder.path().join("dist")).unwrap();
        fs::write(folder.path().join("a"), "1").unwrap();
        let first = hash();
        fs::write(folder.path().join("dist/page.js"), "built").unwrap();
        assert_eq!(hash(), first, "what the step makes is no reason to do it again");
        fs::write(folder.path().join("a"), "2").unwrap();
        let changed = hash();
        assert_ne!(changed, first, "contents count");
        fs::rename(folder.path().join("a"), folder.path().join("b")).unwrap();
        assert_ne!(hash(), changed, "names count");
        let renamed = hash();
        fs::write(folder.path().join("c"), "").unwrap();
        assert_ne!(hash(), renamed, "an empty file counts");
    }
}
