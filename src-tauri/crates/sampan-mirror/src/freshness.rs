//! How often tags are asked about, by registry and repository. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sampan_oci::ImageName;

/// How often a tag's upstream is asked where it points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Check {
    /// At every pull.
    #[default]
    Always,
    /// When the last answer is this old, or older.
    Every(Duration),
    /// Only when a person asks for it.
    OnRequest,
    /// Never: what is held stays what the tag means.
    Never,
}

/// What holds for some repositories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// How often.
    pub check: Check,
    /// How long after its last confirmation a tag is still answered while its upstream cannot say; `None`: for ever.
    pub stale_max: Option<Duration>,
}

/// Which repositories a policy is for: `docker.io/library/*`, `ghcr.io/acme/**`, `quay.io`, `nginx`.
///
/// Written as images are: what does not begin with a registry is on Docker Hub, and a single name is in `library/`. A `*`
/// stands for any characters within one part of the name, a part `**` for any number of parts, also none. A registry
/// alone, and `*` alone, mean everything below.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    parts: Vec<String>,
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "write a registry and a repository, with * for a part of it: docker.io/library/*, ghcr.io/acme/**, nginx"
)]
pub struct InvalidPattern;

/// The longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 256;

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let mut parts: Vec<String> = text.trim().split('/').map(str::to_owned).collect();
        let first = parts.first().ok_or(InvalidPattern)?.clone();
        let is_registry = first.contains(['.', ':', '*']) || first == "localhost";
        match (is_registry, parts.len()) {
            (true, 1) => parts.push("**".into()),
            (true, _) => {}
            (false, 1) => parts.splice(0..0, ["docker.io".to_owned(), "library".to_owned()]).for_each(drop),
            (false, _) => parts.insert(0, "docker.io".into()),
        }
        let good = |(place, part): (usize, &String)| {
            let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-*".contains(&b);
            let host_only = |b: u8| place == 0 && (b == b':' || b.is_ascii_uppercase());
            !part.is_empty()
                && part.bytes().all(|b| allowed(b) || host_only(b))
                && (part == "**" || !part.contains("**"))
        };
        // `nginx:1.27` would be a registry with a port: tags are frozen, not patterns.
        let port = first.split_once(':');
        let is_port = |(host, port): (&str, &str)| {
            let named = host.contains(['.', '*']) || host == "localhost" || parts.len() > 2;
            named && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
        };
        if !port.is_none_or(is_port) {
            return Err(InvalidPattern);
        }
        let short = parts.iter().map(String::len).sum::<usize>() <= PATTERN_BYTES_MAX;
        if short && parts.iter().enumerate().all(good) { Ok(Self { parts }) } else { Err(InvalidPattern) }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parts.join("/"))
    }
}

impl Pattern {
    /// Whether it is for this image.
    pub fn matches(&self, image: &ImageName) -> bool {
        let name: Vec<&str> =
            std::iter::once(image.registry.as_str()).chain(image.repository.as_str().split('/')).collect();
        let parts: Vec<&str> = self.parts.iter().map(String::as_str).collect();
        matches_parts(&parts, &name)
    }

    /// How closely it says what it is for: more written-out characters first, then fewer `**`, then fewer `*`.
    fn specificity(&self) -> (usize, std::cmp::Reverse<usize>, std::cmp::Reverse<usize>) {
        let stars = |part: &String| part.bytes().filter(|b| *b == b'*').count();
        let written = self.parts.iter().map(|part| part.len() - stars(part)).sum();
        let deep = self.parts.iter().filter(|part| *part == "**").count();
        (written, std::cmp::Reverse(deep), std::cmp::Reverse(self.parts.iter().map(stars).sum()))
    }
}

/// Whether the parts of a name fit the parts of a pattern. Goes back to the last `**` only, so that no pattern takes long.
fn matches_parts(pattern: &[&str], name: &[&str]) -> bool {
    glob(pattern, name, |part| *part == "**", |part, of| matches_part(part, of))
}

fn matches_part(pattern: &str, part: &str) -> bool {
    glob(pattern.as_bytes(), part.as_bytes(), |b| *b == b'*', |a, b| a == b)
}

/// Whether `items` fit `pattern`, in which what `is_many` stands for any number of them.
fn glob<P, T>(
    pattern: &[P],
    items: &[T],
    is_many: impl Fn(&P) -> bool,
    fits: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut at, mut next) = (0, 0);
    let mut last_many = None;
    while next < items.len() {
        match pattern.get(at) {
            Some(part) if is_many(part) => {
                last_many = Some((at, next));
                at += 1;
            }
            Some(part) if fits(part, &items[next]) => (at, next) = (at + 1, next + 1),
            Some(_) | None => {
                let Some((many, from)) = last_many else { return false };
                last_many = Some((many, from + 1));
                (at, next) = (many + 1, from + 1);
            }
        }
    }
    pattern[at..].iter().all(is_many)
}

/// All policies, the closest pattern first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    rules: Vec<(Pattern, Policy)>,
}

