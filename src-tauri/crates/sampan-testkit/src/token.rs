//! Bearer tokens, each good for one scope (distribution's token authentication, "Requesting a Token").

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sampan_oci::Digest;

/// Tokens issued and spoilt by one registry.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    serial: u64,
    spoilt: HashSet<String>,
    /// The `Authorization` of the one login that is good.
    login: Option<String>,
    /// How often the login changed: tokens issued to an earlier one are good no longer.
    era: u64,
}

/// What a token endpoint makes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// It shows no login.
    Nobody,
    /// It shows the one that is good.
    Known,
    /// It shows another one.
    Wrong,
}

impl Tokens {
    /// A new token for `scope`. It carries its scope's hash, so every fake registry can check it. `issuer` keeps the
    /// tokens of several registries apart.
    pub(crate) fn issue(&mut self, issuer: u16, scope: &str) -> String {
        self.serial += 1;
        format!("fake-{issuer}-{}-{}", self.serial, Digest::of(scope.as_bytes()).hex())
    }

    /// Makes this login the only good one; `None`: no login is.
    pub(crate) fn set_login(&mut self, login: Option<(&str, &str)>) {
        self.login =
            login.map(|(user, password)| format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))));
        self.era += 1;
    }

    /// Who asks.
    pub(crate) fn asker(&self, authorization: Option<&str>) -> Asker {
        match authorization {
            None => Asker::Nobody,
            Some(shown) if self.login.as_deref() == Some(shown) => Asker::Known,
            Some(_) => Asker::Wrong,
        }
    }

    /// A new token for `scope` that opens what is private.
    pub(crate) fn issue_to_login(&mut self, issuer: u16, scope: &str) -> String {
        let era = self.era;
        self.issue(issuer, scope).replacen("fake-", &format!("fake-login-{era}-"), 1)
    }

    /// Whether the `Authorization` header opens what is private in `repository`: by a token of the login, or by itself.
    pub(crate) fn opens_private(&self, authorization: Option<&str>, repository: Option<&str>) -> bool {
        let of_login = format!("Bearer fake-login-{}-", self.era);
        let token = authorization.is_some_and(|shown| shown.starts_with(&of_login));
        self.login.is_some()
            && (self.asker(authorization) == Asker::Known || token && self.accepts(authorization, repository))
    }

    /// Whether the `Authorization` header holds a token for pulling from `repository`.
    pub(crate) fn accepts(&self, authorization: Option<&str>, repository: Option<&str>) -> bool {
        let Some(token) = authorization.and_then(|header| header.strip_prefix("Bearer ")) else {
            return false;
        };
        let scope = repository.map(|name| format!("repository:{name}:pull")).unwrap_or_default();
        let fits = repository.is_none() || token.ends_with(&Digest::of(scope.as_bytes()).hex());
        token.starts_with("fake-") && fits && !self.spoilt.contains(token)
    }

    /// Never accepts this token again.
    pub(crate) fn spoil(&mut self, authorization: Option<&str>) {
        if let Some(token) = authorization.and_then(|header| header.strip_prefix("Bearer ")) {
            self.spoilt.insert(token.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_its_own_repository_alone() {
        let mut tokens = Tokens::default();
        let header = format!("Bearer {}", tokens.issue(1, "repository:a/b:pull"));
        assert!(tokens.accepts(Some(&header), Some("a/b")));
        assert!(!tokens.accepts(Some(&header), Some("a/c")), "another repository");
        assert!(!tokens.accepts(None, Some("a/b")), "no token");
        tokens.spoil(Some(&header));
        assert!(!tokens.accepts(Some(&header), Some("a/b")), "an expired token");
    }
}
