//! Reads `WWW-Authenticate`, and decides whether its realm is asked for a token. No I/O.
//!
//! Of a challenge only `realm` and `service` count. The scope is ours to say, never the upstream's (SECURITY R20).

use reqwest::Url;

use crate::limits::CHALLENGE_BYTES_MAX;
use crate::redirect::{is_loopback, is_public_host, same_origin};

/// The host of Docker Hub's registry, and the only one that issues its tokens.
const HUB_HOST: &str = "registry-1.docker.io";
const HUB_REALM_HOST: &str = "auth.docker.io";

/// A bearer challenge: whom to ask for a token, and for which service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The token endpoint. Not yet allowed: see [`allow`].
    pub realm: Url,
    /// The name of the service, as the token endpoint knows it.
    pub service: Option<String>,
}

/// Why a challenge is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChallenge {
    /// There is no `Bearer` challenge: the upstream wants a password, and we have none.
    #[error("it asks for a login")]
    NotBearer,
    /// Not the syntax of RFC 9110, section 11.6.1, or too long.
    #[error("its challenge cannot be read")]
    Syntax,
    /// The realm is missing, or not a plain absolute http(s) address.
    #[error("its token realm is no address")]
    Realm,
}

/// Reads the values of all `WWW-Authenticate` headers of an answer; the first bearer challenge counts.
/// # Errors
/// [`InvalidChallenge`].
pub fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<Challenge, InvalidChallenge> {
    for value in values {
        if value.len() > CHALLENGE_BYTES_MAX {
            return Err(InvalidChallenge::Syntax);
        }
        let bearer = challenges(value)?.into_iter().find(|c| c.scheme.eq_ignore_ascii_case("bearer"));
        if let Some(bearer) = bearer {
            let realm = bearer.parameter("realm")?.ok_or(InvalidChallenge::Realm)?;
            return Ok(Challenge {
                realm: address(realm)?,
                service: bearer.parameter("service")?.map(str::to_owned),
            });
        }
    }
    Err(InvalidChallenge::NotBearer)
}

/// Whether one of the challenges asks for HTTP's own login (RFC 7617).
pub(crate) fn asks_basic<'a>(values: impl IntoIterator<Item = &'a str>) -> bool {
    let short = values.into_iter().filter(|value| value.len() <= CHALLENGE_BYTES_MAX);
    short.filter_map(|value| challenges(value).ok()).flatten().any(|c| c.scheme.eq_ignore_ascii_case("basic"))
}

/// `Url` forgives backslashes, tabs and missing slashes; what it forgives, another parser reads differently.
fn address(text: &str) -> Result<Url, InvalidChallenge> {
    let plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    let absolute = text.starts_with("https://") || text.starts_with("http://");
    if !plain || !absolute {
        return Err(InvalidChallenge::Realm);
    }
    Url::parse(text).map_err(|_| InvalidChallenge::Realm)
}

/// Whether `realm` is asked for an anonymous token for the registry at `upstream` (SECURITY R19): over https at a public
/// name, at the upstream's own origin, or, for an upstream configured with http, on this machine. Docker Hub's tokens
/// come from Docker Hub's token server alone.
pub fn allow(realm: &Url, upstream: &Url) -> bool {
    if !realm.username().is_empty() || realm.password().is_some() {
        return false;
    }
    if upstream.host_str() == Some(HUB_HOST) {
        return realm.scheme() == "https"
            && realm.host_str() == Some(HUB_REALM_HOST)
            && realm.port().is_none();
    }
    if same_origin(realm, upstream) {
        return true;
    }
    match realm.scheme() {
        "https" => is_public_host(realm),
        "http" => upstream.scheme() == "http" && is_loopback(realm) && is_loopback(upstream),
        _ => false,
    }
}