impl Freshness {
    /// Policies in any order. Of several for the same pattern the last one holds.
    pub fn new(rules: impl IntoIterator<Item = (Pattern, Policy)>) -> Self {
        let mut kept: Vec<(Pattern, Policy)> = Vec::new();
        for (pattern, policy) in rules {
            kept.retain(|(known, _)| *known != pattern);
            kept.push((pattern, policy));
        }
        kept.sort_by(|(a, _), (b, _)| {
            b.specificity().cmp(&a.specificity()).then_with(|| a.parts.cmp(&b.parts))
        });
        Self { rules: kept }
    }

    /// What holds for an image: the policy of the closest pattern that matches; without one, its tags are asked about at
    /// every pull, and answered without a limit of age while their upstream cannot say.
    pub fn policy(&self, image: &ImageName) -> Policy {
        self.rules
            .iter()
            .find(|(pattern, _)| pattern.matches(image))
            .map(|(_, policy)| *policy)
            .unwrap_or_default()
    }

    /// The policies, in the order in which they are tried.
    pub fn rules(&self) -> &[(Pattern, Policy)] {
        &self.rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap_or_else(|_| panic!("{text}"))
    }

    #[test]
    fn patterns_are_written_as_images_are() {
        for (written, full) in [
            ("nginx", "docker.io/library/nginx"),
            ("library/*", "docker.io/library/*"),
            ("bitnami/redis", "docker.io/bitnami/redis"),
            ("docker.io", "docker.io/**"),
            ("*", "*/**"),
            ("ghcr.io/acme/**", "ghcr.io/acme/**"),
            ("localhost:5000/a*/b", "localhost:5000/a*/b"),
            ("*.example.com/x", "*.example.com/x"),
        ] {
            assert_eq!(pattern(written).to_string(), full);
            assert_eq!(pattern(full), pattern(written), "what is shown can be written");
        }
        for bad in [
            "",
            "/",
            "a//b",
            "docker.io/",
            "NGINX",
            "nginx:1.27",
            "a b",
            "ghcr.io/a**",
            "ghcr.io/***",
            "../x y",
        ] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_star_stays_within_a_part_and_two_go_any_depth() {
        for (written, image, fits) in [
            ("docker.io/library/*", "docker.io/library/nginx", true),
            ("docker.io/library/*", "docker.io/bitnami/nginx", false),
            ("docker.io/*", "docker.io/library/nginx", false),
            ("ghcr.io/acme/**", "ghcr.io/acme/a", true),
            ("ghcr.io/acme/**", "ghcr.io/acme/a/b/c", true),
            ("ghcr.io/acme/**", "ghcr.io/acme2/a", false),
            ("ghcr.io/**/app", "ghcr.io/a/b/app", true),
            ("ghcr.io/**/app", "ghcr.io/app", true),
            ("ghcr.io/**/app", "ghcr.io/a/b", false),
            ("ghcr.io/a*c/x-*-y", "ghcr.io/abc/x-1-y", true),
            ("ghcr.io/a*c/x-*-y", "ghcr.io/abc/x-y", false),
            ("*", "quay.io/any/thing", true),
            ("quay.io", "quay.io/any/thing/at/all", true),
        ] {
            assert_eq!(pattern(written).matches(&image.parse().unwrap()), fits, "{written} {image}");
        }
    }

    #[test]
    fn the_closest_pattern_decides_in_whatever_order_they_come() {
        let every = |minutes| Policy { check: Check::Every(Duration::from_mins(minutes)), stale_max: None };
        let mut rules = vec![
            (pattern("*"), every(1)),
            (pattern("docker.io/**"), every(2)),
            (pattern("docker.io/library/*"), every(3)),
            (pattern("docker.io/library/ng*"), every(4)),
            (pattern("nginx"), every(5)),
        ];
        for _ in 0..rules.len() {
            rules.rotate_left(1);
            let freshness = Freshness::new(rules.clone());
            for (image, minutes) in [
                ("quay.io/a/b", 1),
                ("docker.io/a/b", 2),
                ("docker.io/library/alpine", 3),
                ("docker.io/library/ngx", 4),
                ("docker.io/library/nginx", 5),
            ] {
                assert_eq!(freshness.policy(&image.parse().unwrap()), every(minutes), "{image}");
            }
        }
        assert_eq!(Freshness::default().policy(&"quay.io/a/b".parse().unwrap()).check, Check::Always);
        let twice = Freshness::new([(pattern("nginx"), every(1)), (pattern("library/nginx"), every(2))]);
        assert_eq!(twice.rules(), [(pattern("nginx"), every(2))], "the last one said");
    }

    proptest! {
        #[test]
        fn a_name_matches_itself_and_no_pattern_takes_long(name in "[a-z]{1,8}(/[a-z]{1,8}){0,6}", stars in "[a*]{0,40}") {
            let image: ImageName = format!("quay.io/{name}").parse().unwrap();
            prop_assert!(pattern(&image.to_string()).matches(&image));
            if let Ok(wild) = format!("quay.io/{stars}").parse::<Pattern>() {
                wild.matches(&image);
            }
        }
    }
}
