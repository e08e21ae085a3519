//! Whom a login is meant for (SECURITY R19). Pure.
//!
//! The registry's own server, and its own origin as token server. Docker Hub and GitLab have token servers elsewhere, known
//! here by name. Any other one a person has to name once, and it must share the registry's domain.

use reqwest::Url;
use sampan_oci::RegistryName;

use super::LoginTrouble;
use crate::redirect::{is_loopback, same_origin};

/// The registry Docker Hub's images are named after, and the host that serves them.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");
/// Registries whose token server is another host, and that host.
const KNOWN: [(&str, &str); 2] =
    [("registry-1.docker.io", "auth.docker.io"), ("registry.gitlab.com", "gitlab.com")];

/// Whether nobody on the way reads what is sent there.
pub(crate) fn is_sheltered(url: &Url) -> bool {
    url.scheme() == "https" || url.scheme() == "http" && is_loopback(url)
}

/// Whether the server at `url` is the one the registry's name means: Docker, asked to log in there, would speak to it.
pub(crate) fn is_own_server(registry: &RegistryName, url: &Url) -> bool {
    let own = if registry.as_str() == HUB.0 { HUB.1 } else { registry.as_str() };
    authority(url).is_some_and(|authority| authority == own || authority == format!("{own}:443"))
}

/// Whether a login for the registry at `upstream` may be sent to the token server `realm`. `named`: the host (and port) of
/// the one that a person said is meant.
/// # Errors
/// [`LoginTrouble::Realm`] with the host it would have gone to, or [`LoginTrouble::PlainHttp`].
pub(crate) fn allow(realm: &Url, upstream: &Url, named: Option<&str>) -> Result<(), LoginTrouble> {
    let host = || authority(realm).unwrap_or_default();
    if !realm.username().is_empty() || realm.password().is_some() {
        return Err(LoginTrouble::Realm(host()));
    }
    let known =
        KNOWN.iter().find(|(registry, _)| upstream.host_str() == Some(registry)).map(|(_, host)| *host);
    let is_meant = if let Some(known) = known {
        // What is known is not for anybody to say.
        realm.host_str() == Some(known) && realm.port().is_none() && realm.scheme() == "https"
    } else {
        let named = named.is_some_and(|named| named == host() && is_kin(realm, upstream));
        same_origin(realm, upstream) || named
    };
    if !is_meant {
        return Err(LoginTrouble::Realm(host()));
    }
    if is_sheltered(realm) { Ok(()) } else { Err(LoginTrouble::PlainHttp) }
}

/// Whether a person may say that `host` (with its port, if it has one) is the token server of a registry.
pub fn may_be_named(host: &str, registry: &RegistryName) -> bool {
    let read = |authority: &str| Url::parse(&format!("https://{authority}/")).ok();
    let (Some(realm), Some(upstream)) = (read(host), read(registry.as_str())) else { return false };
    authority(&realm).as_deref() == Some(host) && is_kin(&realm, &upstream)
}

/// Whether both hosts are below one domain that can be bought, or both are this machine. Which domains can be bought, no rule
/// tells; that a country's second level is often none (`com.vn`, `co.uk`) covers most.
fn is_kin(a: &Url, b: &Url) -> bool {
    if is_loopback(a) && is_loopback(b) {
        return true;
    }
    let (Some(a), Some(b)) = (a.host_str(), b.host_str()) else { return false };
    a == b || domain(a).is_some_and(|of_a| Some(of_a) == domain(b))
}

fn domain(host: &str) -> Option<&str> {
    if host.starts_with('[') || host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let mut dots = host.rmatch_indices('.').map(|(at, _)| at);
    let (last, second) = (dots.next()?, dots.next());
    let second_level = &host[second.map_or(0, |at| at + 1)..last];
    let country = host.len() - last - 1 == 2 && second_level.len() <= 3;
    let start = if country { dots.next().map_or(0, |at| at + 1) } else { second.map_or(0, |at| at + 1) };
    // `co.uk` itself is nobody's.
    (!country || second.is_some()).then(|| &host[start..])
}

