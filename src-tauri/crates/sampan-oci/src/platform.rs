//! Platforms: written by people, offered by indexes, chosen as container engines choose.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The platform an entry of an index is for (image-spec, image-index.md).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// CPU architecture, as Go names it.
    pub architecture: String,
    /// Operating system, as Go names it.
    pub os: String,
    /// CPU variant, such as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Not a platform. The text is for the person who typed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a platform is os/architecture or os/architecture/variant, such as linux/amd64 or linux/arm/v7")]
pub struct InvalidPlatform;

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    /// Reads `linux/arm64` and `linux/arm/v7`, and the other names of the same: `linux/x86_64`, `linux/aarch64`.
    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let word = |part: &str| {
            (1..=32).contains(&part.len())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        let lower = text.trim().to_ascii_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(InvalidPlatform),
        };
        if !word(os) || !word(architecture) || !variant.is_none_or(word) {
            return Err(InvalidPlatform);
        }
        let (architecture, implied) = architecture_of(architecture);
        let variant = variant.or(implied).map(str::to_owned);
        Ok(Self { architecture: architecture.into(), os: os.into(), variant })
    }
}

/// Go's name of an architecture, and the variant that the other name implies.
fn architecture_of(name: &str) -> (&str, Option<&'static str>) {
    match name {
        "x86_64" | "x86-64" => ("amd64", None),
        "aarch64" => ("arm64", None),
        "i386" | "x86" => ("386", None),
        "armhf" => ("arm", Some("v7")),
        "armel" => ("arm", Some("v6")),
        other => (other, None),
    }
}

impl Platform {
    /// What containers on this machine are: Linux, on every system, on its processor.
    pub fn of_this_machine() -> Self {
        let (architecture, implied) = match std::env::consts::ARCH {
            "powerpc64" => ("ppc64le", None),
            other => architecture_of(other),
        };
        Self { architecture: architecture.into(), os: "linux".into(), variant: implied.map(str::to_owned) }
    }

    /// How well `offered` runs where this is wanted: 0 is best; `None`: it does not. An older variant of the same
    /// architecture runs, a newer one does not (containerd, platforms.Only).
    pub fn rank(&self, offered: &Self) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        match (self.level(), offered.level()) {
            (Some(wanted), Some(offered)) => wanted.checked_sub(offered),
            // Variants nobody numbers have to be the same.
            _ => (self.variant == offered.variant).then_some(0),
        }
    }

    /// The number of the variant; without one, what that means for the architecture.
    fn level(&self) -> Option<u32> {
        match &self.variant {
            Some(variant) => variant.strip_prefix('v')?.parse().ok(),
            None => match self.architecture.as_str() {
                "arm" => Some(7),
                "arm64" => Some(8),
                _ => Some(1),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn platforms_are_read_as_people_write_them() {
        for (written, meant) in [
            ("linux/amd64", "linux/amd64"),
            (" Linux/AMD64 ", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm/v7", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(platform(written).to_string(), meant, "{written:?}");
        }
        for wrong in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/am d", "linux/$X", "linux/amd64/"] {
            assert_eq!(wrong.parse::<Platform>(), Err(InvalidPlatform), "{wrong:?}");
        }
    }

    #[test]
    fn an_older_variant_runs_and_a_newer_one_does_not() {
        for (wanted, offered, rank) in [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64", "linux/amd64/v2", None),
            ("linux/amd64/v3", "linux/amd64", Some(2)),
            ("linux/amd64", "linux/arm64", None),
            ("linux/amd64", "windows/amd64", None),
            ("linux/arm64", "linux/arm64/v8", Some(0)),
            ("linux/arm64/v8", "linux/arm64", Some(0)),
            ("linux/arm", "linux/arm/v6", Some(1)),
            ("linux/arm/v6", "linux/arm/v7", None),
            ("linux/mips64le/softfloat", "linux/mips64le/softfloat", Some(0)),
            ("linux/mips64le/softfloat", "linux/mips64le", None),
        ] {
            assert_eq!(platform(wanted).rank(&platform(offered)), rank, "{wanted} offered {offered}");
        }
    }

    #[test]
    fn this_machine_runs_linux_containers() {
        let own = Platform::of_this_machine();
        assert_eq!((own.os.as_str(), own.rank(&own)), ("linux", Some(0)));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_is_written_the_same(text in "\\PC{0,60}") {
            if let Ok(read) = text.parse::<Platform>() {
                prop_assert_eq!(platform(&read.to_string()), read);
            }
        }
    }
}
