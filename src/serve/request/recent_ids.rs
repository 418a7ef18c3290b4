//! Remembers the last ids, in bounded memory.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use xxhash_rust::xxh3::xxh3_128_with_seed;

/// The last ids, as hashes in two generations. A new id is added to the young generation.
/// When the young generation is full, it becomes the old one, and the ids of the previous
/// old generation are forgotten.
///
/// A hash has 128 bits and a secret random seed, so equal hashes of two ids are
/// improbable: with 10^12 ids, they occur in one of 10^15 runs.
#[derive(Debug)]
pub struct RecentIds {
    young: HashSet<u128>,
    old: HashSet<u128>,
    /// The largest number of ids in a generation.
    generation_max: usize,
    seed: u64,
}

impl RecentIds {
    /// Starts without an id. Remembers at least the last `ids_min` ids and at most
    /// twice as many. An id takes up to 39 bytes.
    pub fn new(ids_min: usize) -> RecentIds {
        RecentIds {
            young: HashSet::new(),
            old: HashSet::new(),
            generation_max: ids_min,
            seed: RandomState::new().hash_one(0),
        }
    }

    /// Whether the id is remembered.
    pub fn contains(&self, id: &str) -> bool {
        let hash = self.hash(id);
        self.young.contains(&hash) || self.old.contains(&hash)
    }

    /// Remembers an id.
    pub fn insert(&mut self, id: &str) {
        if self.generation_max == 0 {
            return;
        }
        if self.young.len() >= self.generation_max {
            // Clearing keeps the allocated memory for the next ids.
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
    fn at_least_the_last_ids_are_remembered_and_at_most_twice_as_many() {
        let mut recent = RecentIds::new(100);
        for number in 0..1000 {
            recent.insert(&number.to_string());
            let is_remembered = |age: i32| recent.contains(&(number - age).to_string());
            for age in 0..number.min(99) {
                assert!(is_remembered(age), "{number} {age}");
            }
            assert!(number < 200 || !is_remembered(200), "{number}");
            assert!(recent.young.len() + recent.old.len() <= 200);
        }
        assert!(!recent.contains("1000"));
        let mut nothing = RecentIds::new(0);
        nothing.insert("a");
        assert!(!nothing.contains("a"));
    }
}
