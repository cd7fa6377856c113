//! Random numbers from a seed: the same numbers for the same seed, on every machine, for ever.
//!
//! SplitMix64, written out here so that no library can change what a seed means. Streams are keyed:
//! what one part of the world draws never moves what another part draws, so that a plan with one item
//! less meets almost the same network.

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream that belongs to `keys`.
    pub fn keyed(keys: &[u64]) -> Self {
        let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
        for key in keys {
            rng.0 = rng.next() ^ key.wrapping_mul(0xd6e8_feb8_6659_fd93);
        }
        rng.next();
        rng
    }

    /// The next number.
    #[allow(clippy::should_implement_trait)] // An endless stream is no iterator.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The high half of the product: no division, and no bias worth naming for small ranges.
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// A number from `low` to `high`, both possible.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// A number from `low` to `high` whose magnitude is uniform: small ones are as likely as large.
    pub fn magnitude(&mut self, low: u64, high: u64) -> u64 {
        let bits = |number: u64| u64::from(64 - number.leading_zeros());
        let chosen = self.within(bits(low), bits(high));
        let (from, to) =
            if chosen == 0 { (0, 0) } else { (1 << (chosen - 1), (1 << (chosen - 1)) * 2 - 1) };
        self.within(from, to).clamp(low, high)
    }

    /// True in `percent` of 100 cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of them.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_the_same_for_ever() {
        let mut rng = Rng::keyed(&[1, 2]);
        let drawn: Vec<u64> = (0..3).map(|_| rng.next()).collect();
        let again: Vec<u64> = {
            let mut rng = Rng::keyed(&[1, 2]);
            (0..3).map(|_| rng.next()).collect()
        };
        assert_eq!(drawn, again);
        assert_ne!(
            drawn[0],
            Rng::keyed(&[2, 1]).next(),
            "keys in another order are another stream"
        );
    }

    #[test]
    fn ranges_hold_both_ends_and_nothing_else() {
        let mut rng = Rng::keyed(&[7]);
        let drawn: Vec<u64> = (0..1000).map(|_| rng.within(3, 5)).collect();
        assert!((3..=5).all(|wanted| drawn.contains(&wanted)));
        assert!(drawn.iter().all(|number| (3..=5).contains(number)));
        assert!((0..1000).all(|_| (10..=1000).contains(&rng.magnitude(10, 1000))));
    }
}
