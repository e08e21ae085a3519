//! How long and from which seed a torture test runs: short in the ordinary run, long when `cargo xtask torture` asks.

use std::time::Duration;

/// The seed where none is asked for: the ordinary run makes the same choices every time.
const SEED: u64 = 0x5a3b_2026;

/// What a torture test was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Torture {
    /// How many points: kills, power cuts, damages.
    pub points: u32,
    /// What all choices are made from.
    pub seed: u64,
}

impl Torture {
    /// What `SAMPAN_TORTURE_POINTS` and `SAMPAN_TORTURE_SEED` ask for; else `points` points and a seed that is always the
    /// same.
    ///
    /// # Panics
    /// If one of them is not a number.
    pub fn asked(points: u32) -> Self {
        let number = |name: &str| -> Option<u64> {
            #[expect(
                clippy::disallowed_methods,
                reason = "the one place where a torture test reads its size"
            )]
            let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
            Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
        };
        let asked = number("SAMPAN_TORTURE_POINTS");
        let points = asked.map_or(points, |asked| u32::try_from(asked).expect("not that many points"));
        Self { points, seed: number("SAMPAN_TORTURE_SEED").unwrap_or(SEED) }
    }
}

/// Choices made from a seed (SplitMix64, public domain, Vigna 2015): the same ones in every run.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The choices of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Other choices, made from this seed and a number: those of one round, or of one client.
    #[must_use]
    pub fn branch(&self, number: u64) -> Self {
        let mut branch = Self(self.0 ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
        branch.next();
        branch
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    /// The place of one of `len` things; there must be one.
    pub fn place(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// One of some things; there must be one.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.place(of.len())]
    }

    /// Yes in so many of a hundred cases.
    pub fn percent(&mut self, yes: u64) -> bool {
        self.below(100) < yes
    }

    /// A time up to `most`, in steps of a tenth of a millisecond.
    pub fn time(&mut self, most: Duration) -> Duration {
        let steps = u64::try_from(most.as_micros() / 100).unwrap_or(u64::MAX);
        Duration::from_micros(self.below(steps + 1) * 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_makes_the_same_choices_and_its_branches_make_others() {
        let choices = |mut dice: Dice| (0..20).map(|_| dice.below(1000)).collect::<Vec<_>>();
        assert_eq!(choices(Dice::new(7)), choices(Dice::new(7)));
        assert_ne!(choices(Dice::new(7)), choices(Dice::new(8)));
        assert_ne!(choices(Dice::new(7).branch(1)), choices(Dice::new(7).branch(2)));
        assert_eq!(Dice::new(1).below(0), 0);
        assert!((0..100).all(|seed| Dice::new(seed).time(Duration::from_millis(3)).as_millis() <= 3));
    }
}
