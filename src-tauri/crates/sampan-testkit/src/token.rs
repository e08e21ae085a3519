//! Bearer tokens, each good for one scope (distribution's token authentication, "Requesting a Token").

use std::collections::HashSet;

use sampan_oci::Digest;

/// Tokens issued and spoilt by one registry.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    serial: u64,
    spoilt: HashSet<String>,
}

impl Tokens {
    /// A new token for `scope`. It carries its scope's hash, so every fake registry can check it. `issuer` keeps the
    /// tokens of several registries apart.
    pub(crate) fn issue(&mut self, issuer: u16, scope: &str) -> String {
        self.serial += 1;
        format!("fake-{issuer}-{}-{}", self.serial, Digest::of(scope.as_bytes()).hex())
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
