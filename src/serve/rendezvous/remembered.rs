//! The ids of requests whose mailboxes are closed, as many as there is room for.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Known ids, by their hashes: a hundred thousand fit where the processor is
/// fast. Two ids of one hash would be taken for one; among a hundred thousand
/// that happens to one request in 10^14.
#[derive(Debug)]
pub struct Remembered {
    hashes: HashSet<u64, BuildHasherDefault<AsItIs>>,
    /// In the order in which they came.
    order: VecDeque<u64>,
    ids_max: usize,
    seed: u64,
}

impl Remembered {
    /// Nothing is known yet. In service the seed is nobody's to guess, so that
    /// no client can choose ids of one hash.
    pub fn new(ids_max: usize, seed: u64) -> Remembered {
        Remembered {
            hashes: HashSet::default(),
            order: VecDeque::new(),
            ids_max,
            seed,
        }
    }

    /// Whether the id is known.
    pub fn contains(&self, id: &str) -> bool {
        !self.hashes.is_empty() && self.contains_hash(hash(id, self.seed))
    }

    /// Whether the id of this hash is known.
    pub fn contains_hash(&self, hash: u64) -> bool {
        self.hashes.contains(&hash)
    }

    /// Knows an id, and forgets the oldest where there is no room.
    pub fn insert(&mut self, id: &str) {
        self.insert_hash(hash(id, self.seed));
    }

    /// Knows the id of this hash, and forgets the oldest where there is no room.
    pub fn insert_hash(&mut self, hash: u64) {
        if self.ids_max == 0 {
            return;
        }
        if self.order.len() >= self.ids_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.hashes.remove(&oldest);
        }
        if self.hashes.insert(hash) {
            self.order.push_back(hash);
        }
    }
}

/// The hash of an id.
pub fn hash(id: &str, seed: u64) -> u64 {
    xxh3_64_with_seed(id.as_bytes(), seed)
}

/// The hash of what is a hash already.
#[derive(Debug, Default)]
pub struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        // Not used for u64, and right for anything.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut remembered = Remembered::new(2, 7);
        for id in ["a", "b", "b", "c"] {
            remembered.insert(id);
        }
        assert!(!remembered.contains("a"));
        assert!(remembered.contains("b") && remembered.contains("c"));
        let mut nothing = Remembered::new(0, 7);
        nothing.insert("a");
        assert!(!nothing.contains("a"));
    }
}
