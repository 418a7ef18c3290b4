//! The ids of a limited number of closed requests. The ids show which requests are
//! repeated.

use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasherDefault;

use crate::join::request_id::{KeepHash, hash_id};

/// The hashes of ids. A hundred thousand hashes fit into the processor's cache. Two ids
/// with equal hashes are treated as one id. If a hundred thousand ids are remembered,
/// this happens to one request in 10^14.
#[derive(Debug)]
pub struct RememberedIds {
    hashes: HashSet<u64, BuildHasherDefault<KeepHash>>,
    /// The same hashes as in the set, in the order of insertion.
    order: VecDeque<u64>,
    ids_max: usize,
    seed: u64,
}

impl RememberedIds {
    /// Starts without an id. A service uses a random seed, so that no client can
    /// choose ids with equal hashes.
    pub fn new(ids_max: usize, seed: u64) -> RememberedIds {
        RememberedIds {
            hashes: HashSet::default(),
            order: VecDeque::new(),
            ids_max,
            seed,
        }
    }

    /// Whether the id is known.
    pub fn contains(&self, id: &str) -> bool {
        !self.hashes.is_empty() && self.contains_hash(hash_id(id, self.seed))
    }

    /// Whether an id with this hash is known.
    pub fn contains_hash(&self, hash: u64) -> bool {
        self.hashes.contains(&hash)
    }

    /// Adds an id. The oldest one is forgotten if there are too many.
    pub fn insert(&mut self, id: &str) {
        self.insert_hash(hash_id(id, self.seed));
    }

    /// Adds the id with this hash. The oldest one is forgotten if there are too many.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut remembered = RememberedIds::new(2, 7);
        for id in ["a", "b", "b", "c"] {
            remembered.insert(id);
        }
        assert!(!remembered.contains("a"));
        assert!(remembered.contains("b") && remembered.contains("c"));
        let mut nothing = RememberedIds::new(0, 7);
        nothing.insert("a");
        assert!(!nothing.contains("a"));
    }
}
