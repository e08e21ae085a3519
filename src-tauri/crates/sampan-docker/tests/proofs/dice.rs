//! Choices made from a seed, and how many of them are asked for.

/// How often, in the ordinary run `ordinary` times: `cargo xtask torture` asks for more.
pub(crate) fn points(ordinary: u32) -> u32 {
    asked("SAMPAN_TORTURE_POINTS").map_or(ordinary, |points| u32::try_from(points).unwrap())
}

/// The choices of this run: the same in every ordinary one.
pub(crate) fn dice() -> Dice {
    Dice(asked("SAMPAN_TORTURE_SEED").unwrap_or(0x5a3b_2026))
}

fn asked(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "the one place where these tests read their size")]
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// SplitMix64 (public domain, Vigna 2015).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next().checked_rem(end as u64).unwrap_or(0)).unwrap()
    }

    /// The same, for what is counted in 32 bits.
    pub(crate) fn number(&mut self, end: u32) -> u32 {
        u32::try_from(self.below(usize::try_from(end).unwrap())).unwrap()
    }

    /// One of some things; there must be one.
    pub(crate) fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    /// Yes in so many of a hundred cases.
    pub(crate) fn percent(&mut self, yes: usize) -> bool {
        self.below(100) < yes
    }

    /// A byte.
    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }
}
