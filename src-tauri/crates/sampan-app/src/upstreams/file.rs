//! `upstreams.json` in the state folder.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;

use sampan_mirror::Dropped;
use sampan_oci::{Lie, Millis, RegistryName};
use sampan_upstream::Url;
use serde::{Deserialize, Serialize};

use crate::aside::set_aside;
use crate::config::parse_url;

/// Its name in the state folder.
const NAME: &str = "upstreams.json";
/// The version written. A change that older versions would misread raises it.
const VERSION: u32 = 1;

/// What was chosen, and who was dropped.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Chosen {
    pub(super) registries: BTreeMap<RegistryName, Known>,
    pub(super) dropped: Vec<(RegistryName, Url, Dropped)>,
}

/// What was chosen for one registry.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Known {
    /// Where it is asked, of a registry that the configuration does not name.
    pub(super) origin: Option<Url>,
    pub(super) mirrors: Vec<Url>,
    /// Which of the mirrors is believed about tags.
    pub(super) trusted: Option<Url>,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    #[serde(default)]
    registries: Vec<Registry>,
    #[serde(default)]
    dropped: Vec<Liar>,
}

#[derive(Serialize, Deserialize)]
struct Registry {
    #[serde(rename = "registry")]
    name: String,
    #[serde(default)]
    origin: Option<String>,
    #[serde(default)]
    mirrors: Vec<String>,
    #[serde(default)]
    trusted: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Liar {
    registry: String,
    url: String,
    at: i64,
    lie: Lie,
    image: String,
    digest: String,
}

impl Chosen {
    /// Reads it. What cannot be read is set aside, and what an entry cannot mean is left out: both are told in the log.
    pub(super) fn load(state_dir: &Path) -> Self {
        let file = state_dir.join(NAME);
        let bytes = match std::fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "the choice of upstreams cannot be read");
                return Self::default();
            }
        };
        let read = serde_json::from_slice::<File>(&bytes);
        match read {
            Ok(read) if read.version == VERSION => Self::of(read),
            Ok(_) | Err(_) => {
                tracing::warn!(file = %file.display(), "the file of upstreams is damaged or of a newer Sampan: each registry is asked itself");
                // A person may have edited it and slipped: their text is kept beside ours.
                if let Err(error) = set_aside(&file) {
                    tracing::warn!(%error, "it could not be kept aside");
                }
                Self::default()
            }
        }
    }

    fn of(file: File) -> Self {
        let mut chosen = Self::default();
        for Registry { name: registry, origin, mirrors, trusted } in file.registries {
            let url = |text: &String| {
                let read = parse_url(text);
                if let Err(error) = &read {
                    tracing::warn!(registry, error, "an upstream is left out");
                }
                read.ok()
            };
            let Ok(name) = registry.parse() else {
                tracing::warn!(registry, "a registry is left out: that is not a registry's name");
                continue;
            };
            let known = Known {
                origin: origin.as_ref().and_then(url),
                mirrors: mirrors.iter().filter_map(url).collect(),
                trusted: trusted.as_ref().and_then(url),
            };
            chosen.registries.insert(name, known);
        }
        for Liar { registry, url, at, lie, image, digest } in file.dropped {
            if let (Ok(registry), Ok(url), Ok(image), Ok(digest)) =
                (registry.parse(), parse_url(&url), image.parse(), digest.parse())
            {
                chosen.dropped.push((registry, url, Dropped { at: Millis(at), lie, image, digest }));
            }
        }
        chosen
    }

    /// Replaces the file. Blocks on the disk.
    pub(super) fn save(&self, state_dir: &Path) -> io::Result<()> {
        let text = |url: &Url| url.as_str().trim_end_matches('/').to_owned();
        let registry = |(name, known): (&RegistryName, &Known)| Registry {
            name: name.to_string(),
            origin: known.origin.as_ref().map(text),
            mirrors: known.mirrors.iter().map(text).collect(),
            trusted: known.trusted.as_ref().map(text),
        };
        let liar = |(name, url, dropped): &(RegistryName, Url, Dropped)| Liar {
            registry: name.to_string(),
            url: text(url),
            at: dropped.at.0,
            lie: dropped.lie,
            image: dropped.image.to_string(),
            digest: dropped.digest.to_string(),
        };
        let file = File {
            version: VERSION,
            registries: self.registries.iter().map(registry).collect(),
            dropped: self.dropped.iter().map(liar).collect(),
        };
        let mut staged = tempfile::Builder::new().prefix(".upstreams-").tempfile_in(state_dir)?;
        staged.write_all(&serde_json::to_vec_pretty(&file)?)?;
        staged.as_file().sync_all()?;
        staged.persist(state_dir.join(NAME)).map_err(|error| error.error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_chosen_is_what_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let url = |text: &str| parse_url(text).unwrap();
        let known = Known {
            origin: Some(url("https://registry.example")),
            mirrors: vec![url("https://mirror.gcr.io"), url("http://10.0.0.5:7267")],
            trusted: Some(url("http://10.0.0.5:7267")),
        };
        let dropped = Dropped {
            at: Millis(5),
            lie: Lie::Part,
            image: "registry.example/team/app".parse().unwrap(),
            digest: sampan_oci::Digest::of(b"x"),
        };
        let name: RegistryName = "registry.example".parse().unwrap();
        let chosen = Chosen {
            registries: BTreeMap::from([(name.clone(), known)]),
            dropped: vec![(name, url("https://mirror.gcr.io"), dropped)],
        };
        chosen.save(folder.path()).unwrap();
        assert_eq!(Chosen::load(folder.path()), chosen);
    }

    #[test]
    fn a_damaged_file_costs_the_choice_and_never_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(NAME);
        assert_eq!(Chosen::load(folder.path()), Chosen::default(), "there is none");
        for text in ["", "{", "[]", r#"{"version":99}"#, r#"{"version":1,"registries":[{}]}"#] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(Chosen::load(folder.path()), Chosen::default(), "{text}");
            assert!(!file.exists() && file.with_extension("json.damaged").exists(), "{text}");
        }
        let partly = r#"{"version":1,"registries":[{"registry":"docker.io","mirrors":["https://a.example","ftp://x","https://b.example/path"]},
            {"registry":"not a name","mirrors":["https://a.example"]}]}"#;
        std::fs::write(&file, partly).unwrap();
        let read = Chosen::load(folder.path());
        assert_eq!(read.registries.len(), 1);
        assert_eq!(
            read.registries.values().next().unwrap().mirrors.len(),
            1,
            "what cannot be meant is left out"
        );
    }
}
