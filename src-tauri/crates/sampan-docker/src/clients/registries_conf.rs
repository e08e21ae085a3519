//! What `registries.conf` and its drop-ins say of registries, as far as it decides whose entry counts. One entry stands
//! for each prefix: a later file's replaces an earlier one's whole (containers/image, `sysregistriesv2`).

use std::path::{Path, PathBuf};

use super::Places;
use crate::files;

/// How many drop-ins are read: a person has a handful.
const FILES_MAX: usize = 256;

/// A file and the registries that it has entries for.
pub(super) struct Entries {
    /// The file.
    pub(super) path: PathBuf,
    /// The prefixes and locations of its entries.
    pub(super) names: Vec<String>,
}

/// The files that podman reads, in the order in which they count: the last one wins.
pub(super) fn read(places: &Places) -> Vec<Entries> {
    let [system, own] = [places.etc.join("containers"), places.home.join(".config/containers")];
    let main = |folder: &Path| folder.join("registries.conf");
    let mut paths = vec![if main(&own).is_file() { main(&own) } else { main(&system) }];
    paths.extend(drop_ins(&system.join("registries.conf.d")));
    paths.extend(drop_ins(&own.join("registries.conf.d")));
    let entries = |path: PathBuf| {
        let bytes = files::read(&path).ok()??;
        Some(Entries { names: names(&String::from_utf8_lossy(&bytes)), path })
    };
    paths.into_iter().filter_map(entries).collect()
}

fn drop_ins(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().take(FILES_MAX).flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "conf"));
    paths.sort();
    paths
}

/// The prefixes and locations of the entries, not of their mirrors. Reads TOML as people write it, a key a line.
fn names(text: &str) -> Vec<String> {
    let mut of_entry = false;
    let mut names = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            let header: String = line.split('#').next().unwrap_or_default().split_whitespace().collect();
            of_entry = header == "[[registry]]";
        } else if of_entry
            && let Some((key, value)) = line.split_once('=')
            && ["prefix", "location"].contains(&key.trim().trim_matches(['"', '\'']))
        {
            let value = value.trim();
            let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
            names.extend(quote.and_then(|quote| value.split(quote).nth(1)).map(str::to_owned));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_as_people_write_them_and_mirrors_are_not() {
        let text = "unqualified-search-registries = [\"docker.io\"]\n[[registry]]\nprefix=\"a.example\" # own\n  \
                    location = 'b.example/x'\n[[registry.mirror]]\nlocation = \"m.example\"\n[[ registry ]] # two\n\
                    \"location\" = \"c.example\"\n# prefix = \"d.example\"\n[aliases]\nlocation = \"e\"\n";
        assert_eq!(names(text), ["a.example", "b.example/x", "c.example"]);
    }
}
