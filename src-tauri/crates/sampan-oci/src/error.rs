//! Error bodies of the distribution specification.

use serde::Serialize;

/// An error code of the distribution specification ("Error Codes"), as far as the pull side needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OciCode {
    /// The blob is not known.
    BlobUnknown,
    /// The digest is not one, or does not match.
    DigestInvalid,
    /// The manifest or tag is not known.
    ManifestUnknown,
    /// The manifest is not one.
    ManifestInvalid,
    /// The repository name is not one.
    NameInvalid,
    /// The repository or registry is not known here.
    NameUnknown,
    /// Access is denied.
    Denied,
    /// The operation is not supported.
    Unsupported,
    /// The requested range cannot be given (not in the spec's table; the reference registry's word).
    RangeInvalid,
    /// Something else went wrong (not in the spec's table; the reference registry's word).
    Unknown,
    /// The upstream cannot be reached now (the reference registry's word).
    Unavailable,
}

/// The body of every error answer: `{"errors":[{"code":…,"message":…}]}`.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorBody {
    errors: [ErrorEntry; 1],
}

#[derive(Clone, Debug, Serialize)]
struct ErrorEntry {
    code: OciCode,
    message: String,
}

impl ErrorBody {
    /// An error with one code and a sentence for people.
    pub fn new(code: OciCode, message: impl Into<String>) -> Self {
        Self { errors: [ErrorEntry { code, message: message.into() }] }
    }

    /// The body as JSON bytes (`application/json`).
    pub fn to_json(&self) -> Vec<u8> {
        // Two strings in an array cannot fail to serialise; an empty body is still a correct error answer.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_what_the_spec_shows() {
        let json = ErrorBody::new(OciCode::ManifestUnknown, "no \"such\" tag").to_json();
        assert_eq!(
            String::from_utf8(json).unwrap(),
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no \"such\" tag"}]}"#
        );
    }
}