impl Challenge {
    /// The address that issues a token for `scope`. A scope in the realm's own query is thrown away.
    pub fn token_url(&self, scope: &str) -> Url {
        let kept: Vec<(String, String)> = self
            .realm
            .query_pairs()
            .filter(|(name, _)| !matches!(&**name, "scope" | "service" | "account" | "offline_token"))
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        let mut url = self.realm.clone();
        url.set_fragment(None);
        url.query_pairs_mut()
            .clear()
            .extend_pairs(kept)
            .extend_pairs(self.service.iter().map(|service| ("service", service)))
            .append_pair("scope", scope);
        url
    }
}

struct Raw {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Raw {
    /// A parameter that must not be there twice: two readers could take different ones.
    fn parameter(&self, name: &str) -> Result<Option<&str>, InvalidChallenge> {
        let mut found =
            self.parameters.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
        let first = found.next();
        if found.next().is_some() { Err(InvalidChallenge::Syntax) } else { Ok(first) }
    }
}

/// Takes one header value apart: schemes, each with parameters (RFC 9110, 11.2 and 11.6.1).
fn challenges(value: &str) -> Result<Vec<Raw>, InvalidChallenge> {
    let mut cursor = Cursor(value);
    let mut all: Vec<Raw> = Vec::new();
    loop {
        cursor.skip(|b| matches!(b, b' ' | b'\t' | b','));
        if cursor.0.is_empty() {
            return Ok(all);
        }
        let word = cursor.take(is_token_byte);
        if word.is_empty() {
            return Err(InvalidChallenge::Syntax);
        }
        let after_word = cursor.0;
        cursor.skip(|b| matches!(b, b' ' | b'\t'));
        if !cursor.eat(b'=') {
            cursor.0 = after_word;
            // What follows a scheme is set apart by a space, or is the next challenge.
            if !after_word.is_empty() && !after_word.starts_with([' ', '\t', ',']) {
                return Err(InvalidChallenge::Syntax);
            }
            all.push(Raw { scheme: word.to_owned(), parameters: Vec::new() });
            continue;
        }
        cursor.skip(|b| matches!(b, b' ' | b'\t'));
        let value = if cursor.eat(b'"') { cursor.quoted()? } else { cursor.take(is_token68_byte).to_owned() };
        let Some(current) = all.last_mut() else { return Err(InvalidChallenge::Syntax) };
        current.parameters.push((word.to_owned(), value));
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&byte)
}

/// Also the `=` that pad a token68, and what careless registries leave unquoted in addresses.
fn is_token68_byte(byte: u8) -> bool {
    is_token_byte(byte) || b":=?@".contains(&byte)
}

struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn take(&mut self, belongs: impl Fn(u8) -> bool) -> &'a str {
        let end = self.0.bytes().position(|b| !belongs(b)).unwrap_or(self.0.len());
        // Bytes that belong are ASCII, so `end` is a character boundary.
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn skip(&mut self, belongs: impl Fn(u8) -> bool) {
        self.take(belongs);
    }

    fn eat(&mut self, byte: u8) -> bool {
        let eaten = self.0.as_bytes().first() == Some(&byte);
        if eaten {
            self.0 = &self.0[1..];
        }
        eaten
    }

