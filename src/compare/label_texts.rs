//! The distinct texts of labels, in memory that is known.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use crate::join::request_id::{KeepHash, RECORDING_SEED, hash_id};

/// The memory of a map, in bytes. The library's map has room for 7 entries in 8 places,
/// and a byte for each place.
pub fn map_bytes<K, V, S>(map: &HashMap<K, V, S>) -> usize {
    let places = (map.capacity() * 8).div_ceil(7);
    places * (size_of::<(K, V)>() + 1)
}

/// The memory of a map in bytes while one more entry is added. A full map is copied into
/// one of twice the size.
pub fn grown_bytes<K, V, S>(map: &HashMap<K, V, S>) -> usize {
    let now = map_bytes(map);
    match map.len() < map.capacity() {
        true => now,
        false => 3 * now,
    }
}

/// Distinct texts, numbered in the order of their first occurrence.
#[derive(Debug, Default)]
pub struct LabelTexts {
    /// All texts, one after the other.
    text: String,
    /// The end of each text.
    ends: Vec<usize>,
    /// The number of each text, by its hash.
    numbers: HashMap<u64, u32, BuildHasherDefault<KeepHash>>,
}

impl LabelTexts {
    /// The number of a text, which is kept if it is new.
    pub fn number(&mut self, text: &str) -> u32 {
        let next = self.ends.len() as u32;
        let number = *self
            .numbers
            .entry(hash_id(text, RECORDING_SEED))
            .or_insert(next);
        if number == next {
            self.text.push_str(text);
            self.ends.push(self.text.len());
        }
        number
    }

    /// The text with a number; `None` for a number without a text.
    pub fn get(&self, number: u32) -> Option<&str> {
        let number = number as usize;
        let end = *self.ends.get(number)?;
        let start = match number {
            0 => 0,
            _ => self.ends[number - 1],
        };
        self.text.get(start..end)
    }

    /// The memory, in bytes.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        let ends = self.ends.capacity() * size_of::<usize>();
        self.text.capacity() + ends + map_bytes(&self.numbers)
    }

    /// The memory in bytes while a text of `length` bytes is added.
    pub fn grown_bytes(&self, length: usize) -> usize {
        let text = match self.text.len() + length <= self.text.capacity() {
            true => self.text.capacity(),
            false => {
                self.text.capacity() + (2 * self.text.capacity()).max(self.text.len() + length)
            }
        };
        let ends = match self.ends.len() < self.ends.capacity() {
            true => self.ends.capacity(),
            false => 3 * self.ends.capacity(),
        };
        text + ends * size_of::<usize>() + grown_bytes(&self.numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_kept_once() {
        let mut texts = LabelTexts::default();
        let numbers = ["a", "bc", "a", "", "bc"].map(|text| texts.number(text));
        assert_eq!(numbers, [0, 1, 0, 2, 1]);
        let kept = [0, 1, 2, 3].map(|number| texts.get(number));
        assert_eq!(kept, [Some("a"), Some("bc"), Some(""), None]);
    }
}
