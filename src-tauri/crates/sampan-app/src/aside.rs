//! A file of the state folder that cannot be read makes way for a new one, and stays for a person to look at.

use std::io;
use std::path::{Path, PathBuf};

/// How many such files of one name are kept.
const KEPT_MAX: u32 = 100;

/// Renames `file` to `file.damaged`, or the first of `file.damaged-2` and so on that is free. Returns its name.
/// # Errors
/// It cannot be renamed, or a hundred of them are there: then it stays as it is.
pub(crate) fn set_aside(file: &Path) -> io::Result<PathBuf> {
    let name = |number: u32| {
        let mut name = file.as_os_str().to_owned();
        name.push(if number == 1 { ".damaged".to_owned() } else { format!(".damaged-{number}") });
        PathBuf::from(name)
    };
    let free = (1..=KEPT_MAX).map(name).find(|aside| aside.symlink_metadata().is_err());
    let aside = free.ok_or_else(|| io::Error::other("too many damaged files of that name are kept"))?;
    std::fs::rename(file, &aside)?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_kept_under_a_name_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("queue.json");
        for (text, kept) in [("one", "queue.json.damaged"), ("two", "queue.json.damaged-2")] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(set_aside(&file).unwrap(), folder.path().join(kept));
        }
        assert_eq!(std::fs::read_to_string(folder.path().join("queue.json.damaged")).unwrap(), "one");
        assert!(set_aside(&file).is_err(), "there is none");
    }
}
