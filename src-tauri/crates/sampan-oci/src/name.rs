//! Names: registries, repositories, tags, and what a pull asks for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Digest, InvalidDigest};

/// Why a text is not a name. The texts are written for the person who typed the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Not a registry: a DNS name or address, optionally with a port, lowercase.
    #[error(
        "a registry is a lowercase host name, optionally with a port, such as `docker.io` or `localhost:5000`"
    )]
    Registry,
    /// Not a repository (distribution-spec, "Pulling manifests", `<name>`).
    #[error(
        "a repository is lowercase letters and digits in parts separated by `/`, such as `library/alpine`"
    )]
    Repository,
    /// Not a tag (distribution-spec, "Pulling manifests", `<reference>`).
    #[error("a tag is up to 128 letters, digits, `_`, `.` and `-`, and does not start with `.` or `-`")]
    Tag,
    /// Looks like a digest but is not one.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
}

/// The longest repository name with its host, in bytes; clients refuse longer ones.
const NAME_BYTES_MAX: usize = 255;

macro_rules! text_type {
    ($name:ident) => {
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                from_text(deserializer)
            }
        }
    };
}

/// Reads a value from the text it is written as; shared by every checked type of this crate.
pub(crate) fn from_text<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr,
    T::Err: fmt::Display,
    D: Deserializer<'de>,
{
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

/// A registry, by the name images call it: `docker.io`, `ghcr.io`, `localhost:5000`. Never a URL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RegistryName(String);
text_type!(RegistryName);

impl RegistryName {
    /// Docker Hub, the registry of every image name without a host.
    pub fn docker_hub() -> Self {
        Self("docker.io".into())
    }

    /// Whether this is Docker Hub, whose one-part names live under `library/`.
    pub fn is_docker_hub(&self) -> bool {
        self.0 == "docker.io"
    }
}

impl FromStr for RegistryName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        let label = |l: &str| {
            !l.is_empty()
                && l.len() <= 63
                && l.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
                && !l.starts_with('-')
                && !l.ends_with('-')
        };
        let port_is_good = port.is_none_or(|p| {
            p.bytes().all(|b| b.is_ascii_digit())
                && p.parse::<u16>().is_ok_and(|n| n > 0)
                && !p.starts_with('0')
        });
        if text.len() > NAME_BYTES_MAX || !host.split('.').all(label) || !port_is_good {
            return Err(InvalidName::Registry);
        }
        // Docker's own aliases for the Hub must not become a second registry with a second cache.
        match text {
            "index.docker.io" | "registry-1.docker.io" => Ok(Self::docker_hub()),
            other => Ok(Self(other.into())),
        }
    }
}

