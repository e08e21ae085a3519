//! The names that archives give to images, read into Sampan's own.

use sampan_oci::{Digest, ImageName, Reference, RegistryName, Tag};

/// Longer texts are no names; clients refuse 255 bytes and a tag of 128.
const NAME_BYTES_MAX: usize = 512;

/// An image's name, with a tag if it has one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArchiveName {
    /// The repository.
    pub image: ImageName,
    /// The tag; `None`: it is known by its digest alone.
    pub tag: Option<Tag>,
}

impl ArchiveName {
    /// Reads what `docker save`, `podman save`, containerd and BuildKit write: `docker.io/library/alpine:3.20`, and the
    /// short forms that Docker completes (`alpine:3.20`, `someone/app:1`). A lone word is no name: it may be a tag. A
    /// digest after `@` names bytes, and is not needed: the manifest's own is known.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > NAME_BYTES_MAX {
            return None;
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse::<Digest>().ok()?)),
            None => (text, None),
        };
        let last = name.rfind('/').map_or(0, |slash| slash + 1);
        let (path, tag) = match name[last..].find(':') {
            Some(colon) => (&name[..last + colon], Some(name[last + colon + 1..].parse().ok()?)),
            None => (name, None),
        };
        if !path.contains('/') && tag.is_none() && digest.is_none() {
            return None;
        }
        Some(Self { image: complete(path)?, tag })
    }

    /// The full name: by tag, else by `digest`.
    pub(crate) fn full(&self, digest: &Digest) -> String {
        let tag = self.tag.clone().map(Reference::Tag);
        self.image.with(&tag.unwrap_or(Reference::Digest(*digest)))
    }
}

/// Docker's completion of a repository (distribution/reference, `splitDockerDomain`).
fn complete(path: &str) -> Option<ImageName> {
    let host = path.split_once('/').filter(|(first, _)| first.contains(['.', ':']) || *first == "localhost");
    let (registry, repository): (RegistryName, &str) = match host {
        Some((host, rest)) => (host.parse().ok()?, rest),
        None => (RegistryName::docker_hub(), path),
    };
    let repository = if registry.is_docker_hub() && !repository.contains('/') {
        format!("library/{repository}").parse()
    } else {
        repository.parse()
    };
    Some(ImageName { registry, repository: repository.ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Option<(String, Option<String>)> {
        ArchiveName::parse(text).map(|name| (name.image.to_string(), name.tag.map(|tag| tag.to_string())))
    }

    #[test]
    fn names_are_completed_as_docker_does() {
        for (text, image, tag) in [
            ("docker.io/library/alpine:3.20", "docker.io/library/alpine", Some("3.20")),
            ("alpine:3.20", "docker.io/library/alpine", Some("3.20")),
            ("docker.io/alpine:3", "docker.io/library/alpine", Some("3")),
            ("index.docker.io/library/alpine:3", "docker.io/library/alpine", Some("3")),
            ("someone/app:1", "docker.io/someone/app", Some("1")),
            ("localhost/app:1", "localhost/app", Some("1")),
            ("localhost:5000/app:1", "localhost:5000/app", Some("1")),
            ("ghcr.io/a/b/c:v1", "ghcr.io/a/b/c", Some("v1")),
            ("ghcr.io/a/b", "ghcr.io/a/b", None),
        ] {
            assert_eq!(read(text), Some((image.into(), tag.map(Into::into))), "{text}");
        }
        let by_digest = format!("docker.io/library/alpine@{}", Digest::of(b"x"));
        assert_eq!(read(&by_digest), Some(("docker.io/library/alpine".into(), None)));
    }

    #[test]
    fn what_is_no_full_name_is_none() {
        let long = format!("{}:1", "a/".repeat(400));
        for text in [
            "",
            "3.20",
            "latest",
            ":",
            "/",
            "a:",
            ":1",
            "../etc:1",
            "docker.io/../x:1",
            "docker.io/library/al\npine:1",
            "docker.io/library/alpine:\u{202e}1",
            "Docker.io/library/alpine:1",
            "docker.io/library/ALPINE:1",
            "http://docker.io/library/alpine:1",
            "docker.io/library/alpine@sha256:00",
            "docker.io//alpine:1",
            &long,
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_a_full_name_reads_back(text in "\\PC{0,80}|[a-z0-9./:@_-]{0,60}") {
            if let Some(name) = ArchiveName::parse(&text) {
                let full = name.full(&Digest::of(b""));
                prop_assert_eq!(ArchiveName::parse(&full), Some(name));
            }
        }
    }
}
