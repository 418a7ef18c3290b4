//! The distinct answers of the models, numbered in the order of their first occurrence.

use std::collections::HashMap;

use serde_json::value::RawValue;
use xxhash_rust::xxh3::Xxh3Builder;

use crate::compare::bounded_names::BoundedNames;
use crate::wire::answer::canonical;

/// The largest number of distinct answers. Further and longer ones count as "others"
/// together, so that answers such as prices cannot fill the memory.
pub const CLASSES_MAX: usize = 200;

/// The longest answer that is a class of its own, in bytes of its canonical form.
const CLASS_BYTES_MAX: usize = 1000;

/// The largest number of spellings that are remembered.
const SPELLINGS_MAX: usize = 1000;

/// The longest spelling that is remembered, in bytes.
const SPELLING_BYTES_MAX: usize = 100;

/// The number of the class "others".
pub const OTHERS: usize = CLASSES_MAX;

/// The distinct answers.
#[derive(Debug)]
pub struct Classes {
    /// The class of each spelling: `1` and `1.0` are one class.
    by_spelling: HashMap<String, usize, Xxh3Builder>,
    by_value: BoundedNames,
}

impl Default for Classes {
    fn default() -> Classes {
        Classes {
            by_spelling: HashMap::default(),
            by_value: BoundedNames::new(CLASSES_MAX, CLASS_BYTES_MAX),
        }
    }
}

impl Classes {
    /// The class of an answer.
    pub fn class_of(&mut self, answer: &str) -> usize {
        if let Some(class) = self.by_spelling.get(answer) {
            return *class;
        }
        let Some(class) = self.by_value.number(&canonical(answer)) else {
            return OTHERS;
        };
        if self.by_spelling.len() < SPELLINGS_MAX && answer.len() <= SPELLING_BYTES_MAX {
            self.by_spelling.insert(answer.to_owned(), class);
        }
        class
    }

    /// The answer of a class, as JSON text in its canonical form.
    pub fn name(&self, class: usize) -> &str {
        let name = self.by_value.names().get(class);
        name.map_or("\"(others)\"", String::as_str)
    }
}

impl Classes {
    /// The answer of a class, as JSON for a report.
    pub fn json_name(&self, class: usize) -> Box<RawValue> {
        let text = self.name(class).to_owned();
        // A canonical answer is JSON. A text that is not would spoil the whole report.
        RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
    }
}

/// Counts of pairs of classes.
#[derive(Clone, Debug, Default)]
pub struct PairCounts {
    counts: HashMap<(usize, usize), u64, Xxh3Builder>,
    /// Pairs of two other classes whose answers differ. Their cell is on the diagonal.
    others_differ: u64,
}

impl PairCounts {
    /// Counts a pair. `is_same` tells whether the answers are equal: two answers of the
    /// class "others" may differ.
    pub fn add(&mut self, one: usize, other: usize, is_same: bool) {
        *self.counts.entry((one, other)).or_default() += 1;
        self.others_differ += u64::from(!is_same && one == OTHERS && other == OTHERS);
    }

    /// The pairs of two other classes whose answers differ.
    pub fn others_differ(&self) -> u64 {
        self.others_differ
    }

    /// Whether both sides have further classes than are counted apart. Their agreement
    /// by chance is then unknown.
    pub fn has_others_on_both_sides(&self) -> bool {
        let side = |of: fn(&(usize, usize)) -> usize| self.counts.keys().any(|it| of(it) == OTHERS);
        side(|pair| pair.0) && side(|pair| pair.1)
    }

    /// How often each class occurs as the first and as the second of a pair, by the
    /// number of the class.
    pub fn sums(&self) -> (Vec<u64>, Vec<u64>) {
        let size = self.counts.keys().map(|pair| pair.0.max(pair.1) + 1);
        let size = size.max().unwrap_or(0);
        let (mut ones, mut others) = (vec![0; size], vec![0; size]);
        for ((one, other), count) in &self.counts {
            ones[*one] += count;
            others[*other] += count;
        }
        (ones, others)
    }

    /// The classes that occur, by their names, and the table of counts.
    pub fn table(&self, classes: &Classes) -> (Vec<usize>, Vec<Vec<u64>>) {
        let mut used: Vec<usize> = self
            .counts
            .keys()
            .flat_map(|pair| [pair.0, pair.1])
            .collect();
        used.sort_unstable();
        used.dedup();
        used.sort_by(|one, other| compare_names(classes.name(*one), classes.name(*other)));
        let place: HashMap<usize, usize> = used
            .iter()
            .enumerate()
            .map(|(place, class)| (*class, place))
            .collect();
        let mut table = vec![vec![0; used.len()]; used.len()];
        for ((one, other), count) in &self.counts {
            table[place[one]][place[other]] = *count;
        }
        (used, table)
    }
}

/// Numbers come in their order, then other answers by their text.
fn compare_names(one: &str, other: &str) -> std::cmp::Ordering {
    let number = |name: &str| name.parse::<f64>().ok();
    match (number(one), number(other)) {
        (Some(one), Some(other)) => one.total_cmp(&other),
        (Some(_), None) => std::cmp::Ordering::Less,
        (None, Some(_)) => std::cmp::Ordering::Greater,
        (None, None) => one.cmp(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_answers_are_one_class_and_further_ones_are_others() {
        let mut classes = Classes::default();
        assert_eq!(classes.class_of("1"), 0);
        assert_eq!(classes.class_of("1.0"), 0);
        assert_eq!(classes.class_of("\"1\""), 1);
        for number in 2..10_000 {
            classes.class_of(&number.to_string());
        }
        assert_eq!(classes.class_of("77777"), OTHERS);
        assert_eq!(classes.class_of("1.00"), 0);
        assert_eq!(classes.class_of(&"7".repeat(1 << 20)), OTHERS);
        assert!(classes.by_spelling.len() <= SPELLINGS_MAX);
        let mut counts = PairCounts::default();
        counts.add(1, 0, false);
        counts.add(0, OTHERS, false);
        let (used, table) = counts.table(&classes);
        let names: Vec<&str> = used.iter().map(|class| classes.name(*class)).collect();
        assert_eq!(names, ["1", "\"(others)\"", "\"1\""]);
        assert_eq!(table, [[0, 1, 0], [0, 0, 0], [1, 0, 0]]);
        assert!(!counts.has_others_on_both_sides());
        counts.add(OTHERS, OTHERS, true);
        counts.add(OTHERS, OTHERS, false);
        assert!(counts.has_others_on_both_sides() && counts.others_differ() == 1);
    }
}
