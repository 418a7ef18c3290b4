//! The last values that were seen, in bounded memory.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// The last `max` values.
#[derive(Debug)]
pub struct Recent<T, V = ()> {
    values: HashMap<T, V>,
    order: VecDeque<T>,
    max: usize,
}

impl<T: Clone + Eq + Hash> Recent<T> {
    /// Remembers a value.
    pub fn insert(&mut self, value: T) {
        self.set(value, ());
    }

    /// Whether the value is among the remembered ones.
    pub fn contains(&self, value: &T) -> bool {
        self.values.contains_key(value)
    }
}

impl<T: Clone + Eq + Hash, V> Recent<T, V> {
    /// Remembers at most `max` values.
    pub fn new(max: usize) -> Recent<T, V> {
        Recent {
            values: HashMap::new(),
            order: VecDeque::new(),
            max,
        }
    }

    /// Remembers a value with what belongs to it.
    pub fn set(&mut self, value: T, with: V) {
        if self.values.insert(value.clone(), with).is_none() {
            self.order.push_back(value);
        }
        while self.order.len() > self.max {
            if let Some(oldest) = self.order.pop_front() {
                self.values.remove(&oldest);
            }
        }
    }

    /// What belongs to a remembered value.
    pub fn get_mut(&mut self, value: &T) -> Option<&mut V> {
        self.values.get_mut(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_value_is_forgotten_first() {
        let mut recent = Recent::new(2);
        for value in [1, 2, 1, 3] {
            recent.insert(value);
        }
        assert_eq!(
            [1, 2, 3].map(|it| recent.contains(&it)),
            [false, true, true]
        );
        assert_eq!((recent.order.len(), recent.values.len()), (2, 2));
    }
}