    /// The rest of a quoted string, its opening quote already eaten.
    fn quoted(&mut self) -> Result<String, InvalidChallenge> {
        let mut text = String::new();
        let mut chars = self.0.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return Ok(text);
                }
                '\\' => text.push(chars.next().ok_or(InvalidChallenge::Syntax)?.1),
                other => text.push(other),
            }
        }
        Err(InvalidChallenge::Syntax)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn realm_of(value: &str) -> Result<String, InvalidChallenge> {
        parse([value]).map(|challenge| challenge.realm.to_string())
    }

    #[test]
    fn the_hubs_challenge_is_read() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull""#;
        let challenge = parse([hub]).unwrap();
        assert_eq!(challenge.realm.as_str(), "https://auth.docker.io/token");
        assert_eq!(challenge.service.as_deref(), Some("registry.docker.io"));
        assert_eq!(
            challenge.token_url("repository:a/b:pull").as_str(),
            "https://auth.docker.io/token?service=registry.docker.io&scope=repository%3Aa%2Fb%3Apull"
        );
    }

    #[test]
    fn every_lawful_spelling_is_read() {
        for value in [
            r#"Bearer realm="https://a.example/t""#,
            r#"bearer REALM="https://a.example/t""#,
            r#"BEARER  realm = "https://a.example/t" , service=x"#,
            r#"Basic realm="x", Bearer realm="https://a.example/t""#,
            r#"Basic realm="a, Bearer realm=", Bearer realm="https://a.example/t""#,
            r#"Negotiate YWJj==, Bearer realm="https://a.example/t""#,
            r#"Bearer error="invalid_token",realm="https://a.example/t""#,
            r#",, Bearer realm="https://a.example/t","#,
            r#"Bearer realm="https:\/\/a.example/t""#,
            "Bearer realm=https://a.example/t,service=x",
        ] {
            assert_eq!(realm_of(value).as_deref(), Ok("https://a.example/t"), "{value}");
        }
        assert_eq!(
            parse(["Basic realm=x", r#"Bearer realm="https://a.example/t""#]).unwrap().realm.as_str(),
            "https://a.example/t",
            "the second header counts where the first is no bearer's"
        );
    }

    #[test]
    fn what_is_not_clearly_a_bearer_challenge_is_refused() {
        use InvalidChallenge::{NotBearer, Realm, Syntax};
        let long = format!(r#"Bearer realm="https://a.example/{}""#, "x".repeat(5000));
        for (value, why) in [
            ("", NotBearer),
            ("Basic realm=\"x\"", NotBearer),
            ("Bearer", Realm),
            ("Bearer service=\"x\"", Realm),
            ("Bearer realm=\"\"", Realm),
            ("Bearer realm=\"/token\"", Realm),
            ("Bearer realm=\"//a.example/token\"", Realm),
            ("Bearer realm=\"https:a.example\"", Realm),
            ("Bearer realm=\"https:/a.example\"", Realm),
            ("Bearer realm=\"ftp://a.example/t\"", Realm),
            ("Bearer realm=\"file:///etc/passwd\"", Realm),
            ("Bearer realm=\"https://a.exa\tmple/t\"", Realm),
            ("Bearer realm=\"https://a.example /t\"", Realm),
            ("Bearer realm=\"https://a.example\\\\@evil.example/\"", Realm),
            ("Bearer realm=\"https://\u{430}.example/\"", Realm),
            ("Bearer realm=\"https://\"", Realm),
            ("Bearer realm=\"https://a.example", Syntax),
            ("Bearer realm=\"https://a.example/t\", realm=\"https://b.example/t\"", Syntax),
            ("realm=\"https://a.example/t\"", Syntax),
            ("Bearer=\"x\"", Syntax),
            ("\"Bearer\"", Syntax),
            ("Bearer\"realm", Syntax),
            (&long, Syntax),
        ] {
            assert_eq!(realm_of(value), Err(why), "{value:?}");
        }
    }

    #[test]
    fn only_the_hubs_own_server_gives_tokens_for_the_hub() {
        let hub = Url::parse("https://registry-1.docker.io").unwrap();
        let allowed = |realm: &str| allow(&Url::parse(realm).unwrap(), &hub);
        assert!(allowed("https://auth.docker.io/token"));
        for realm in [
            "http://auth.docker.io/token",
            "https://auth.docker.io:8443/token",
            "https://auth.docker.io./token",
            "https://auth.docker.io.evil.example/token",
            "https://auth-docker.io/token",
            "https://evil.docker.io/token",
            "https://docker.io/token",
            "https://good@auth.docker.io/token",
            "https://auth.docker.io@evil.example/token",
            "https://xn--uth-5cd.docker.io/token",
            "https://registry-1.docker.io/token",
            "https://ghcr.io/token",
            "https://127.0.0.1/token",
            "http://localhost/token",
        ] {
            assert!(!allowed(realm), "{realm} must not be asked for the Hub's tokens");
        }
    }

    #[test]
    fn realms_are_public_https_or_the_registry_itself() {
        let allowed =
            |realm: &str, upstream: &str| allow(&Url::parse(realm).unwrap(), &Url::parse(upstream).unwrap());
        for (realm, upstream) in [
            ("https://ghcr.io/token", "https://ghcr.io"),
            ("https://auth.example/token", "https://registry.example"),
            ("https://auth.example:8443/token", "https://registry.example"),
            ("https://10.0.0.5/token", "https://10.0.0.5"),
            ("https://registry/token", "https://registry"),
            ("http://registry.example/token", "http://registry.example"),
            ("http://127.0.0.1:5001/token", "http://127.0.0.1:5000"),
            ("https://auth.example/token", "http://127.0.0.1:5000"),
        ] {
            assert!(allowed(realm, upstream), "{realm} for {upstream}");
        }
        for (realm, upstream) in [
            ("http://ghcr.io/token", "https://ghcr.io"),
            ("http://auth.example/token", "https://registry.example"),
            ("http://auth.example/token", "http://registry.example"),
            ("http://127.0.0.1/token", "https://registry.example"),
            ("http://127.0.0.1/token", "http://registry.example"),
            ("https://127.0.0.1/token", "https://registry.example"),
            ("https://127.1/token", "https://registry.example"),
            ("https://0x7f000001/token", "https://registry.example"),
            ("https://[::1]/token", "https://registry.example"),
            ("https://[::ffff:10.0.0.1]/token", "https://registry.example"),
            ("https://169.254.169.254/token", "https://registry.example"),
            ("https://8.8.8.8/token", "https://registry.example"),
            ("https://localhost/token", "https://registry.example"),
            ("https://localhost./token", "https://registry.example"),
            ("https://router.lan/token", "https://registry.example"),
            ("https://nas.local/token", "https://registry.example"),
            ("https://metadata.google.internal/token", "https://registry.example"),
            ("https://intranet/token", "https://registry.example"),
            ("https://10.0.0.6/token", "https://10.0.0.5"),
            ("https://10.0.0.5:444/token", "https://10.0.0.5"),
            ("https://user@auth.example/token", "https://registry.example"),
            ("https://user:password@auth.example/token", "https://registry.example"),
        ] {
            assert!(!allowed(realm, upstream), "{realm} for {upstream}");
        }
    }

    #[test]
    fn the_scope_is_ours_whatever_the_realm_says() {
        let challenge = parse([r#"Bearer realm="https://a.example/t?scope=repository:x:push,delete&account=me&k=v#f",scope="repository:y:*""#]).unwrap();
        let url = challenge.token_url("repository:a:pull");
        assert_eq!(url.as_str(), "https://a.example/t?k=v&scope=repository%3Aa%3Apull");
    }

    proptest! {
        #[test]
        fn no_header_panics_the_parser(value in "\\PC{0,300}") {
            let _ = parse([value.as_str()]);
        }

        #[test]
        fn no_almost_right_header_panics_the_parser(value in r#"(Bearer|Basic|,| |=|"|\\|realm|service|https://a\.example|x){0,30}"#) {
            if let Ok(challenge) = parse([value.as_str()]) {
                prop_assert!(matches!(challenge.realm.scheme(), "http" | "https"));
                prop_assert!(challenge.realm.host_str().is_some());
            }
        }

        #[test]
        fn a_quoted_service_survives_its_quoting(service in "[ -~]{0,40}") {
            let quoted = service.replace('\\', r"\\").replace('"', "\\\"");
            let value = format!(r#"Bearer service="{quoted}",realm="https://a.example/t""#);
            prop_assert_eq!(parse([value.as_str()]).unwrap().service, Some(service));
        }

        #[test]
        fn no_realm_in_figures_is_ever_allowed_for_a_named_registry(address in any::<u32>(), port in any::<u16>()) {
            let realm = Url::parse(&format!("https://{}:{port}/t", std::net::Ipv4Addr::from_bits(address))).unwrap();
            prop_assert!(!allow(&realm, &Url::parse("https://registry.example").unwrap()));
        }
    }
}
