//! The columns that linear models see: a number is one column, and a category is one
//! 0/1 column per value.

use serde::{Deserialize, Serialize};

use crate::model::bounds::FEATURES_MAX;
use crate::model::feature::Feature;

/// The largest number of columns.
pub const COLUMNS_MAX: usize = 100_000;

/// For each feature, the number of its categories; 0 for a number. Empty if all features
/// are numbers, as in files of format version 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OneHot(Vec<u32>);

impl OneHot {
    /// The columns for these features.
    pub fn new(features: &[Feature]) -> OneHot {
        let counts = features
            .iter()
            .map(|feature| feature.categories().map_or(0, |all| all.len() as u32));
        let counts: Vec<u32> = counts.collect();
        match counts.iter().all(|count| *count == 0) {
            true => OneHot::default(),
            false => OneHot(counts),
        }
    }

    /// Whether all features are numbers.
    pub fn is_plain(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of columns for this number of features.
    pub fn width(&self, features: usize) -> usize {
        match self.is_plain() {
            true => features,
            false => self.0.iter().map(|count| (*count).max(1) as usize).sum(),
        }
    }

    /// Calls `visit` with the index and the value of each column that can differ from 0
    /// in this row. An unknown category sets no column.
    #[inline]
    pub fn each_column(&self, row: &[f64], mut visit: impl FnMut(usize, f64)) {
        if self.is_plain() {
            for (column, value) in row.iter().enumerate() {
                visit(column, *value);
            }
            return;
        }
        let mut column = 0;
        for (value, count) in row.iter().zip(&self.0) {
            match *count {
                0 => {
                    visit(column, *value);
                    column += 1;
                }
                count => {
                    if (0.0..f64::from(count)).contains(value) {
                        visit(column + *value as usize, 1.0);
                    }
                    column += count as usize;
                }
            }
        }
    }

    /// The name of each column.
    pub fn names(&self, features: &[Feature]) -> Vec<String> {
        let mut names = Vec::new();
        for feature in features {
            match feature.categories() {
                None => names.push(feature.name.clone()),
                Some(all) => {
                    names.extend(
                        all.iter()
                            .map(|value| format!("{} = {value}", feature.name)),
                    );
                }
            }
        }
        names
    }

    /// Checks columns that were read from a file.
    pub fn check(&self, features: &[Feature]) -> Result<(), String> {
        if *self != OneHot::new(features) || features.len() > FEATURES_MAX {
            return Err(
                "the categories of the parameters are not those of the features".to_owned(),
            );
        }
        match self.width(features.len()) <= COLUMNS_MAX {
            true => Ok(()),
            false => Err(format!("it has more than {COLUMNS_MAX} columns")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::feature::{Domain, Missing, Unseen};

    fn features() -> Vec<Feature> {
        let categories = Domain::Categories {
            categories: ["a", "b", "c"].map(str::to_owned).to_vec(),
            unseen: Unseen::Other,
        };
        let kind = Feature {
            domain: categories,
            missing: Missing::Error,
            ..Feature::number("kind")
        };
        vec![Feature::number("x"), kind, Feature::number("y")]
    }

    #[test]
    fn each_category_has_its_column_and_an_unknown_one_has_none() {
        let one_hot = OneHot::new(&features());
        assert_eq!(one_hot.width(3), 5);
        assert_eq!(
            one_hot.names(&features()),
            ["x", "kind = a", "kind = b", "kind = c", "y"]
        );
        for (row, columns) in [
            ([7.0, 0.0, 9.0], [7.0, 1.0, 0.0, 0.0, 9.0]),
            ([7.0, 2.0, 9.0], [7.0, 0.0, 0.0, 1.0, 9.0]),
            ([7.0, 3.0, 9.0], [7.0, 0.0, 0.0, 0.0, 9.0]),
            ([7.0, -1.0, 9.0], [7.0, 0.0, 0.0, 0.0, 9.0]),
            ([7.0, f64::NAN, 9.0], [7.0, 0.0, 0.0, 0.0, 9.0]),
        ] {
            let mut found = [0.0; 5];
            one_hot.each_column(&row, |column, value| found[column] = value);
            assert_eq!(found, columns);
        }
        assert_eq!(one_hot.check(&features()), Ok(()));
        assert!(one_hot.check(&features()[..2]).is_err());
        assert!(OneHot::default().check(&features()).is_err());
    }
}
