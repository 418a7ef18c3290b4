//! Disagreement by field, beside the disagreement of the noise leg.

use std::collections::BTreeMap;

use crate::compare::values::Equality;

/// The largest number of fields. Further fields are counted together.
const FIELDS_MAX: usize = 500;

/// The longest path of a field that is counted alone, in bytes.
const PATH_BYTES_MAX: usize = 1000;

/// The name under which further fields are counted.
const OTHERS: &str = "(others)";

/// The counts of one field.
#[derive(Clone, Copy, Debug, Default)]
pub struct FieldCounts {
    /// Pairs in which at least one answer has the field.
    pub pairs: u64,
    /// Pairs in which the field differs.
    pub differ: u64,
    /// Requests in which only the candidate's field differs from the base's.
    pub candidate_only: u64,
    /// Requests in which only the noise leg's field differs from the base's.
    pub noise_only: u64,
}

/// The counts of all fields.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    /// The counts by path.
    pub by_path: BTreeMap<String, FieldCounts>,
}

impl Fields {
    /// Compares the fields of one request's answers.
    pub fn add(&mut self, equality: Equality, base: &str, candidate: &str, noise: Option<&str>) {
        let mut of_noise: BTreeMap<String, bool> = match noise {
            Some(noise) => equality.fields(base, noise).into_iter().collect(),
            None => BTreeMap::new(),
        };
        for (path, is_same) in equality.fields(base, candidate) {
            // A field that neither base nor noise has is equal in both.
            let noise_same = noise.map(|_| of_noise.remove(&path).unwrap_or(true));
            let counts = self.counts(path);
            counts.pairs += 1;
            counts.differ += u64::from(!is_same);
            if let Some(noise_same) = noise_same {
                counts.candidate_only += u64::from(!is_same && noise_same);
                counts.noise_only += u64::from(is_same && !noise_same);
            }
        }
        // Fields that only the noise leg has.
        for (path, is_same) in of_noise {
            self.counts(path).noise_only += u64::from(!is_same);
        }
    }

    fn counts(&mut self, path: String) -> &mut FieldCounts {
        let is_kept = self.by_path.len() < FIELDS_MAX && path.len() <= PATH_BYTES_MAX;
        let path = match is_kept || self.by_path.contains_key(&path) {
            true => path,
            false => OTHERS.to_owned(),
        };
        self.by_path.entry(path).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_differ_are_counted_beside_the_noise() {
        let mut fields = Fields::default();
        let equality = Equality::default();
        let base = r#"{"a":1,"b":1,"c":1}"#;
        fields.add(
            equality,
            base,
            r#"{"a":2,"b":1,"c":2}"#,
            Some(r#"{"a":1,"b":2,"c":3,"d":1}"#),
        );
        fields.add(equality, base, base, None);
        let of = |path: &str| {
            let it = fields.by_path[path];
            (it.pairs, it.differ, it.candidate_only, it.noise_only)
        };
        assert_eq!(of("a"), (2, 1, 1, 0));
        assert_eq!(of("b"), (2, 0, 0, 1));
        assert_eq!(of("c"), (2, 1, 0, 0));
        assert_eq!(of("d"), (0, 0, 0, 1));
        fields.add(
            equality,
            "{}",
            &format!(r#"{{"{}":1}}"#, "x".repeat(1 << 20)),
            None,
        );
        assert_eq!(fields.by_path[OTHERS].differ, 1);
        for number in 0..2 * FIELDS_MAX {
            fields.add(equality, "{}", &format!(r#"{{"k{number}":1}}"#), None);
        }
        assert_eq!(fields.by_path.len(), FIELDS_MAX);
    }
}
