//! Pseudo-random numbers for training. The same seed gives the same numbers on every
//! machine.

/// A generator of pseudo-random numbers: SplitMix64. It is no source of secrets.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The numbers of one part of a training, such as a tree. The parts of one seed are
    /// independent of each other.
    pub fn of_part(seed: u64, part: u64) -> Random {
        let mut random = Random { state: seed };
        let mixed = random.next() ^ part.wrapping_mul(0xd134_2543_de82_ef95);
        let mut random = Random { state: mixed };
        random.next();
        random
    }

    /// The next number. Each of the 2^64 numbers is equally likely.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which must not be 0. The bias is less than `bound / 2^64`.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_over_the_range_and_differ_between_parts() {
        let mut counts = [0; 10];
        let mut random = Random::of_part(7, 3);
        for _ in 0..10_000 {
            counts[random.below(10)] += 1;
        }
        assert!(
            counts.iter().all(|count| (850..1150).contains(count)),
            "{counts:?}"
        );
        let numbers = |seed, part| {
            let mut random = Random::of_part(seed, part);
            [(); 4].map(|()| random.next())
        };
        assert_eq!(numbers(7, 3), numbers(7, 3));
        assert_ne!(numbers(7, 3), numbers(7, 4));
        assert_ne!(numbers(7, 3), numbers(8, 3));
    }
}
