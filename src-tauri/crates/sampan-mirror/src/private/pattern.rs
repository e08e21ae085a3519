//! Which repositories a person's permission to use a login is for. Pure.

use std::fmt;
use std::str::FromStr;

use sampan_oci::{ImageName, RegistryName, RepositoryName};

/// Registries that are everybody's: a login for all of one would make public images private, and those are served offline
/// and to a team no longer.
const PUBLIC: [&str; 7] =
    ["docker.io", "ghcr.io", "quay.io", "gcr.io", "registry.k8s.io", "mcr.microsoft.com", "public.ecr.aws"];

/// Some repositories of one registry: `ghcr.io/acme/app`, `ghcr.io/acme/*` with all below it, `registry.acme.example/*`.
/// What begins with no registry is on Docker Hub. There is no other wildcard: a permission must not mean more than it says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PrivatePattern {
    registry: RegistryName,
    /// The repository, or with `below` what its name begins with; empty: everything.
    path: String,
    below: bool,
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPrivatePattern {
    /// Not the form.
    #[error("write a repository or everything below a name: ghcr.io/acme/app, ghcr.io/acme/*")]
    Form,
    /// All of a registry that is everybody's, or Docker's own images.
    #[error("most of this is public and needs no login: write your own part of it, such as ghcr.io/acme/*")]
    Public,
}

impl FromStr for PrivatePattern {
    type Err = InvalidPrivatePattern;

    fn from_str(text: &str) -> Result<Self, InvalidPrivatePattern> {
        let text = text.trim();
        let first = text.split('/').next().unwrap_or_default();
        let (registry, rest) = match text.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
            Some(_) => ("docker.io", text),
            None => return Err(if first.is_empty() { InvalidPrivatePattern::Form } else { whole(first) }),
        };
        let registry: RegistryName = registry.parse().map_err(|_| InvalidPrivatePattern::Form)?;
        let (path, below) = match rest.strip_suffix('*') {
            None => (rest, false),
            Some("") => ("", true),
            Some(path) => (path.strip_suffix('/').ok_or(InvalidPrivatePattern::Form)?, true),
        };
        let is_everything = path.is_empty();
        if is_everything && !below {
            return Err(InvalidPrivatePattern::Form);
        }
        if !is_everything && path.parse::<RepositoryName>().is_err() {
            return Err(InvalidPrivatePattern::Form);
        }
        let official = registry.as_str() == "docker.io" && path.split('/').next() == Some("library");
        if official || is_everything && PUBLIC.contains(&registry.as_str()) {
            return Err(InvalidPrivatePattern::Public);
        }
        Ok(Self { registry, path: path.to_owned(), below })
    }
}

/// What is wrong with a single name.
fn whole(name: &str) -> InvalidPrivatePattern {
    // `nginx` is Docker's own, `docker.io` is everybody's.
    if name.contains('*') { InvalidPrivatePattern::Form } else { InvalidPrivatePattern::Public }
}

impl fmt::Display for PrivatePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { registry, path, below } = self;
        match (path.is_empty(), below) {
            (true, _) => write!(f, "{registry}/*"),
            (false, true) => write!(f, "{registry}/{path}/*"),
            (false, false) => write!(f, "{registry}/{path}"),
        }
    }
}

impl PrivatePattern {
    /// The registry, and thereby whose login it is about.
    pub fn registry(&self) -> &RegistryName {
        &self.registry
    }

    /// Whether it is for this image.
    pub fn matches(&self, image: &ImageName) -> bool {
        let name = image.repository.as_str();
        let beyond = name.strip_prefix(self.path.as_str());
        image.registry == self.registry
            && match (self.below, self.path.is_empty()) {
                (true, true) => true,
                (true, false) => beyond.is_some_and(|rest| rest.starts_with('/')),
                (false, _) => name == self.path,
            }
    }

    /// The pattern a person most likely wants for an image that turned out to be private: everything beside it.
    pub fn around(image: &ImageName) -> Option<Self> {
        let folder = image.repository.as_str().rsplit_once('/').map(|(folder, _)| folder);
        let beside = folder.map_or_else(|| "*".to_owned(), |folder| format!("{folder}/*"));
        let exact = || format!("{}/{}", image.registry, image.repository).parse().ok();
        format!("{}/{beside}", image.registry).parse().ok().or_else(exact)
    }

    /// How closely it says what it is for.
    pub(super) fn closeness(&self) -> (bool, usize) {
        (!self.below, self.path.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, image: &str) -> bool {
        pattern.parse::<PrivatePattern>().unwrap().matches(&image.parse().unwrap())
    }

    #[test]
    fn a_pattern_means_what_it_says_and_no_more() {
        for (pattern, image) in [
            ("ghcr.io/acme/*", "ghcr.io/acme/app"),
            ("ghcr.io/acme/*", "ghcr.io/acme/team/app"),
            ("ghcr.io/acme/app", "ghcr.io/acme/app"),
            ("acme/*", "docker.io/acme/app"),
            ("docker.io/acme/app", "docker.io/acme/app"),
            ("registry.acme.example/*", "registry.acme.example/app"),
            ("127.0.0.1:5000/*", "127.0.0.1:5000/a/b"),
        ] {
            assert!(matches(pattern, image), "{image} is {pattern}");
        }
        for (pattern, image) in [
            ("ghcr.io/acme/*", "ghcr.io/acme"),
            ("ghcr.io/acme/*", "ghcr.io/acme-evil/app"),
            ("ghcr.io/acme/*", "docker.io/acme/app"),
            ("ghcr.io/acme/app", "ghcr.io/acme/app2"),
            ("ghcr.io/acme/app", "ghcr.io/acme/app/more"),
            ("127.0.0.1:5000/*", "127.0.0.1:5001/a"),
            ("registry.acme.example/*", "registry.acme.example.evil.test/app"),
        ] {
            assert!(!matches(pattern, image), "{image} is not {pattern}");
        }
    }

    #[test]
    fn what_would_mean_too_much_is_refused() {
        use InvalidPrivatePattern::{Form, Public};
        for (text, why) in [
            ("", Form),
            ("*", Form),
            ("*/*", Form),
            ("*.io/acme/*", Form),
            ("ghcr.io/*/app", Form),
            ("ghcr.io/acme*", Form),
            ("ghcr.io/acme/**", Form),
            ("ghcr.io/acme/app:1", Form),
            ("ghcr.io/Acme/app", Form),
            ("ghcr.io/acme/../app", Form),
            ("ghcr.io/", Form),
            ("https://ghcr.io/acme/*", Form),
            ("ghcr.io/*", Public),
            ("docker.io/*", Public),
            ("docker.io/library/*", Public),
            ("library/nginx", Public),
            ("docker.io", Public),
            ("nginx", Public),
        ] {
            assert_eq!(text.parse::<PrivatePattern>(), Err(why), "{text:?}");
        }
    }

    #[test]
    fn a_pattern_is_shown_as_it_is_written() {
        for text in ["ghcr.io/acme/*", "ghcr.io/acme/app", "registry.acme.example/*", "localhost:5000/a/*"] {
            assert_eq!(text.parse::<PrivatePattern>().unwrap().to_string(), text);
        }
        let around = |image: &str| PrivatePattern::around(&image.parse().unwrap()).unwrap().to_string();
        assert_eq!(around("ghcr.io/acme/app"), "ghcr.io/acme/*");
        assert_eq!(around("registry.acme.example/app"), "registry.acme.example/*");
        assert_eq!(around("quay.io/app"), "quay.io/app");
    }
}
