//! The ids that came, as far back as there is room.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Ids by their hashes, in two generations: the younger one takes what comes, and
/// when it is full it becomes the older one, whose ids are forgotten. A hash has
/// 128 bits and a seed that nobody can guess, so two ids are never taken for one: of
/// a million million ids that would happen once in 10^15 runs.
#[derive(Debug)]
pub struct KnownIds {
    young: HashSet<u128>,
    old: HashSet<u128>,
    /// How many ids a generation holds.
    generation_max: usize,
    seed: u64,
}

impl KnownIds {
    /// Knows no id yet, and at least the last `ids_max` later on; twice as many at
    /// the most, each of which takes up to 39 bytes.
    pub fn new(ids_max: usize) -> KnownIds {
        KnownIds {
            young: HashSet::new(),
            old: HashSet::new(),
            generation_max: ids_max,
            seed: RandomState::new().hash_one(0),
        }
    }

    /// Whether the id has come, as far as that is known.
    pub fn contains(&self, id: &str) -> bool {
        let hash = self.hash(id);
        self.young.contains(&hash) || self.old.contains(&hash)
    }

    /// An id comes.
    pub fn insert(&mut self, id: &str) {
        if self.generation_max == 0 {
            return;
        }
        if self.young.len() >= self.generation_max {
            // Its memory is used again.
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(self.hash(id));
    }

    fn hash(&self, id: &str) -> u128 {
        xxh3_128_with_seed(id.as_bytes(), self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_the_last_ids_are_known_and_no_more_than_twice_as_many() {
        let mut known = KnownIds::new(100);
        for number in 0..1000 {
            known.insert(&number.to_string());
            let is_known = |age: i32| known.contains(&(number - age).to_string());
            for age in 0..number.min(99) {
                assert!(is_known(age), "{number} {age}");
            }
            assert!(number < 200 || !is_known(200), "{number}");
            assert!(known.young.len() + known.old.len() <= 200);
        }
        assert!(!known.contains("1000"));
        let mut nothing = KnownIds::new(0);
        nothing.insert("a");
        assert!(!nothing.contains("a"));
    }
}
