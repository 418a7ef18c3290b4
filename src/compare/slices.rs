//! Agreement by the value of a field of the model input.

use std::collections::BTreeMap;

use crate::wire::answer::canonical;
use crate::wire::object::at_pointer;

/// The largest number of values of one field. Further values are counted together.
const VALUES_MAX: usize = 200;

/// The longest text of a value that is shown, in bytes.
const VALUE_BYTES_MAX: usize = 100;

/// The pairs of one slice.
#[derive(Clone, Copy, Debug, Default)]
pub struct SliceCounts {
    /// All pairs.
    pub pairs: u64,
    /// The pairs that differ.
    pub differ: u64,
}

/// The slices by one field.
#[derive(Clone, Debug)]
pub struct Slices {
    /// The JSON pointer into the model input.
    pub pointer: String,
    /// The counts by value, as canonical JSON.
    pub by_value: BTreeMap<String, SliceCounts>,
}

impl Slices {
    /// Starts without a pair.
    pub fn new(pointer: &str) -> Slices {
        Slices {
            pointer: pointer.to_owned(),
            by_value: BTreeMap::new(),
        }
    }

    /// Counts a pair.
    pub fn add(&mut self, model_input: &str, is_same: bool) {
        let value = at_pointer(model_input, &self.pointer);
        let value = value.map_or_else(|| "(missing)".into(), canonical);
        let is_known = self.by_value.contains_key(&*value);
        let is_shown = value.len() <= VALUE_BYTES_MAX && self.by_value.len() < VALUES_MAX;
        let value = match is_known || is_shown {
            true => value.into_owned(),
            false => "(others)".to_owned(),
        };
        let counts = self.by_value.entry(value).or_default();
        counts.pairs += 1;
        counts.differ += u64::from(!is_same);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_counted_by_value() {
        let mut slices = Slices::new("/a/b");
        slices.add(r#"{"a":{"b":"x"}}"#, true);
        slices.add(r#"{"a":{"b":"x"}}"#, false);
        slices.add("{}", false);
        let of = |slices: &Slices, value: &str| {
            let it = slices.by_value[value];
            (it.pairs, it.differ)
        };
        assert_eq!(of(&slices, "\"x\""), (2, 1));
        assert_eq!(of(&slices, "(missing)"), (1, 1));
        for number in 0..2 * VALUES_MAX {
            slices.add(&format!(r#"{{"a":{{"b":{number}}}}}"#), true);
        }
        assert_eq!(slices.by_value.len(), VALUES_MAX + 1);
        assert_eq!(of(&slices, "(others)").0, VALUES_MAX as u64 + 2);
    }
}
