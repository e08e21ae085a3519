//! Where an upstream may lead us: a pure decision over addresses (SECURITY R19, R24, R28).

use reqwest::Url;

/// Why an address from an upstream is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Neither `https`, nor `http` where plain `http` was configured.
    #[error("it led away from https")]
    Scheme,
    /// An address or a name of this machine or a private network.
    #[error("it led to a private address")]
    Private,
    /// A user name or password in the address.
    #[error("it led to an address with a login in it")]
    UserInfo,
}

impl Refusal {
    /// The refusal as a sentence part.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Scheme => "it led away from https",
            Self::Private => "it led to a private address",
            Self::UserInfo => "it led to an address with a login in it",
        }
    }
}

/// Whether a redirect of `from` to `to` is followed, for an upstream configured as `configured`.
/// `https` goes to public names, or back to the configured host; never down to `http`. An upstream that a person
/// configured with `http` may also lead to its own host or to this machine by `http`.
/// # Errors
/// [`Refusal`]: the blob cannot be had.
pub fn allow(from: &Url, to: &Url, configured: &Url) -> Result<(), Refusal> {
    if !to.username().is_empty() || to.password().is_some() {
        return Err(Refusal::UserInfo);
    }
    let home = to.host_str() == configured.host_str();
    match to.scheme() {
        "https" if home || is_public_host(to) => Ok(()),
        "https" => Err(Refusal::Private),
        "http" if from.scheme() == "http" && configured.scheme() == "http" => {
            if home || is_loopback(to) && is_loopback(configured) { Ok(()) } else { Err(Refusal::Scheme) }
        }
        _ => Err(Refusal::Scheme),
    }
}

/// Whether the host is an address or name of this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => literal(host).is_some_and(|address| address.is_loopback()),
        None => false,
    }
}

/// Whether the host is a name of the public internet, as far as its text tells. Addresses in figures are not: no
/// registry or CDN redirects to one, and an attacker would. What the name resolves to is checked when connecting.
pub(crate) fn is_public_host(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let host = host.strip_suffix('.').unwrap_or(host);
    let Some((_, top)) = host.rsplit_once('.') else { return false };
    let private_top =
        matches!(top, "localhost" | "local" | "internal" | "lan" | "home" | "corp" | "intranet" | "arpa");
    literal(host).is_none() && !private_top
}

/// The address a host in figures means; `Url` has already turned `127.1`, `0x7f.1` and `2130706433` into one form.
fn literal(host: &str) -> Option<std::net::IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Whether two URLs have the same scheme, host and port.
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host_str() == b.host_str()
        && a.port_or_known_default() == b.port_or_known_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(from: &str, to: &str, configured: &str) -> Result<(), Refusal> {
        let url = |text: &str| Url::parse(text).unwrap();
        allow(&url(from), &url(to), &url(configured))
    }

    const HUB: &str = "https://registry-1.docker.io/v2/x";
    const LOCAL: &str = "http://127.0.0.1:5000/";

    #[test]
    fn an_https_registry_leads_to_public_https_names_alone() {
        for to in [
            "https://production.cloudflare.docker.com/x?Signature=y",
            "https://docker-images-prod.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com/x",
            "https://cdn.example:8443/x",
            "https://registry-1.docker.io/other",
        ] {
            assert_eq!(decide(HUB, to, HUB), Ok(()), "{to}");
        }
        for (to, why) in [
            ("http://cdn.example/x", Refusal::Scheme),
            ("http://registry-1.docker.io/x", Refusal::Scheme),
            ("ftp://cdn.example/x", Refusal::Scheme),
            ("file:///etc/passwd", Refusal::Scheme),
            ("data:text/plain,x", Refusal::Scheme),
            ("gopher://cdn.example/x", Refusal::Scheme),
            ("javascript:alert(1)", Refusal::Scheme),
            ("https://user@cdn.example/x", Refusal::UserInfo),
            ("https://registry-1.docker.io@evil.example/x", Refusal::UserInfo),
            ("https://:password@cdn.example/x", Refusal::UserInfo),
            ("https://localhost/x", Refusal::Private),
            ("https://localhost./x", Refusal::Private),
            ("https://a.localhost/x", Refusal::Private),
            ("https://router.lan/x", Refusal::Private),
            ("https://printer.local/x", Refusal::Private),
            ("https://metadata.google.internal/x", Refusal::Private),
            ("https://metadata/x", Refusal::Private),
            ("https://127.0.0.1/x", Refusal::Private),
            ("https://127.1/x", Refusal::Private),
            ("https://0x7f.1/x", Refusal::Private),
            ("https://0177.0.0.1/x", Refusal::Private),
            ("https://2130706433/x", Refusal::Private),
            ("https://10.0.0.1/x", Refusal::Private),
            ("https://169.254.169.254/latest", Refusal::Private),
            ("https://[::1]/x", Refusal::Private),
            ("https://[::ffff:7f00:1]/x", Refusal::Private),
            ("https://[fd00::1]/x", Refusal::Private),
            ("https://8.8.8.8/x", Refusal::Private),
        ] {
            assert_eq!(decide(HUB, to, HUB), Err(why), "{to}");
        }
    }

    #[test]
    fn a_configured_http_registry_may_stay_on_its_host_or_this_machine() {
        assert_eq!(decide(LOCAL, "http://127.0.0.1:5001/x", LOCAL), Ok(()), "another port of the same host");
        assert_eq!(decide(LOCAL, "http://localhost:5001/x", LOCAL), Ok(()), "this machine by name");
        assert_eq!(decide(LOCAL, "https://cdn.example/x", LOCAL), Ok(()), "up to https");
        assert_eq!(
            decide(LOCAL, "http://cdn.example/x", LOCAL),
            Err(Refusal::Scheme),
            "http into the internet"
        );
        assert_eq!(
            decide(LOCAL, "http://169.254.169.254/x", LOCAL),
            Err(Refusal::Scheme),
            "the metadata service"
        );
        let remote = "http://registry.example/";
        assert_eq!(decide(remote, "http://registry.example/x", remote), Ok(()), "its own host");
        assert_eq!(
            decide(remote, LOCAL, remote),
            Err(Refusal::Scheme),
            "a far registry must not reach this machine"
        );
        assert_eq!(
            decide("https://cdn.example/x", LOCAL, LOCAL),
            Err(Refusal::Scheme),
            "a hop over https never goes down again"
        );
    }

    #[test]
    fn a_configured_private_registry_may_lead_to_itself() {
        let private = "https://10.0.0.5/";
        assert_eq!(decide(private, "https://10.0.0.5/other", private), Ok(()));
        assert_eq!(decide(private, "https://10.0.0.6/other", private), Err(Refusal::Private));
    }
}
