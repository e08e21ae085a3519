//! Who may ask: programs on this machine, never a web page (SECURITY.md R40, R41).

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Uri, header};

/// Decides whether a request was meant for this listener. A web page that reaches the port by DNS rebinding can only
/// betray itself by its `Host`, other pages by `Origin` or the `Sec-Fetch-…` headers; no container client sends those.
pub(crate) fn allows(listen: SocketAddr, uri: &Uri, headers: &HeaderMap) -> bool {
    let from_a_page = headers.contains_key(header::ORIGIN)
        || headers.get("sec-fetch-site").is_some_and(|site| site != "none")
        || headers.get("sec-fetch-mode").is_some_and(|mode| mode != "navigate");
    if from_a_page {
        return false;
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let named = |authority: &str| is_us(listen, authority);
    host.to_str().is_ok_and(named) && uri.authority().is_none_or(|authority| named(authority.as_str()))
}

fn is_us(listen: SocketAddr, authority: &str) -> bool {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        // Port 80 is left out of Host by every client.
        Some(_) | None => (authority, "80"),
    };
    if port.parse() != Ok(listen.port()) || port.starts_with('+') {
        return false;
    }
    // Docker Desktop's name for this machine, seen from its VM. `.internal` is reserved: nobody can own it and rebind it.
    if host == "localhost" || host == "host.docker.internal" {
        return true;
    }
    let ip = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse().map(IpAddr::V6),
        None => host.parse().map(IpAddr::V4),
    };
    // An address cannot be rebound. A listener for other machines is reached by whatever address they see.
    ip.is_ok_and(|ip| if listen.ip().is_loopback() { ip.is_loopback() } else { !ip.is_unspecified() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(listen: &str, uri: &str, headers: &[(&'static str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        allows(listen.parse().unwrap(), &uri.parse().unwrap(), &map)
    }

    #[test]
    fn only_this_listeners_own_names_are_answered() {
        for good in
            ["127.0.0.1:7267", "localhost:7267", "[::1]:7267", "127.8.9.1:7267", "host.docker.internal:7267"]
        {
            assert!(asks("127.0.0.1:7267", "/v2/", &[("host", good)]), "{good}");
        }
        for bad in [
            "evil.test",
            "evil.test:7267",
            "127.0.0.1.nip.io:7267",
            "0.0.0.0:7267",
            "localhost.evil:7267",
            "[::ffff:127.0.0.1]:7267",
            "LOCALHOST:7267",
            "localhost.:7267",
            "127.0.0.1",
            "localhost",
            "user@127.0.0.1:7267",
            "127.0.0.1:7268",
            "127.1:7267",
            "0x7f.1:7267",
            "2130706433:7267",
            "127.0.0.1:+7267",
            "127.0.0.1:",
            "",
            ":7267",
            "[::1]",
            "[fe80::1]:7267",
            "192.168.1.5:7267",
            "10.0.0.1:7267",
            "127.0.0.1:7267, evil.test",
            "127.0.0.1:7267 ",
            "[127.0.0.1]:7267",
            "::1:7267",
        ] {
            assert!(!asks("127.0.0.1:7267", "/v2/", &[("host", bad)]), "{bad:?}");
        }
        assert!(!asks("127.0.0.1:7267", "/v2/", &[]), "no Host");
        assert!(
            !asks("127.0.0.1:7267", "/v2/", &[("host", "127.0.0.1:7267"), ("host", "evil.test")]),
            "two Hosts"
        );
        assert!(
            !asks("127.0.0.1:7267", "http://evil.test/v2/", &[("host", "127.0.0.1:7267")]),
            "absolute form"
        );
    }

    #[test]
    fn a_teams_listener_is_reached_by_its_addresses_but_never_by_a_rebindable_name() {
        assert!(asks("0.0.0.0:7267", "/v2/", &[("host", "192.168.1.5:7267")]));
        assert!(!asks("0.0.0.0:7267", "/v2/", &[("host", "evil.test:7267")]));
    }

    #[test]
    fn web_pages_are_refused() {
        let host = ("host", "127.0.0.1:7267");
        for page in [
            ("origin", "http://evil.test"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-mode", "no-cors"),
            ("sec-fetch-mode", "cors"),
        ] {
            assert!(!asks("127.0.0.1:7267", "/v2/", &[host, page]), "{page:?}");
        }
        assert!(
            asks("127.0.0.1:7267", "/v2/", &[host, ("sec-fetch-site", "none")]),
            "typed into the address bar"
        );
    }
}
