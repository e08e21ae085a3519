//! Digests: the names that bytes have by themselves.

use std::fmt;
use std::hash::Hash;
use std::str::FromStr;

use base16ct::lower;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256, Sha512};

/// A hash algorithm of the image specification (descriptor.md, "Registered algorithms").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, which nearly every image uses.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The name before the colon, also the folder name under `blobs/` in an OCI image layout.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

/// The hash of some bytes, written `sha256:` and 64, or `sha512:` and 128, lowercase hex digits (image-spec,
/// descriptor.md, "Digests"). Whoever holds one need not check it again; its hex is safe as a file name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(Value);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Sha256([u8; 32]),
    Sha512([u8; 64]),
}

/// Why a text is not a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDigest {
    /// The algorithm is missing, or is not `sha256` or `sha512`.
    #[error("a digest starts with `sha256:` or `sha512:`")]
    Algorithm,
    /// The part after the colon is not the right number of lowercase hex digits.
    #[error("a digest ends with 64 (sha256) or 128 (sha512) lowercase hex digits")]
    Encoding,
}

impl Digest {
    /// The SHA-256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Value::Sha256(Sha256::digest(bytes).into()))
    }

    /// The algorithm that made this digest.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Value::Sha256(_) => Algorithm::Sha256,
            Value::Sha512(_) => Algorithm::Sha512,
        }
    }

    fn bytes(&self) -> &[u8] {
        match &self.0 {
            Value::Sha256(bytes) => bytes,
            Value::Sha512(bytes) => bytes,
        }
    }

    /// The lowercase hex digits after the colon.
    pub fn hex(&self) -> String {
        lower::encode_string(self.bytes())
    }

    /// A hasher of this digest's algorithm, to check bytes that claim to be these.
    pub fn hasher(&self) -> Hasher {
        Hasher::new(self.algorithm())
    }

    /// Whether `bytes` are the bytes this digest names.
    pub fn names(&self, bytes: &[u8]) -> bool {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish() == *self
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let (algorithm, digits) = text.split_once(':').ok_or(InvalidDigest::Algorithm)?;
        match algorithm {
            "sha256" => bytes(digits).map(Value::Sha256),
            "sha512" => bytes(digits).map(Value::Sha512),
            _ => return Err(InvalidDigest::Algorithm),
        }
        .map(Self)
        .ok_or(InvalidDigest::Encoding)
    }
}

/// Lowercase only: the spec knows nothing else, and two spellings would mean two file names.
fn bytes<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    lower::decode(digits, &mut bytes).ok().filter(|decoded| decoded.len() == N)?;
    Some(bytes)
}

/// A few of the bytes tell digests apart as well as all of them: they are a hash already. Sixteen are more than anybody
/// can make collide.
impl Hash for Digest {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.bytes().first_chunk::<16>().hash(state);
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 128];
        let digits = lower::encode_str(self.bytes(), &mut digits).map_err(|_| fmt::Error)?;
        write!(f, "{}:{digits}", self.algorithm().as_str())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::name::from_text(deserializer)
    }
}

/// Hashes a stream of bytes; [`Digest::hasher`] makes one of the right algorithm.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// A hasher that has seen nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        })
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of everything taken in.
    pub fn finish(self) -> Digest {
        Digest(match self.0 {
            State::Sha256(state) => Value::Sha256(state.finalize().into()),
            State::Sha512(state) => Value::Sha512(state.finalize().into()),
        })
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// SHA-256 of nothing, as published in FIPS 180-4's examples.
    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_digest_of_nothing_is_the_published_one() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert!(EMPTY.parse::<Digest>().unwrap().names(b""));
    }

    #[test]
    fn only_the_specs_spelling_is_a_digest() {
        let hex = &EMPTY[7..];
        let refused = [
            "",
            "sha256",
            "sha256:",
            ":",
            hex,
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            &format!("sha256:{}", &hex[1..]),
            &format!("sha256:{hex}0"),
            &format!("sha256:{}", hex.to_uppercase()),
            &format!("SHA256:{hex}"),
            &format!("sha256-{hex}"),
            &format!("sha256:{hex}\n"),
            &format!(" sha256:{hex}"),
            &format!("sha512:{hex}"),
            "sha256:../../../../../../../../../../../../../../../../../../etc/passwd",
            &format!("sha256:{}/", &hex[1..]),
            &format!("sha256:{}\0", &hex[1..]),
            &format!("sha256:%2e%2e{}", &hex[6..]),
        ];
        for text in refused {
            assert!(text.parse::<Digest>().is_err(), "{text:?} must not be a digest");
        }
        assert!(format!("sha512:{hex}{hex}").parse::<Digest>().is_ok());
    }

    proptest! {
        #[test]
        fn every_digest_survives_its_own_text(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let digest = Digest::of(&bytes);
            prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
            prop_assert!(digest.names(&bytes));
        }

        #[test]
        fn no_text_panics_the_parser(text in "\\PC{0,140}") {
            let _ = text.parse::<Digest>();
        }
    }
}
