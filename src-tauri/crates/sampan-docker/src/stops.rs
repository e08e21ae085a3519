//! The mark of the containers that a person agreed to stop, in the one spelling that the privileged helper takes. Pure.

use std::fmt;
use std::str::FromStr;

use sampan_oci::{Algorithm, Hasher};

/// Names one set of containers: the first 64 bits of a hash of their names, written as 16 hexadecimal digits. The helper
/// counts for itself what would stop; between the question and the password something else may have been started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stops(u64);

impl Stops {
    const DIGITS: usize = 16;

    /// The mark of these containers, in whichever order; of none, too.
    pub fn of(containers: &[String]) -> Self {
        let mut names: Vec<&String> = containers.iter().collect();
        names.sort();
        names.dedup();
        let mut hasher = Hasher::new(Algorithm::Sha256);
        for name in names {
            hasher.update(&(name.len() as u64).to_be_bytes());
            hasher.update(name.as_bytes());
        }
        let digest = hasher.finish();
        Self(
            digest
                .hex()
                .get(..Self::DIGITS)
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                .unwrap_or(0),
        )
    }
}

impl fmt::Display for Stops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The text is not the mark of a set of containers in its one spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not the mark of a set of containers")]
pub struct InvalidStops;

impl FromStr for Stops {
    type Err = InvalidStops;

    fn from_str(text: &str) -> Result<Self, InvalidStops> {
        let mark = u64::from_str_radix(text, 16).map(Self).map_err(|_| InvalidStops)?;
        // Neither `+1`, nor capitals, nor fewer digits.
        if mark.to_string() == text { Ok(mark) } else { Err(InvalidStops) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Stops {
        Stops::of(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_same_containers_have_one_mark_and_others_have_others() {
        assert_eq!(of(&["web", "db"]), of(&["db", "web"]), "in whichever order they are listed");
        let all =
            [of(&[]), of(&["web"]), of(&["db"]), of(&["web", "db"]), of(&["webdb"]), of(&["we", "bdb"])];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[index + 1..].contains(one), "{index}");
        }
    }

    #[test]
    fn a_mark_has_one_spelling() {
        for mark in [of(&[]), of(&["web"]), Stops(0), Stops(u64::MAX)] {
            assert_eq!(mark.to_string().len(), Stops::DIGITS);
            assert_eq!(mark.to_string().parse(), Ok(mark), "there and back");
        }
        for text in [
            "",
            "0",
            "000000000000000",
            "00000000000000000",
            "+000000000000001",
            "00000000000000AB",
            " 00000000000000a",
        ] {
            assert_eq!(text.parse::<Stops>(), Err(InvalidStops), "{text:?} is no mark");
        }
    }
}
