//! Image names as people write them, and in full.

use sampan_oci::{ImageName, Reference};

use crate::convert;

/// Reads a name as Docker does: `nginx` is `docker.io/library/nginx:latest`; with a tag and a digest, the digest counts.
/// # Errors
/// A sentence for the person who wrote it.
pub(crate) fn parse(text: &str) -> Result<(ImageName, Reference), String> {
    let selected = convert::selected(text.trim()).map_err(|error| error.message)?;
    let mut image = selected.image;
    if image.registry.is_docker_hub() && !image.repository.as_str().contains('/') {
        let official = format!("library/{}", image.repository);
        image.repository = official.parse().map_err(|error: sampan_oci::InvalidName| error.to_string())?;
    }
    let latest = || "latest".parse().map_err(|error: sampan_oci::InvalidName| error.to_string());
    let reference = selected.reference.map_or_else(latest, Ok)?;
    Ok((image, reference))
}

/// The same, in full as text.
pub(crate) fn full(text: &str) -> Result<String, String> {
    parse(text).map(|(image, reference)| image.with(&reference))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_read_as_docker_reads_them() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let pinned = format!("docker.io/library/nginx@{digest}");
        for (written, full_name) in [
            ("nginx", "docker.io/library/nginx:latest"),
            (" nginx:1.27 ", "docker.io/library/nginx:1.27"),
            ("bitnami/redis:7", "docker.io/bitnami/redis:7"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
            ("ghcr.io/owner/name:x", "ghcr.io/owner/name:x"),
            ("ghcr.io/tool", "ghcr.io/tool:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a/b:1", "localhost:5000/a/b:1"),
            (&format!("nginx:1.27@{digest}"), &pinned),
        ] {
            assert_eq!(full(written).unwrap(), full_name, "{written:?}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_a_reason() {
        for (wrong, why) in [
            ("", "is no image name"),
            ("Nginx", "lowercase"),
            ("nginx:", "a tag is"),
            ("nginx:a b", "a tag is"),
            ("nginx@sha256:123", "digest"),
            ("http://nginx", "is no image name"),
            ("-x", "is no image name"),
            ("a//b", "is no image name"),
            ("$X", "is no image name"),
        ] {
            let refused = full(wrong).expect_err(wrong);
            assert!(refused.contains(why), "{wrong:?} should say {why:?}: {refused}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_a_full_name_is_its_own(text in "\\PC{0,100}") {
            if let Ok(name) = full(&text) {
                prop_assert_eq!(full(&name).unwrap(), name.clone());
            }
        }
    }
}
