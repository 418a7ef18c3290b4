//! Names of the input, such as classes or paths, in bounded memory.

use std::collections::HashMap;

/// The longest name, in bytes. Longer ones are not kept.
const NAME_BYTES_MAX: usize = 1000;

/// Names, numbered in the order of their first occurrence. Their number and the bytes of
/// each are bounded.
#[derive(Clone, Debug)]
pub struct BoundedNames {
    numbers: HashMap<String, usize>,
    names: Vec<String>,
    names_max: usize,
    bytes_max: usize,
}

impl BoundedNames {
    /// Starts without a name. At most `names_max` names are kept, each of at most
    /// `bytes_max` bytes, and of at most 1,000.
    pub fn new(names_max: usize, bytes_max: usize) -> BoundedNames {
        BoundedNames {
            numbers: HashMap::new(),
            names: Vec::new(),
            names_max,
            bytes_max: bytes_max.min(NAME_BYTES_MAX),
        }
    }

    /// The number of a name, which is kept if it is new. `None` if it is too long, or if
    /// there are too many names.
    pub fn number(&mut self, name: &str) -> Option<usize> {
        if let Some(number) = self.numbers.get(name) {
            return Some(*number);
        }
        if name.len() > self.bytes_max || self.names.len() >= self.names_max {
            return None;
        }
        let number = self.names.len();
        self.numbers.insert(name.to_owned(), number);
        self.names.push(name.to_owned());
        Some(number)
    }

    /// The names, in the order of their numbers.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_in_number_and_in_bytes() {
        let mut names = BoundedNames::new(3, 5000);
        assert_eq!(names.number("a"), Some(0));
        assert_eq!(names.number(&"x".repeat(NAME_BYTES_MAX + 1)), None);
        assert_eq!(names.number("b"), Some(1));
        assert_eq!(names.number("a"), Some(0));
        assert_eq!(names.number(&"x".repeat(NAME_BYTES_MAX)), Some(2));
        assert_eq!(names.number("c"), None);
        assert_eq!(names.names().len(), 3);
    }
}