/// The host, and the port where it is not the scheme's own.
fn authority(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goes(realm: &str, upstream: &str, named: Option<&str>) -> Result<(), LoginTrouble> {
        allow(&Url::parse(realm).unwrap(), &Url::parse(upstream).unwrap(), named)
    }

    const HUB_URL: &str = "https://registry-1.docker.io";

    #[test]
    fn a_login_goes_to_the_registrys_own_token_server() {
        for (realm, upstream, named) in [
            ("https://auth.docker.io/token", HUB_URL, None),
            ("https://gitlab.com/jwt/auth", "https://registry.gitlab.com", None),
            ("https://ghcr.io/token", "https://ghcr.io", None),
            ("https://quay.io/v2/auth", "https://quay.io", None),
            ("https://ghcr.io:443/token", "https://ghcr.io", None),
            ("https://harbor.acme.vn:8443/service/token", "https://harbor.acme.vn:8443", None),
            ("http://127.0.0.1:5000/token", "http://127.0.0.1:5000", None),
            ("https://sso.acme.example/token", "https://registry.acme.example", Some("sso.acme.example")),
            ("https://acme.example:8443/t", "https://registry.acme.example", Some("acme.example:8443")),
            ("https://sso.acme.com.vn/token", "https://registry.acme.com.vn", Some("sso.acme.com.vn")),
            ("http://127.0.0.1:5001/token", "http://127.0.0.1:5000", Some("127.0.0.1:5001")),
        ] {
            assert_eq!(goes(realm, upstream, named), Ok(()), "{realm} for {upstream}");
        }
    }

    #[test]
    fn a_login_goes_nowhere_else() {
        let acme = "https://registry.acme.example";
        for (realm, upstream, named) in [
            ("https://ghcr.io/token", HUB_URL, None),
            ("http://auth.docker.io/token", HUB_URL, None),
            ("https://auth.docker.io:8443/token", HUB_URL, None),
            ("https://auth.docker.io./token", HUB_URL, None),
            ("https://auth.docker.io.evil.example/token", HUB_URL, None),
            ("https://evil.docker.io/token", HUB_URL, Some("evil.docker.io")),
            ("https://registry-1.docker.io/token", HUB_URL, None),
            ("https://good@auth.docker.io/token", HUB_URL, None),
            ("https://auth.docker.io@evil.example/token", HUB_URL, None),
            ("https://xn--uth-5cd.docker.io/token", HUB_URL, None),
            ("https://localhost/token", HUB_URL, None),
            ("https://127.0.0.1/token", HUB_URL, None),
            ("https://gitlab.com.evil.example/jwt/auth", "https://registry.gitlab.com", None),
            ("https://auth.example/token", acme, None),
            ("https://sso.acme.example/token", acme, None),
            ("https://sso.acme.example/token", acme, Some("other.acme.example")),
            ("https://sso.acme.example:8443/token", acme, Some("sso.acme.example")),
            ("https://sso.acme.example./token", acme, Some("sso.acme.example")),
            ("https://evil.example/token", acme, Some("evil.example")),
            ("https://acme.example.evil.test/token", acme, Some("acme.example.evil.test")),
            ("https://user@registry.acme.example/token", acme, None),
            ("https://registry.acme.example:444/token", acme, None),
            ("http://registry.acme.example/token", acme, None),
            ("http://registry.acme.example/token", "http://registry.acme.example", None),
            ("http://sso.acme.example/token", acme, Some("sso.acme.example")),
            ("https://evil.co.uk/token", "https://registry.co.uk", Some("evil.co.uk")),
            ("https://evil.com.vn/token", "https://registry.acme.com.vn", Some("evil.com.vn")),
            ("https://com.vn/token", "https://acme.com.vn", Some("com.vn")),
            ("https://10.0.0.6/token", "https://10.0.0.5", Some("10.0.0.6")),
            ("https://[fd00::2]/token", "https://[fd00::1]", Some("[fd00::2]")),
            ("http://127.0.0.1:5001/token", "http://127.0.0.1:5000", None),
            ("http://127.0.0.1:5001/token", acme, Some("127.0.0.1:5001")),
        ] {
            assert!(goes(realm, upstream, named).is_err(), "{realm} for {upstream}");
        }
    }

    #[test]
    fn only_the_server_a_registry_is_named_after_is_shown_its_login() {
        let own =
            |registry: &str, url: &str| is_own_server(&registry.parse().unwrap(), &Url::parse(url).unwrap());
        assert!(own("docker.io", HUB_URL));
        assert!(own("ghcr.io", "https://ghcr.io"));
        assert!(own("127.0.0.1:5000", "http://127.0.0.1:5000"));
        assert!(
            own("acme.example:443", "https://acme.example")
                || own("acme.example", "https://acme.example:443")
        );
        for (registry, url) in [
            ("docker.io", "https://mirror.gcr.io"),
            ("docker.io", "http://127.0.0.1:5000"),
            ("docker.io", "https://docker.io"),
            ("ghcr.io", "https://ghcr.io.evil.example"),
            ("ghcr.io", "https://ghcr.io:8443"),
            ("ghcr.io", "https://team.acme.example"),
        ] {
            assert!(!own(registry, url), "{url} for {registry}");
        }
    }

    #[test]
    fn a_person_may_name_a_host_of_the_same_domain_and_no_other() {
        let registry = "registry.acme.example".parse().unwrap();
        for good in ["sso.acme.example", "acme.example", "acme.example:8443"] {
            assert!(may_be_named(good, &registry), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "sso.acme.example/",
            "a@sso.acme.example",
            "https://sso.acme.example",
            "SSO.acme.example",
        ] {
            assert!(!may_be_named(bad, &registry), "{bad:?}");
        }
    }
}