/// A repository: `library/alpine` (distribution-spec, "Pulling manifests":
/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`, at most 255 bytes).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RepositoryName(String);
text_type!(RepositoryName);

impl FromStr for RepositoryName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.len() > NAME_BYTES_MAX || !text.split('/').all(is_path_component) {
            return Err(InvalidName::Repository);
        }
        Ok(Self(text.into()))
    }
}

/// Alphanumeric runs, joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9');
    let mut bytes = component.bytes().peekable();
    loop {
        if !bytes.next().is_some_and(alphanumeric) {
            return false;
        }
        while bytes.next_if(|&b| alphanumeric(b)).is_some() {}
        match bytes.next() {
            None => return true,
            Some(b'.') => {}
            Some(b'_') => drop(bytes.next_if_eq(&b'_')),
            Some(b'-') => while bytes.next_if_eq(&b'-').is_some() {},
            Some(_) => return false,
        }
    }
}

/// A tag, a name that moves (distribution-spec: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Tag(String);
text_type!(Tag);

impl FromStr for Tag {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let starts_well = text.bytes().next().is_some_and(word);
        let goes_on_well = text.bytes().all(|b| word(b) || b == b'.' || b == b'-');
        if !starts_well || !goes_on_well || text.len() > 128 {
            return Err(InvalidName::Tag);
        }
        Ok(Self(text.into()))
    }
}

/// What a manifest request names: a tag, which moves, or a digest, which cannot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// A tag.
    Tag(Tag),
    /// A digest.
    Digest(Digest),
}

impl FromStr for Reference {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        // A tag holds no colon, so a colon means a digest, well or badly spelt.
        if text.contains(':') { Ok(Self::Digest(text.parse()?)) } else { Ok(Self::Tag(text.parse()?)) }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// A repository of a registry: `docker.io/library/alpine`. The key of everything Sampan knows about an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName {
    /// The registry the repository lives in.
    pub registry: RegistryName,
    /// The repository.
    pub repository: RepositoryName,
}

impl ImageName {
    /// The name with a reference, as `docker pull` takes it: `docker.io/library/alpine:3.20`.
    pub fn with(&self, reference: &Reference) -> String {
        match reference {
            Reference::Tag(tag) => format!("{self}:{tag}"),
            Reference::Digest(digest) => format!("{self}@{digest}"),
        }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)
    }
}

impl FromStr for ImageName {
    type Err = InvalidName;

    /// Reads the full form that [`Display`](fmt::Display) writes; short forms such as `alpine` are refused.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (registry, repository) = text.split_once('/').ok_or(InvalidName::Repository)?;
        Ok(Self { registry: registry.parse()?, repository: repository.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn repositories_follow_the_specs_grammar() {
        for good in [
            "a",
            "library/alpine",
            "a/b/c/d",
            "my.image",
            "my_image",
            "my__image",
            "my--image",
            "my-----x",
            "0",
        ] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good} is a repository");
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "Library/alpine",
            ".",
            "..",
            "a/..",
            "../a",
            "a/.",
            ".a",
            "a.",
            "a..b",
            "_a",
            "a_",
            "a___b",
            "-a",
            "a-",
            "a.-b",
            "a%2fb",
            "a\\b",
            "a b",
            "a\0",
            "a\n",
            "a\r\nb",
            "é",
            "a/../../etc/passwd",
            "a:b",
            "a@b",
            "~",
            "a/%2e%2e",
        ] {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad:?} is no repository");
        }
        assert!("a".repeat(255).parse::<RepositoryName>().is_ok());
        assert!("a".repeat(256).parse::<RepositoryName>().is_err());
    }

    #[test]
    fn tags_follow_the_specs_grammar() {
        for good in ["latest", "3.20", "_x", "V1-rc.2", "a"] {
            assert!(good.parse::<Tag>().is_ok(), "{good} is a tag");
        }
        for bad in ["", ".", "..", "-a", ".a", "a/b", "a:b", "a b", "a\n", "a%20", "\u{202e}x", "a@b"] {
            assert!(bad.parse::<Tag>().is_err(), "{bad:?} is no tag");
        }
        assert!("a".repeat(128).parse::<Tag>().is_ok());
        assert!("a".repeat(129).parse::<Tag>().is_err());
    }

    #[test]
    fn registries_are_hosts_and_the_hubs_aliases_are_the_hub() {
        for good in ["docker.io", "ghcr.io", "localhost:5000", "127.0.0.1:5601", "a", "registry.k8s.io"] {
            assert_eq!(good.parse::<RegistryName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "-a",
            "a-",
            "Docker.io",
            "http://a",
            "a/b",
            "a:0",
            "a:65536",
            "a:",
            "a:b",
            "a:1:2",
            "user@host",
            "[::1]",
            "a:007",
            "docker.io@evil",
        ] {
            assert!(bad.parse::<RegistryName>().is_err(), "{bad:?} is no registry");
        }
        for alias in ["index.docker.io", "registry-1.docker.io"] {
            assert!(alias.parse::<RegistryName>().unwrap().is_docker_hub());
        }
    }

    #[test]
    fn a_colon_makes_a_reference_a_digest() {
        assert!(matches!("latest".parse(), Ok(Reference::Tag(_))));
        assert!(matches!(Digest::of(b"").to_string().parse(), Ok(Reference::Digest(_))));
        assert!(matches!("sha256:totallywrong".parse::<Reference>(), Err(InvalidName::Digest(_))));
    }

    proptest! {
        #[test]
        fn accepted_names_are_plain_ascii_without_path_tricks(text in "[a-z0-9._/%-]{0,40}") {
            if let Ok(name) = text.parse::<RepositoryName>() {
                prop_assert!(name.as_str().split('/').all(|part| part != "." && part != ".." && !part.is_empty()));
                prop_assert!(!name.as_str().contains('%'));
            }
        }

        #[test]
        fn no_text_panics_a_parser(text in "\\PC{0,300}") {
            let _ = text.parse::<RepositoryName>();
            let _ = text.parse::<RegistryName>();
            let _ = text.parse::<Reference>();
            let _ = text.parse::<ImageName>();
        }
    }
}
