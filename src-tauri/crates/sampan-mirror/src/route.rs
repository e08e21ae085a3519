//! The raw path and query of a request, read into types or refused, before anything else looks at it.

use http::StatusCode;
use sampan_oci::{Digest, ImageName, OciCode, Reference, RegistryName, RepositoryName, Tag};

/// The most tags one page may hold; larger `n` are clamped (SECURITY.md 3).
const TAGS_PAGE_MAX: u32 = 1000;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/v2/`: is this a registry?
    Ping,
    /// A manifest.
    Manifest(ImageName, Reference),
    /// A blob.
    Blob(ImageName, Digest),
    /// A page of tags: at most `n`, after `last`.
    Tags { image: ImageName, n: Option<u32>, last: Option<Tag> },
    /// What refers to a manifest.
    Referrers { image: ImageName, subject: Digest, artifact_type: Option<String> },
}

impl Route {
    /// The repository it is about.
    pub(crate) fn image(&self) -> Option<&ImageName> {
        match self {
            Self::Ping => None,
            Self::Manifest(image, _)
            | Self::Blob(image, _)
            | Self::Tags { image, .. }
            | Self::Referrers { image, .. } => Some(image),
        }
    }
}

/// A request that is refused before anything is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: OciCode,
    pub(crate) message: String,
}

impl Refusal {
    fn bad(code: OciCode, message: impl std::fmt::Display) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code, message: format!("{message}") }
    }

    fn not_found(code: OciCode, message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, code, message: message.into() }
    }
}

/// Reads a request's raw path and query (distribution-spec, "Endpoints"; CLIENTS.md R-M12). The registry is named by
/// `ns=` (containerd), by a path before `/v2` (registry-mirrors with a path), or by the first part of the repository
/// (podman, explicit names); without any it is Docker Hub. Only registries that `mirrored` accepts are answered for.
pub(crate) fn parse(
    path: &str,
    query: Option<&str>,
    mirrored: impl Fn(&RegistryName) -> bool,
) -> Result<Route, Refusal> {
    let (prefix, rest) = split_version(path)?;
    if rest.is_empty() {
        return Ok(Route::Ping);
    }
    let query = Query::parse(query)?;
    let mut parts: Vec<&str> = rest.split('/').collect();
    let (Some(last), Some(verb)) = (parts.pop(), parts.pop()) else { return Err(unknown_path()) };
    let name = parts.join("/");
    // The verb is looked at before the name, so that an unknown endpoint is 404 and a bad name is 400.
    let known = matches!((verb, last), ("manifests" | "blobs" | "referrers", _) | ("tags", "list"));
    if !known || name.is_empty() {
        return Err(unknown_path());
    }
    let image = image(prefix, query.ns.as_deref(), &name, mirrored)?;
    let digest = || last.parse::<Digest>().map_err(|error| Refusal::bad(OciCode::DigestInvalid, error));
    match verb {
        "manifests" => {
            let code = if last.contains(':') { OciCode::DigestInvalid } else { OciCode::ManifestInvalid };
            Ok(Route::Manifest(image, last.parse().map_err(|error| Refusal::bad(code, error))?))
        }
        "blobs" => Ok(Route::Blob(image, digest()?)),
        "referrers" => Ok(Route::Referrers { image, subject: digest()?, artifact_type: query.artifact_type }),
        _ => Ok(Route::Tags { image, n: query.n, last: query.last }),
    }
}

/// Splits `/v2/rest` or `/<registry>/v2/rest` into the registry and the rest.
fn split_version(path: &str) -> Result<(Option<&str>, &str), Refusal> {
    let path = path.strip_prefix('/').ok_or_else(unknown_path)?;
    let after = |path: &'_ str| -> Option<usize> {
        if path == "v2" { Some(2) } else { path.starts_with("v2/").then_some(3) }
    };
    if let Some(at) = after(path) {
        return Ok((None, &path[at..]));
    }
    let (registry, path) = path.split_once('/').ok_or_else(unknown_path)?;
    let at = after(path).ok_or_else(unknown_path)?;
    Ok((Some(registry), &path[at..]))
}

fn unknown_path() -> Refusal {
    Refusal::not_found(
        OciCode::Unsupported,
        "this is a registry mirror: see the OCI distribution specification",
    )
}

fn image(
    prefix: Option<&str>,
    ns: Option<&str>,
    name: &str,
    mirrored: impl Fn(&RegistryName) -> bool,
) -> Result<ImageName, Refusal> {
    let not_mirrored = |registry: &str| {
        let shown: String = registry.chars().filter(char::is_ascii_graphic).take(100).collect();
        Refusal::not_found(OciCode::NameUnknown, format!("the registry `{shown}` is not mirrored here"))
    };
    let registry = |text: &str| match text.parse::<RegistryName>() {
        Ok(registry) if mirrored(&registry) => Ok(registry),
        Ok(_) | Err(_) => Err(not_mirrored(text)),
    };
    // A first part with a dot or a port can only be a host: no repository of Docker Hub looks like that.
    let host_in_name =
        name.split_once('/').filter(|(first, _)| first.contains(['.', ':']) || *first == "localhost");
    let (named_in_path, mut repository) = match (prefix, host_in_name) {
        (Some(prefix), _) => (Some(registry(prefix)?), name.to_owned()),
        (None, Some((host, rest))) => (Some(registry(host)?), rest.to_owned()),
        (None, None) => (None, name.to_owned()),
    };
    let named_in_query = ns.map(registry).transpose()?;
    let registry = match (named_in_query, named_in_path) {
        (Some(query), Some(path)) if query != path => {
            return Err(Refusal::bad(OciCode::NameInvalid, "`ns` and the path name different registries"));
        }
        (Some(registry), _) | (None, Some(registry)) => registry,
        (None, None) => registry("docker.io")?,
    };
    // Clients insert `library/` themselves, except where the registry is part of the name they were given.
    if host_in_name.is_some() && prefix.is_none() && registry.is_docker_hub() && !repository.contains('/') {
        repository = format!("library/{repository}");
    }
    let repository =
        repository.parse::<RepositoryName>().map_err(|error| Refusal::bad(OciCode::NameInvalid, error))?;
    Ok(ImageName { registry, repository })
}

#[derive(Default)]
struct Query {
    ns: Option<String>,
    n: Option<u32>,
    last: Option<Tag>,
    artifact_type: Option<String>,
}

impl Query {
    fn parse(query: Option<&str>) -> Result<Self, Refusal> {
        let mut parsed = Self::default();
        let repeated = |key: &str| Refusal::bad(OciCode::Unsupported, format!("`{key}` is given twice"));
        for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*key {
                "ns" if parsed.ns.replace(value.to_string()).is_some() => return Err(repeated("ns")),
                "n" => {
                    let n = value.parse::<u32>().ok().filter(|_| value.bytes().all(|b| b.is_ascii_digit()));
                    let n = n.ok_or_else(|| Refusal::bad(OciCode::Unsupported, "`n` is a number of tags"))?;
                    if parsed.n.replace(n.min(TAGS_PAGE_MAX)).is_some() {
                        return Err(repeated("n"));
                    }
                }
                "last" => {
                    let tag = value.parse().map_err(|error| Refusal::bad(OciCode::Unsupported, error))?;
                    if parsed.last.replace(tag).is_some() {
                        return Err(repeated("last"));
                    }
                }
                "artifactType" if value.len() <= 255 => parsed.artifact_type = Some(value.to_string()),
                _ => {}
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mirrored(registry: &RegistryName) -> bool {
        ["docker.io", "ghcr.io", "localhost:5000"].contains(&registry.as_str())
    }

    fn route(path_and_query: &str) -> Result<Route, Refusal> {
        let (path, query) =
            path_and_query.split_once('?').map_or((path_and_query, None), |(p, q)| (p, Some(q)));
        parse(path, query, mirrored)
    }

    fn image(text: &str) -> ImageName {
        text.parse().unwrap()
    }

    #[test]
    fn a_registry_can_be_named_in_three_ways() {
        let tag: Reference = "3.20".parse().unwrap();
        for (request, expected) in [
            ("/v2/library/alpine/manifests/3.20", "docker.io/library/alpine"),
            ("/v2/library/alpine/manifests/3.20?ns=docker.io", "docker.io/library/alpine"),
            ("/v2/owner/app/manifests/3.20?ns=ghcr.io", "ghcr.io/owner/app"),
            ("/v2/ghcr.io/owner/app/manifests/3.20", "ghcr.io/owner/app"),
            ("/ghcr.io/v2/owner/app/manifests/3.20", "ghcr.io/owner/app"),
            ("/v2/docker.io/alpine/manifests/3.20", "docker.io/library/alpine"),
            ("/v2/docker.io/owner/app/manifests/3.20", "docker.io/owner/app"),
            ("/v2/x/manifests/3.20?ns=localhost%3A5000", "localhost:5000/x"),
            ("/v2/ghcr.io/a/manifests/3.20?ns=ghcr.io", "ghcr.io/a"),
            ("/v2/manifests/manifests/3.20", "docker.io/manifests"),
            ("/v2/a/blobs/manifests/3.20", "docker.io/a/blobs"),
        ] {
            assert_eq!(route(request), Ok(Route::Manifest(image(expected), tag.clone())), "{request}");
        }
    }

    #[test]
    fn every_endpoint_of_the_pull_side_is_known() {
        let digest = Digest::of(b"x");
        let app = image("docker.io/a/b");
        assert_eq!(route("/v2/"), Ok(Route::Ping));
        assert_eq!(route("/v2"), Ok(Route::Ping));
        assert_eq!(route(&format!("/v2/a/b/blobs/{digest}")), Ok(Route::Blob(app.clone(), digest)));
        assert_eq!(
            route("/v2/a/b/tags/list?n=99999&last=v1"),
            Ok(Route::Tags { image: app.clone(), n: Some(1000), last: Some("v1".parse().unwrap()) })
        );
        assert_eq!(
            route(&format!("/v2/a/b/referrers/{digest}?artifactType=application%2Fx")),
            Ok(Route::Referrers { image: app, subject: digest, artifact_type: Some("application/x".into()) })
        );
    }

    #[test]
    fn what_the_grammar_does_not_know_is_refused_with_the_specs_status() {
        let digest = Digest::of(b"x");
        let cases: &[(&str, u16)] = &[
            ("/", 404),
            ("", 404),
            ("/v1/_ping", 404),
            ("/v2/_catalog", 404),
            ("/v2x/a/manifests/b", 404),
            ("/v2/manifests/latest", 404),
            ("/v2/a/tags/other", 404),
            ("/v2//a/manifests/b", 400),
            ("/v2/a/../manifests/b", 400),
            ("/v2/../a/manifests/b", 404),
            ("/v2/..%2f..%2fetc/manifests/b", 400),
            ("/v2/a%2fb/manifests/b", 400),
            ("/v2/A/manifests/b", 400),
            ("/v2/a\\b/manifests/b", 400),
            ("/v2/a/manifests/", 400),
            ("/v2/a/manifests/%00", 400),
            ("/v2/a/manifests/..", 400),
            ("/v2/a/manifests/sha256:totallywrong", 400),
            ("/v2/a/blobs/sha256:totallywrong", 400),
            ("/v2/a/blobs/latest", 400),
            ("/v2/a/blobs/sha256:../../../../etc/passwd", 404),
            ("/v2/a/referrers/x", 400),
            ("/v2/a/tags/list?n=-1", 400),
            ("/v2/a/tags/list?n=%2B1", 400),
            ("/v2/a/tags/list?n=9223372036854775807", 400),
            ("/v2/a/tags/list?last=../x", 400),
            ("/v2/a/manifests/b?ns=127.0.0.1", 404),
            ("/v2/a/manifests/b?ns=169.254.169.254", 404),
            ("/v2/a/manifests/b?ns=evil.test", 404),
            ("/v2/a/manifests/b?ns=docker.io@evil", 404),
            ("/v2/a/manifests/b?ns=docker.io&ns=ghcr.io", 400),
            ("/v2/ghcr.io/a/manifests/b?ns=docker.io", 400),
            ("/v2/evil.test/a/manifests/b", 404),
            ("/evil.test/v2/a/manifests/b", 404),
        ];
        for (request, status) in cases {
            let refused = route(request).expect_err(request);
            assert_eq!(refused.status.as_u16(), *status, "{request}: {}", refused.message);
        }
        assert!(route(&format!("/v2/{}/blobs/{digest}", "a".repeat(256))).is_err(), "a name over 255 bytes");
        assert!(route(&format!("/v2/a/manifests/b?ns={}", "a".repeat(10_000))).is_err());
    }

    proptest! {
        #[test]
        fn no_request_panics_and_what_is_accepted_is_plain(path in "(/v2/)?[a-z0-9./:%_-]{0,60}", query in "\\PC{0,60}") {
            if let Ok(Route::Manifest(image, _) | Route::Blob(image, _)) = parse(&path, Some(&query), mirrored) {
                prop_assert!(mirrored(&image.registry));
                prop_assert!(!image.repository.as_str().contains(".."));
            }
        }
    }
}
