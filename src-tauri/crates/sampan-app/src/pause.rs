//! Pausing, with an end that people forget to set.

use sampan_oci::Millis;

/// Whether Sampan is paused, and until when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pause {
    /// Not paused.
    #[default]
    Off,
    /// Until told otherwise.
    On,
    /// Until then.
    Until(Millis),
}

impl Pause {
    /// A pause of so many seconds from `now`, or an open one.
    pub(crate) fn begin(now: Millis, seconds: Option<u32>) -> Self {
        seconds.map_or(Self::On, |seconds| Self::Until(now.plus(i64::from(seconds) * 1000)))
    }

    /// What is left of it at `now`.
    pub(crate) fn at(self, now: Millis) -> Self {
        match self {
            Self::Until(end) if end <= now => Self::Off,
            Self::Off | Self::On | Self::Until(_) => self,
        }
    }

    /// When it ends by itself.
    pub(crate) fn until(self) -> Option<Millis> {
        match self {
            Self::Until(end) => Some(end),
            Self::Off | Self::On => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timed_pause_ends_by_itself_and_an_open_one_does_not() {
        let pause = Pause::begin(Millis(1000), Some(60));
        assert_eq!(pause.at(Millis(60_999)), pause);
        assert_eq!(pause.at(Millis(61_000)), Pause::Off);
        assert_eq!(Pause::begin(Millis(0), None).at(Millis(i64::MAX)), Pause::On);
    }
}
