//! `manifest.json`: the list that `docker load` reads before Docker 25, and podman where an archive holds several images.
//! Docker 25 and later write it into OCI layouts too.

use std::collections::HashSet;

use sampan_oci::{Manifest, ManifestKind, Platform};
use serde::Serialize;

use crate::document::blob_name;
use crate::tree::{Chosen, Piece, Tree};

/// Its name.
pub(crate) const LIST: &str = "manifest.json";

/// The configurations that Docker runs; others are artifacts.
const CONFIGURATIONS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// One image of the list, by the paths of its blobs.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Listed {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl Listed {
    /// The entry of an image: for this machine's platform if that goes, else for the first. `tag`: its full name, if it
    /// has one with a tag. `None`: nothing Docker could load.
    pub(crate) fn of(tree: &Tree, chosen: &Chosen, tag: Option<String>) -> Option<Self> {
        let going: HashSet<&Piece> = chosen.pieces.iter().collect();
        let mut found: Vec<(bool, Self)> = Vec::new();
        let root = tree.manifest(&tree.root())?;
        match &root.kind {
            ManifestKind::Image { .. } => return Self::single(root, &going, tag),
            ManifestKind::Index(listed) => {
                for child in listed.iter().filter(|child| going.contains(&Piece::of(child))) {
                    let native = child.platform.as_ref().is_some_and(is_native);
                    let manifest = tree.manifest(&Piece::of(child));
                    let entry = manifest.and_then(|manifest| Self::single(manifest, &going, tag.clone()));
                    found.extend(entry.map(|entry| (native, entry)));
                }
            }
        }
        let native = found.iter().position(|(native, _)| *native);
        (!found.is_empty()).then(|| found.swap_remove(native.unwrap_or(0)).1)
    }

    fn single(manifest: &Manifest, going: &HashSet<&Piece>, tag: Option<String>) -> Option<Self> {
        let ManifestKind::Image { config, layers } = &manifest.kind else { return None };
        let all = std::iter::once(config).chain(layers);
        // A layer that is to be fetched from elsewhere has no path here.
        if !CONFIGURATIONS.contains(&config.media_type.as_str())
            || !all.map(Piece::of).all(|piece| going.contains(&piece))
        {
            return None;
        }
        Some(Self {
            config: blob_name(&config.digest),
            repo_tags: tag.into_iter().collect(),
            layers: layers.iter().map(|layer| blob_name(&layer.digest)).collect(),
        })
    }
}

/// Whether containers of this platform run on this machine: Linux ones, on every system that runs containers.
fn is_native(platform: &Platform) -> bool {
    // Go's names for the architectures, where they differ from Rust's.
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    };
    platform.os == "linux" && platform.architecture == architecture
}
